"""The analysts' warehouse as files: export of Postgres tables to Parquet, a build folder, and the atomic swap.

A build happens in a folder of its own under ``warehouse/builds``: tables as Parquet, then ``warehouse.duckdb``, which
dbt makes and tests (``assets.marts`` calls it; nothing here knows dbt or Dagster). Only a tested file is published:
moved to ``warehouse/versions/<version>.duckdb``, then the link ``warehouse/warehouse.duckdb`` is replaced in one
rename. Readers resolve the link and open the versioned path, so a reader never waits and never sees half a build. One
writer at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Boolean, Connection, Date, Float, Integer, Numeric, Table, select
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeEngine

from blaid_pipelines.backtest.ledger import TRADE_SCHEMA
from blaid_pipelines.reasons import Reason, ReasonCode, RetryLater, StopAndFix
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import (
    AutonomyScore,
    BacktestSession,
    Base,
    Bot,
    BotStageEvent,
    Instrument,
    PromotionDecision,
    ProviderRequest,
    QualityVerdict,
    Snapshot,
)

LINK = "warehouse.duckdb"
EXPORTED: tuple[type[Base], ...] = (
    Instrument,
    Bot,
    BotStageEvent,
    Snapshot,
    QualityVerdict,
    BacktestSession,
    AutonomyScore,
    PromotionDecision,
    ProviderRequest,
)
BATCH_ROWS = 10_000


@dataclass(frozen=True)
class WarehouseBuild:
    """One build under way: its version, the folder of exported tables and the database file that dbt writes."""

    version: str
    folder: Path

    @property
    def tables(self) -> Path:
        """Folder of ``<table>.parquet`` files and ``trade_files.json``."""
        return self.folder / "tables"

    @property
    def database(self) -> Path:
        """The DuckDB file that this build writes; not visible to readers."""
        return self.folder / LINK


@contextmanager
def open_build(settings: Settings, now: datetime, run_id: str, *, wait_s: float = 120.0) -> Iterator[WarehouseBuild]:
    """A fresh build folder, held by one writer; removed at the end whatever happens, published or not.

    Raises :class:`RetryLater` (ALREADY_RUNNING) when another build holds the warehouse for longer than ``wait_s``.
    """
    root = settings.warehouse_dir
    root.mkdir(parents=True, exist_ok=True)
    with _writer_lock(root / ".writer.lock", wait_s):
        builds = root / "builds"
        shutil.rmtree(builds, ignore_errors=True)  # what a killed writer left: the lock says nobody is building
        build = WarehouseBuild(f"{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{run_id[:8]}", builds / run_id)
        build.tables.mkdir(parents=True)
        try:
            yield build
        finally:
            shutil.rmtree(builds, ignore_errors=True)


@contextmanager
def _writer_lock(path: Path, wait_s: float) -> Iterator[None]:
    deadline = time.monotonic() + wait_s
    with path.open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise RetryLater(
                        Reason(
                            ReasonCode.ALREADY_RUNNING,
                            f"another process has been building the warehouse for more than {wait_s:g} s",
                            "Wait for that run to end, or end it in the Dagster UI, then try again.",
                            {"lock": str(path), "waited_s": wait_s},
                        )
                    ) from None
                time.sleep(0.1)
        yield


def export_tables(store: Store, lake: Path, build: WarehouseBuild) -> dict[str, int]:
    """Write the exported tables to ``build.tables`` as one consistent picture; returns rows per table.

    All tables are read in one repeatable-read transaction. Beside them goes ``trade_files.json``: the trade files that
    completed sessions name. A file in the lake that no session names (of a run that died) is no evidence and stays out;
    a named one that is gone raises :class:`StopAndFix` (SESSION_INCOMPLETE).
    """
    counts: dict[str, int] = {}
    with store.engine.connect() as raw:
        connection = raw.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            for mapped in EXPORTED:
                table = mapped.__table__
                assert isinstance(table, Table)
                counts[table.name] = _export(connection, table, build.tables / f"{table.name}.parquet")
            named = connection.scalars(
                select(BacktestSession.trades_path)
                .where(BacktestSession.trades_path.is_not(None))
                .order_by(BacktestSession.created_at, BacktestSession.id)
            ).all()
    paths = [str(path) for path in named]
    missing = [path for path in paths if not (lake / path).is_file()]
    if missing:
        raise StopAndFix(
            Reason(
                ReasonCode.SESSION_INCOMPLETE,
                f"{len(missing)} trade files that sessions name are not in the lake",
                "Restore the lake folder, or check BLAID_LAKE; a warehouse without them would be wrong.",
                {"missing": missing[:20], "count": len(missing)},
            )
        )
    # An empty file goes first: it fixes the columns, and a lake without trades is still a list of files.
    empty = build.tables / "no_trades.parquet"
    pq.write_table(pa.schema([("session_id", pa.string()), *TRADE_SCHEMA]).empty_table(), empty)
    (build.tables / "trade_files.json").write_text(json.dumps([str(empty), *(str(lake / path) for path in paths)]))
    counts["trade_files"] = len(paths)
    return counts


def _export(connection: Connection, table: Table, target: Path) -> int:
    schema = pa.schema([(column.name, _arrow_type(column.type)) for column in table.columns])
    rows = 0
    result = connection.execution_options(yield_per=BATCH_ROWS).execute(
        select(table).order_by(*table.primary_key.columns)
    )
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in result.partitions():
            columns = {
                column.name: pa.array([_plain(row[position]) for row in batch], schema.field(column.name).type)
                for position, column in enumerate(table.columns)
            }
            writer.write_table(pa.table(columns, schema=schema))
            rows += len(batch)
    return rows


def _arrow_type(kind: TypeEngine[Any]) -> pa.DataType:
    if isinstance(kind, TIMESTAMP):
        return pa.timestamp("us", tz="UTC")
    if isinstance(kind, Float):  # before Numeric: SQLAlchemy's Float is one
        return pa.float64()
    if isinstance(kind, Numeric):
        return pa.decimal128(kind.precision or 38, kind.scale or 0)
    if isinstance(kind, Integer):
        return pa.int64()
    if isinstance(kind, Boolean):
        return pa.bool_()
    if isinstance(kind, Date):
        return pa.date32()
    return pa.string()  # text, UUID, JSONB


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    return value


def publish(settings: Settings, build: WarehouseBuild, *, keep: int = 3) -> Path:
    """Make the build's file the warehouse; returns its versioned path. Earlier ``keep - 1`` versions stay.

    A version that a reader still holds open stays readable to it after it was removed.
    """
    root = settings.warehouse_dir
    versions = root / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    target = versions / f"{build.version}.duckdb"
    with build.database.open("rb") as handle:
        os.fsync(handle.fileno())
    build.database.replace(target)
    link = root / f".{LINK}.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(target.relative_to(root))
    link.replace(root / LINK)
    for folder in (versions, root):
        _sync_folder(folder)
    for old in sorted(versions.glob("*.duckdb"))[:-keep]:
        if old != target:
            old.unlink(missing_ok=True)
    return target


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def current_warehouse(settings: Settings) -> Path:
    """The versioned path of the newest warehouse, to be opened read-only.

    Raises :class:`StopAndFix` (NOT_FOUND) when none has been built, or when the link leads nowhere.
    """
    link = settings.warehouse_dir / LINK
    try:
        return link.resolve(strict=True)
    except FileNotFoundError:
        raise StopAndFix(
            Reason(
                ReasonCode.NOT_FOUND,
                "no warehouse has been built yet",
                "Build it: `blaid sql --refresh`, or materialize the job `warehouse` in the Dagster UI.",
                {"path": str(link)},
            )
        ) from None


def built_at(warehouse: Path) -> datetime | None:
    """When the warehouse at this versioned path was built, from its name; None for a foreign name."""
    try:
        return datetime.strptime(warehouse.name.split("Z-")[0], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
    except ValueError:
        return None


def exported_names() -> Sequence[str]:
    """Names of the exported tables, for the check that dbt's sources name each of them."""
    return tuple(mapped.__tablename__ for mapped in EXPORTED)
