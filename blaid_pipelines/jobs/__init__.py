"""Jobs: the state machine of everything that runs for a bot."""
