"""The lake: immutable bar files, the rows that account for them, snapshots, and the proof that binds them."""
