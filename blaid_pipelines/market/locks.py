"""Advisory locks of the market room: who may buy, who may pull a series, who may take files out of the lake.

They live in the database and end with the connection that holds them, so that a process that dies holds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, OperationalError

from blaid_pipelines.ids import fingerprint
from blaid_pipelines.store.database import database_errors

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from blaid_pipelines.store.database import Store

_LOCK_NOT_AVAILABLE = "55P03"


def lock_number(*what: str) -> int:
    """The key of the advisory lock on ``what``."""
    return int(fingerprint(list(what))[:15], 16)


LAKE = lock_number("lake")
"""Shared by whoever cites files in a snapshot, exclusive for whoever removes some."""


class NotHad(Exception):
    """The lock was not to be had in time; the caller says what that means."""


@contextmanager
def exclusive(store: Store, number: int, wait_s: int = 0, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock for the length of the block; ``waiting`` is called once where it is not free at once.

    Raises :class:`NotHad` when it cannot be had within ``wait_s`` seconds, and what a lost database raises.
    """
    with database_errors(), store.engine.connect() as connection:
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:number)"), {"number": number}):
            if not wait_s:
                raise NotHad
            waiting()
            _wait(connection, number, wait_s)
        connection.commit()
        try:
            yield
        finally:
            _release(connection, number)


def share_in_transaction(session: Session, number: int) -> None:
    """Hold a shared lock until the transaction ends; waits for an exclusive holder."""
    session.execute(text("SELECT pg_advisory_xact_lock_shared(:number)"), {"number": number})


def _wait(connection: Connection, number: int, wait_s: int) -> None:
    connection.execute(text(f"SET LOCAL lock_timeout = '{int(wait_s)}s'"))
    try:
        connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": number})
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise NotHad from error


def _release(connection: Connection, number: int) -> None:
    try:
        connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": number})
        connection.commit()
    except DBAPIError:
        # The lock goes with the connection; what the block raised, if anything, is what the caller must hear.
        connection.invalidate()
