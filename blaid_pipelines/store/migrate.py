"""Bringing a database to the schema that this code expects, and saying whether it is there. Alembic runs in-process.

Rows' meaning is not known here. Every function works on the connection it is given, inside its transaction, so that
a migration that fails leaves nothing behind.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix
from blaid_pipelines.store.tables import SCHEMA, Base

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK_ID = 0x626C616964  # "blaid": one migrating process at a time in one database


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration, from the package's own folder, bound to ``connection``."""
    from alembic.config import Config

    from blaid_pipelines.store import migrations

    config = Config()
    # "%" begins an interpolation in Alembic's settings
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@lru_cache(maxsize=1)
def head_revision() -> str:
    """The newest revision that this code has."""
    from alembic.script import ScriptDirectory

    from blaid_pipelines.store import migrations

    head = ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head()
    if head is None:
        raise StopAndFix(
            Reason(ReasonCode.INSTALLATION_BROKEN, "the package has no migrations", "Install the package again.")
        )
    return head


def known_revisions() -> list[str]:
    """All revisions of this code, newest first."""
    from alembic.script import ScriptDirectory

    from blaid_pipelines.store import migrations

    return [script.revision for script in ScriptDirectory(str(Path(migrations.__file__).parent)).walk_revisions()]


def current_revisions(connection: Connection) -> list[str]:
    """The revisions that the database says it has; empty when it was never migrated."""
    found = connection.execute(text("SELECT to_regclass(:name)"), {"name": f"{SCHEMA}.alembic_version"}).scalar()
    if found is None:
        return []
    return list(connection.execute(text(f"SELECT version_num FROM {SCHEMA}.alembic_version ORDER BY 1")).scalars())


def lock(connection: Connection) -> None:
    """Wait until no other process migrates this database; held to the transaction's end."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run migrations up to ``revision``. Raises :class:`StopAndFix` for a database that is newer than this code."""
    from alembic import command

    unknown = sorted(set(current_revisions(connection)) - set(known_revisions()))
    if unknown:
        raise StopAndFix(_out_of_date(f"the database has revision {', '.join(unknown)}, which this code does not know"))
    command.upgrade(alembic_config(connection), revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Undo migrations down to ``revision`` (``base`` for all): each migration says what it does to rows."""
    from alembic import command

    command.downgrade(alembic_config(connection), revision)


def schema_problems(connection: Connection) -> list[Reason]:
    """What keeps this database from being used: wrong revision, missing tables. Empty when it is at the head."""
    head = head_revision()
    current = current_revisions(connection)
    if current != [head]:
        has = ", ".join(current) or "no revision"
        if set(current) - set(known_revisions()):
            return [_out_of_date(f"the database has {has}, which this code (at {head}) does not know")]
        return [_out_of_date(f"the database has {has}, this code needs {head}")]
    present: set[str] = set(
        connection.execute(
            text("SELECT table_name FROM information_schema.tables WHERE table_schema = :schema"), {"schema": SCHEMA}
        ).scalars()
    )
    missing = sorted(table.name for table in Base.metadata.sorted_tables if table.name not in present)
    if missing:
        return [
            Reason(
                ReasonCode.SCHEMA_OUT_OF_DATE,
                f"the database says revision {head} but lacks {', '.join(missing)}",
                "Somebody changed it by hand: restore it from a backup, or begin with a new data folder.",
                {"revision": head, "missing": missing},
            )
        ]
    return []


def _out_of_date(message: str) -> Reason:
    newer = "does not know" in message
    return Reason(
        ReasonCode.SCHEMA_OUT_OF_DATE,
        message,
        "Install the version of Blaid that made this database." if newer else "Run `blaid init` to migrate it.",
        {"head": head_revision()},
    )
