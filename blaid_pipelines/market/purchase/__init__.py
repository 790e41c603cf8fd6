"""Buying bars: what is missing, what it costs, what may be spent, and the pull itself."""
