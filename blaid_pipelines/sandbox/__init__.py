"""The sandbox gateway: providers' own protocols on loopback, for development, demos and tests."""
