"""The quality gate: what is measured of a snapshot, what must hold, and the verdict that refuses it."""
