"""The analysts' warehouse as files: export of Postgres tables to Parquet, a build folder, and the atomic swap.

A build happens in a folder of its own under ``warehouse/builds``: tables as Parquet, then ``warehouse.duckdb``, which
dbt makes and tests (``assets.marts`` calls it; nothing here knows dbt or Dagster). Only a tested file is published:
moved to ``warehouse/versions/<version>.duckdb``, its page of docs beside it as ``<version>.html``, then the link
``warehouse/warehouse.duckdb`` is replaced in one rename. Readers resolve the link and open the versioned path, so a
reader never waits, never sees half a build, and finds the docs of the very file. One writer at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Boolean, Connection, Date, Float, Integer, Numeric, Table, func, select
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeEngine

from blaid_pipelines.backtest.ledger import EQUITY_SCHEMA, TRADE_SCHEMA
from blaid_pipelines.lab.coverage import head_coverage
from blaid_pipelines.reasons import Reason, ReasonCode, RetryLater, StopAndFix
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import (
    AutonomyScore,
    BacktestSession,
    Base,
    Bot,
    BotStageEvent,
    ContractDay,
    ContractDefinition,
    Instrument,
    InstrumentCost,
    InstrumentMargin,
    LakeRemoval,
    LakeSegment,
    PromotionDecision,
    ProviderRequest,
    QualityVerdict,
    Reconciliation,
    SeriesHead,
    Snapshot,
)

LINK = "warehouse.duckdb"
EXPORTED: tuple[type[Base], ...] = (
    Instrument,
    InstrumentCost,
    InstrumentMargin,
    ContractDefinition,
    ContractDay,
    Bot,
    BotStageEvent,
    LakeSegment,
    LakeRemoval,
    Snapshot,
    SeriesHead,
    QualityVerdict,
    Reconciliation,
    BacktestSession,
    AutonomyScore,
    PromotionDecision,
    ProviderRequest,
)
RESULTS = {"trades": TRADE_SCHEMA, "equity": EQUITY_SCHEMA}
"""Kinds of result files that completed sessions name, with the columns of each."""
COVERAGE = ("session_coverage", "snapshot_readings")
"""Tables that are measured from the bars, not exported from Postgres."""
BATCH_ROWS = 10_000


@dataclass(frozen=True)
class WarehouseBuild:
    """One build under way: its version, the folder of exported tables and the database file that dbt writes."""

    version: str
    folder: Path

    @property
    def tables(self) -> Path:
        """Folder of ``<table>.parquet`` files, ``trades_files.json`` and ``equity_files.json``."""
        return self.folder / "tables"

    @property
    def database(self) -> Path:
        """The DuckDB file that this build writes; not visible to readers."""
        return self.folder / LINK


@contextmanager
def open_build(settings: Settings, now: datetime, run_id: str, *, wait_s: float = 120.0) -> Iterator[WarehouseBuild]:
    """A fresh build folder, held by one writer; removed at the end whatever happens, published or not.

    Raises :class:`RetryLater` (ALREADY_RUNNING) when another build holds the warehouse for longer than ``wait_s``, and
    :class:`StopAndFix` (INSTALLATION_BROKEN) for what the body could not write.
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
        except OSError as error:
            raise StopAndFix(
                Reason(
                    ReasonCode.INSTALLATION_BROKEN,
                    f"the warehouse cannot be written: {error.strerror or error}",
                    "Check that the warehouse's folder is writable and has space; the earlier warehouse stays.",
                    {"path": str(root)},
                )
            ) from error
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


def export_tables(store: Store, lake: Path, build: WarehouseBuild, cache: Path | None = None) -> dict[str, int]:
    """Write the exported tables to ``build.tables`` as one consistent picture; returns rows per table.

    All tables are read in one repeatable-read transaction. Beside them go ``trades_files.json`` and
    ``equity_files.json``, the result files that completed sessions name, and the coverage of every series' head
    (``session_coverage``, ``snapshot_readings``; ``cache`` keeps it between builds). A result file that no session
    names (of a run that died) is no evidence and stays out; a named one that is gone raises :class:`StopAndFix`
    (SESSION_INCOMPLETE).
    """
    counts: dict[str, int] = {}
    # Coverage first: a series whose head moves meanwhile shows without its minutes, never with those of another head.
    coverage = head_coverage(store, lake, cache or build.folder / "coverage")
    for name, table in zip(COVERAGE, (coverage.sessions, coverage.readings), strict=True):
        pq.write_table(table, build.tables / f"{name}.parquet", compression="zstd")
        counts[name] = table.num_rows
    with store.engine.connect() as raw:
        connection = raw.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            for mapped in EXPORTED:
                exported = mapped.__table__
                assert isinstance(exported, Table)
                counts[exported.name] = _export(connection, exported, build.tables / f"{exported.name}.parquet")
            named = connection.execute(
                select(BacktestSession.trades_path, BacktestSession.equity_path)
                .where(BacktestSession.status == "COMPLETED")
                .order_by(BacktestSession.created_at, BacktestSession.id)
            ).all()
    _name_results(lake, build, {"trades": [row[0] for row in named], "equity": [row[1] for row in named]})
    counts["trade_files"] = len(named)
    return counts


