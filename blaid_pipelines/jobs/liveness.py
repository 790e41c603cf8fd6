"""Is the process behind a job alive? A claim is a session-level advisory lock that the working process holds.

Postgres drops the lock with the connection, so ``kill -9``, a lost host and a closed laptop all show at once, without
heartbeats and without a wall clock: a job whose claim can be had is dead. A hanging process keeps its claim; to end it
is run monitoring's business.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from blaid_pipelines.store.database import Store, database_errors


@contextmanager
def claim(store: Store) -> Iterator[int]:
    """Hold a new claim on a connection of its own; its key goes into the rows of the jobs that the process works on."""
    key = secrets.randbits(62)
    with database_errors(), store.engine.connect() as connection:
        connection.execute(select(func.pg_advisory_lock(key)))
        connection.commit()
        try:
            yield key
        finally:
            # Closing the connection itself releases the lock, also when the server is gone and cannot be asked.
            connection.invalidate()


def is_abandoned(session: Session, key: int) -> bool:
    """True when nobody holds the claim. Takes it until the transaction ends, so that two observers agree."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(key))))
