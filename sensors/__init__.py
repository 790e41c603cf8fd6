"""Dagster sensors: what starts work by itself. Each opens the store only when it ticks."""
