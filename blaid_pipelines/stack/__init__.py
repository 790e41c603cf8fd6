"""The local stack: which processes an installation runs, how they are started, watched and stopped."""
