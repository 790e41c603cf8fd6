"""Policy: what is allowed. Stages, gates, autonomy score, promotion; thresholds come from one versioned file."""
