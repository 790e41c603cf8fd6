"""Result files of backtests in the lake: one Parquet file of trades and one of daily equity per session.

``trades/bot_id=<uuid>/<session>.parquet`` and ``equity/bot_id=<uuid>/<session>.parquet`` below the lake. Each row
carries the ids and hashes that it rests on, so that a file explains itself away from the database. Files are written to
a temporary name and renamed; a session's file never changes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix

# Columns that every result row carries in front of what the kernel computed.
IDENTITY = (
    "session_id",
    "bot_id",
    "bot_name",
    "instrument",
    "strategy_family",
    "strategy_hash",
    "params_hash",
    "snapshot_id",
    "content_hash",
    "engine_version",
)


def result_path(kind: str, bot_id: UUID, session_id: UUID) -> str:
    """Path, relative to the lake, of the result file ``kind`` (``trades`` or ``equity``) of one session."""
    return f"{kind}/bot_id={bot_id}/{session_id}.parquet"


def write_result(lake: Path, relative: str, table: pa.Table, identity: dict[str, str]) -> None:
    """Write ``table`` with the :data:`IDENTITY` columns in front. Replaces nothing: session ids are new."""
    columns: dict[str, Any] = {name: pa.array([identity[name]] * table.num_rows, pa.string()) for name in IDENTITY}
    for name in table.column_names:
        columns[name] = table.column(name)
    target = lake / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as sink:
            pq.write_table(pa.table(columns), sink, compression="zstd")
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def read_result(lake: Path, relative: str) -> pa.Table:
    """The table as the kernel made it: without the identity columns.

    Raises :class:`StopAndFix` (SESSION_INCOMPLETE) when the file is gone or unreadable.
    """
    try:
        table = pq.read_table(lake / relative, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise StopAndFix(
            Reason(
                ReasonCode.SESSION_INCOMPLETE,
                f"the result file {relative} cannot be read: {error}",
                "Run the backtest again; the recorded session cannot be compared without its file.",
                {"path": relative},
            )
        ) from error
    return table.drop_columns([name for name in IDENTITY if name in table.column_names])
