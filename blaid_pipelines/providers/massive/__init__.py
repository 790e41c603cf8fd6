"""Massive (formerly Polygon.io): the backup source of futures bars, over its REST protocol."""
