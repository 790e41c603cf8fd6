"""Market data: bars, sessions, lake, snapshots, quality gate, instruments."""