def _name_results(lake: Path, build: WarehouseBuild, named: Mapping[str, Sequence[str | None]]) -> None:
    missing = [str(path) for paths in named.values() for path in paths if path is None or not (lake / path).is_file()]
    if missing:
        raise StopAndFix(
            Reason(
                ReasonCode.SESSION_INCOMPLETE,
                f"{len(missing)} result files that sessions name are not in the lake",
                "Restore the lake folder, or check BLAID_LAKE; a warehouse without them would be wrong.",
                {"missing": missing[:20], "count": len(missing)},
            )
        )
    for kind, schema in RESULTS.items():
        # An empty file goes first: it fixes the columns, and a lake without results is still a list of files.
        empty = f"no_{kind}.parquet"
        pq.write_table(pa.schema([("session_id", pa.string()), *schema]).empty_table(), build.tables / empty)
        files = [f"{build.tables.name}/{empty}", *(str(lake / str(path)) for path in named[kind])]
        (build.tables / f"{kind}_files.json").write_text(json.dumps(files))


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


def publish(settings: Settings, build: WarehouseBuild, docs: Path | None = None, *, keep: int = 3) -> Path:
    """Make the build's file the warehouse and ``docs`` its page; returns its versioned path.

    Both become visible in one rename. Earlier ``keep - 1`` versions stay; a version that a reader still holds open
    stays readable to it after it was removed.
    """
    root = settings.warehouse_dir
    versions = root / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    target = versions / f"{build.version}.duckdb"
    for made, place in ((build.database, target), *([] if docs is None else [(docs, docs_of(target))])):
        with made.open("rb") as handle:
            os.fsync(handle.fileno())
        made.replace(place)
    link = root / f".{LINK}.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(target.relative_to(root))
    link.replace(root / LINK)
    for folder in (versions, root):
        _sync_folder(folder)
    for old in sorted(versions.glob("*.duckdb"))[:-keep]:
        if old != target:
            old.unlink(missing_ok=True)
            docs_of(old).unlink(missing_ok=True)
    return target


def docs_of(warehouse: Path) -> Path:
    """Where the page of docs of a versioned warehouse lies; a warehouse of an earlier Blaid has none."""
    return warehouse.with_suffix(".html")


def dbt_cache(settings: Settings) -> Path:
    """Folder in which dbt's parsed project stays between builds."""
    return settings.warehouse_dir / "cache" / "dbt"


def coverage_cache(settings: Settings) -> Path:
    """Folder in which coverage of snapshots stays between builds."""
    return settings.warehouse_dir / "cache" / "coverage"


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


def newer_rows(store: Store, warehouse: Path) -> dict[str, int] | None:
    """Rows of Postgres that this warehouse does not hold, by kind; None for a file that is no warehouse of ours.

    The tables compared are insert-only, so a count is enough. Below zero: the database is not the one it was made from.
    """
    import duckdb

    kinds = {
        "sessions": BacktestSession,
        "decisions": PromotionDecision,
        "changes of series": SeriesHead,
        "verdicts": QualityVerdict,
    }
    try:
        with duckdb.connect(str(warehouse), read_only=True) as connection:
            held = {
                kind: connection.execute(f"select count(*) from staging.stg_{mapped.__tablename__}").fetchall()[0][0]
                for kind, mapped in kinds.items()
            }
    except duckdb.CatalogException:
        return None
    with store.session() as session:
        there = {kind: session.scalar(select(func.count()).select_from(mapped)) or 0 for kind, mapped in kinds.items()}
    return {kind: there[kind] - held[kind] for kind in kinds}


def exported_names() -> Sequence[str]:
    """Names of the exported tables, for the check that dbt's sources name each of them."""
    return (*(mapped.__tablename__ for mapped in EXPORTED), *COVERAGE)
