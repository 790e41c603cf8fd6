"""One row in every table, made from the mappings, so that a new table or column is covered without a word here."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, insert, text
from sqlalchemy.dialects.postgresql import JSONB

from blaid_pipelines.ids import new_id
from blaid_pipelines.store.tables import Base

BEGAN = datetime(2024, 3, 1, 12, tzinfo=UTC)
# What a generated value cannot satisfy.
FIXED: dict[str, dict[str, Any]] = {
    "instruments": {"symbol": "TST"},
    "lake_segments": {"range_end": BEGAN + timedelta(days=1)},
    "provider_requests": {"success": None, "completed_at": None, "category": "market_data"},
    "bots": {"stage": "LAB"},
    "bot_jobs": {"status": "QUEUED"},
    "backtest_sessions": {"status": "COMPLETED", "reason": None},
    "quality_verdicts": {"status": "PASS"},
    "reconciliations": {"kind": "daily", "status": "PASS"},
    "promotion_decisions": {"decision": "PROMOTE", "from_stage": "LAB", "to_stage": "PAPER"},
    "bot_stage_events": {"from_stage": "LAB", "to_stage": "PAPER"},
    "job_run_events": {"from_status": None, "to_status": "QUEUED"},
    "environment_stamp": {"id": 1, "env": "sandbox"},
}
_VALUES: dict[type, Any] = {
    str: "x", int: 1, float: 1.5, bool: True, UUID: None, datetime: BEGAN, date: BEGAN.date(), Decimal: Decimal("1.5"),
}  # fmt: skip


def fill(connection: Connection, **overrides: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Insert one row into every table that there is and that has none and return the rows by table name.

    The job is QUEUED. The bot begins in LAB and moves to PAPER, which is what its decision and its event say.
    """
    rows: dict[str, dict[str, Any]] = {}
    for table in Base.metadata.sorted_tables:
        if connection.execute(text("SELECT to_regclass(:name)"), {"name": table.fullname}).scalar() is None:
            continue
        if table.name == "environment_stamp" and connection.execute(table.select()).first():
            continue
        row: dict[str, Any] = {}
        for column in table.columns:
            foreign = next(iter(column.foreign_keys), None)
            if foreign is not None:
                row[column.name] = rows[foreign.column.table.name][foreign.column.name]
            elif isinstance(column.type, JSONB):
                row[column.name] = {"n": 1}
            elif column.type.python_type is UUID:
                row[column.name] = new_id()
            else:
                row[column.name] = _VALUES[column.type.python_type]
        row |= FIXED.get(table.name, {}) | overrides.get(table.name, {})
        # a JSONB None must be SQL NULL, so absent
        connection.execute(insert(table).values({name: value for name, value in row.items() if value is not None}))
        rows[table.name] = row
    connection.execute(text("UPDATE blaid.bots SET stage = 'PAPER'"))
    return rows


def counts(connection: Connection) -> dict[str, int]:
    """Number of rows by table, for the tables that exist."""
    found = {}
    for table in Base.metadata.sorted_tables:
        if connection.execute(text("SELECT to_regclass(:name)"), {"name": table.fullname}).scalar() is not None:
            found[table.name] = connection.execute(text(f"SELECT count(*) FROM {table.fullname}")).scalar_one()
    return found
