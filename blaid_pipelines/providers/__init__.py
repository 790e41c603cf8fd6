"""Adapters to the outside world; the only package that holds network clients."""
