"""Bringing files in: formats, their stamps and zones, and the snapshot that a set of files makes."""
