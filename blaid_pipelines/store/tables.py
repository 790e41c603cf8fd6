"""The tables of schema ``blaid``, as SQLAlchemy mappings. ``migrations`` holds their history; a test compares both.

Money is integer cents, time is timezone-aware UTC, ids are UUIDv7, free-form evidence is JSONB. Dagster's own tables
live in schema ``dagster`` of the same database and are not mapped here.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    MetaData,
    Numeric,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from blaid_pipelines.ids import new_id

SCHEMA = "blaid"
Json = dict[str, Any]
OPEN_JOB_OF_BOT = "status IN ('QUEUED','RUNNING') AND bot_id IS NOT NULL"

_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Base of all tables; one schema, predictable constraint names."""

    metadata = MetaData(schema=SCHEMA, naming_convention=_NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own protocol
        datetime: TIMESTAMP(timezone=True),
        Json: JSONB(none_as_null=True),  # None is SQL NULL: the constraints count on it
        list[Any]: JSONB(none_as_null=True),
        str: Text,
        int: BigInteger,
    }


class EnvironmentStamp(Base):
    """One row: the world this database belongs to, written at its creation and checked at every start."""

    __tablename__ = "environment_stamp"
    __table_args__ = (
        CheckConstraint("id = 1", name="single_row"),
        CheckConstraint("env IN ('sandbox','dev','production')", name="env"),
    )
    id: Mapped[int] = mapped_column(primary_key=True, default=1, autoincrement=False)
    env: Mapped[str]
    installation_id: Mapped[UUID] = mapped_column(default=new_id)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Instrument(Base):
    """One row per product root (``MES``): the contract's facts. Costs and margins are dated rows beside it."""

    __tablename__ = "instruments"
    symbol: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    exchange: Mapped[str]
    mic: Mapped[str]
    tick_size: Mapped[Decimal] = mapped_column(Numeric(18, 9))
    point_value: Mapped[Decimal] = mapped_column(Numeric(18, 6))
    currency: Mapped[str]
    min_qty: Mapped[int]
    max_qty: Mapped[int]
    session: Mapped[str]  # name of the exchange calendar
    contract_months: Mapped[str]
    price_low: Mapped[Decimal] = mapped_column(Numeric(18, 9))  # plausible range, for the scale gate
    price_high: Mapped[Decimal] = mapped_column(Numeric(18, 9))
    may_be_negative: Mapped[bool]
    is_active: Mapped[bool] = mapped_column(default=True)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class InstrumentCost(Base):
    """One row per instrument and date: commission and fees in dollars per contract and side, slippage in ticks."""

    __tablename__ = "instrument_costs"
    __table_args__ = (UniqueConstraint("symbol", "effective_from"),)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    symbol: Mapped[str] = mapped_column(ForeignKey(f"{SCHEMA}.instruments.symbol"))
    effective_from: Mapped[date]
    commission_per_side: Mapped[Decimal] = mapped_column(Numeric(12, 6))
    fees_per_side: Mapped[Decimal] = mapped_column(Numeric(12, 6))
    slippage_ticks: Mapped[int]
    source: Mapped[str]


class InstrumentMargin(Base):
    """One row per instrument and effective date: exchange margins in dollars per contract."""

    __tablename__ = "instrument_margins"
    __table_args__ = (UniqueConstraint("symbol", "effective_from"),)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    symbol: Mapped[str] = mapped_column(ForeignKey(f"{SCHEMA}.instruments.symbol"))
    effective_from: Mapped[date]
    initial: Mapped[Decimal] = mapped_column(Numeric(14, 2))
    maintenance: Mapped[Decimal] = mapped_column(Numeric(14, 2))
    source: Mapped[str]


class ProviderRequest(Base):
    """One row per attempt at an external call. ``success`` is NULL while the outcome is unknown."""

    __tablename__ = "provider_requests"
    __table_args__ = (
        Index(None, "trace_id"),
        Index(None, "provider", "created_at"),
        Index(None, "bot_id", "created_at"),
        CheckConstraint("(success IS NULL) = (completed_at IS NULL)", name="outcome_complete"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    trace_id: Mapped[str]
    bot_id: Mapped[UUID | None]
    stage: Mapped[str | None]
    category: Mapped[str]  # market_data, broker, macro, options_flow, news, calendar, ai, alerts
    provider: Mapped[str]
    endpoint: Mapped[str]
    attempt: Mapped[int] = mapped_column(default=1)
    request_fingerprint: Mapped[str]
    params: Mapped[Json]  # redacted
    simulated: Mapped[bool]
    symbol: Mapped[str | None]
    schema: Mapped[str | None]
    start_ts: Mapped[datetime | None]
    end_ts: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    success: Mapped[bool | None]
    latency_ms: Mapped[int | None]
    http_status: Mapped[int | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    provider_request_id: Mapped[str | None]
    bar_count: Mapped[int | None]
    cost_usd: Mapped[Decimal | None] = mapped_column(Numeric(14, 6))
    response_bytes: Mapped[int | None]
    response_sha256: Mapped[str | None]


class LakeSegment(Base):
    """One row per immutable bar file of one pulled or ingested range: what of a series the lake already holds.

    ``source_key`` names where it came from (``databento:<base url>`` or ``file``), so that coverage from one source
    never stands in for another.
    """

    __tablename__ = "lake_segments"
    __table_args__ = (
        Index(None, "dataset", "schema", "symbol", "source_key", "range_start"),
        CheckConstraint("range_start < range_end", name="range"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    dataset: Mapped[str]
    schema: Mapped[str]
    symbol: Mapped[str]
    source_key: Mapped[str]
    range_start: Mapped[datetime]
    range_end: Mapped[datetime]
    path: Mapped[str]  # relative to the lake
    file_sha256: Mapped[str]
    bar_count: Mapped[int]
    provenance: Mapped[Json]
    simulated: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Snapshot(Base):
    """One row per snapshot, an immutable list of bar files: ``content_hash`` covers the bars, the id provenance too."""

    __tablename__ = "snapshots"
    __table_args__ = (Index(None, "symbol", "schema", "created_at"), Index(None, "content_hash"))
    snapshot_id: Mapped[str] = mapped_column(primary_key=True)
    content_hash: Mapped[str]
    dataset: Mapped[str]
    schema: Mapped[str]
    symbol: Mapped[str]
    instrument: Mapped[str] = mapped_column(ForeignKey(f"{SCHEMA}.instruments.symbol"))
    range_start: Mapped[datetime]
    range_end: Mapped[datetime]
    bar_count: Mapped[int]
    first_ts: Mapped[datetime | None]
    last_ts: Mapped[datetime | None]
    files: Mapped[list[Any]]  # relative path and sha256 of each file, in order
    contracts: Mapped[list[Any]]
    provenance: Mapped[Json]
    simulated: Mapped[bool]
    trace_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class SeriesHead(Base):
    """One row per change of what bots on one series read: from ``created_at`` on it is this snapshot.

    The newest row of a (symbol, schema) counts; ``source_key`` is that of the segments the snapshot was made from.
    """

    __tablename__ = "series_heads"
    __table_args__ = (Index(None, "symbol", "schema", "created_at"),)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    symbol: Mapped[str]
    schema: Mapped[str]
    dataset: Mapped[str]
    source_key: Mapped[str]
    snapshot_id: Mapped[str] = mapped_column(ForeignKey(f"{SCHEMA}.snapshots.snapshot_id"))
    trace_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class QualityVerdict(Base):
    """One row per evaluation of the quality gate on one snapshot; the newest counts, a missing one refuses."""

    __tablename__ = "quality_verdicts"
    __table_args__ = (
        Index(None, "snapshot_id", "created_at"),
        CheckConstraint("status IN ('PASS','FAIL')", name="status"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    snapshot_id: Mapped[str] = mapped_column(ForeignKey(f"{SCHEMA}.snapshots.snapshot_id"))
    content_hash: Mapped[str]
    status: Mapped[str]
    policy_hash: Mapped[str]
    suite_version: Mapped[str]
    checks: Mapped[list[Any]]
    reasons: Mapped[list[Any]]
    trace_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class ContractDefinition(Base):
    """One row per definition of one contract as a provider or a file gave it; the newest of a contract counts.

    ``raw_symbol`` alone does not name a contract, because one-digit years come round again: ``expiration`` does.
    """

    __tablename__ = "contract_definitions"
    __table_args__ = (
        Index(None, "instrument", "expiration"),
        UniqueConstraint("raw_symbol", "expiration", "source_key", "fingerprint"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    raw_symbol: Mapped[str]
    instrument: Mapped[str] = mapped_column(ForeignKey(f"{SCHEMA}.instruments.symbol"))
    instrument_id: Mapped[int | None]
    activation: Mapped[datetime | None]
    expiration: Mapped[datetime]
    tick_size: Mapped[Decimal | None] = mapped_column(Numeric(18, 9))
    currency: Mapped[str | None]
    mic: Mapped[str | None]
    definition: Mapped[Json]  # every field that was read
    fingerprint: Mapped[str]  # hash of ``definition``
    source_key: Mapped[str]
    provenance: Mapped[Json]
    simulated: Mapped[bool]
    trace_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class ContractDay(Base):
    """One row per statement about one contract and session: its volume, its open interest, or both.

    The newest of a (contract, session, source) counts. What roll calendars by open interest are made from.
    """

    __tablename__ = "contract_days"
    __table_args__ = (
        Index(None, "instrument", "session_date"),
        CheckConstraint("volume IS NOT NULL OR open_interest IS NOT NULL", name="says_something"),
        CheckConstraint("volume >= 0 AND open_interest >= 0", name="counts"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    instrument: Mapped[str] = mapped_column(ForeignKey(f"{SCHEMA}.instruments.symbol"))
    raw_symbol: Mapped[str]
    session_date: Mapped[date]
    volume: Mapped[int | None]
    open_interest: Mapped[int | None]
    source_key: Mapped[str]
    provenance: Mapped[Json]
    simulated: Mapped[bool]
    trace_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Reconciliation(Base):
    """One row per comparison of a snapshot with another account of its bars; a FAIL counts until a PASS lifts it."""

    __tablename__ = "reconciliations"
    __table_args__ = (
        Index(None, "snapshot_id", "kind", "created_at"),
        CheckConstraint("kind IN ('daily','overlap','backup')", name="kind"),
        CheckConstraint("status IN ('PASS','FAIL','UNKNOWN')", name="status"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    snapshot_id: Mapped[str] = mapped_column(ForeignKey(f"{SCHEMA}.snapshots.snapshot_id"))
    content_hash: Mapped[str]
    kind: Mapped[str]
    other: Mapped[Json]  # what it was compared with: source, snapshot or files, their hashes
    status: Mapped[str]
    policy_hash: Mapped[str]
    numbers: Mapped[Json]
    reasons: Mapped[list[Any]]
    request_ids: Mapped[list[Any]]
    simulated: Mapped[bool]
    trace_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class LakeRemoval(Base):
    """One row per bar file that a clean-up took out of the lake, written before the file goes."""

    __tablename__ = "lake_removals"
    __table_args__ = (Index(None, "path"),)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    path: Mapped[str]
    file_sha256: Mapped[str | None]
    file_bytes: Mapped[int]
    why: Mapped[str]
    trace_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Bot(Base):
    """One row per bot: its strategy, its instrument, its capital and the stage it is in."""

    __tablename__ = "bots"
    __table_args__ = (
        CheckConstraint("capital_cents > 0", name="capital"),
        CheckConstraint("contracts > 0", name="contracts"),
        CheckConstraint("stage IN ('LAB','PAPER','SHADOW','CANARY','LIVE')", name="stage"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    instrument: Mapped[str] = mapped_column(ForeignKey(f"{SCHEMA}.instruments.symbol"))
    symbol: Mapped[str | None]  # the series it reads; None: the instrument's only series
    schema: Mapped[str]
    strategy_family: Mapped[str]
    params: Mapped[Json]
    params_hash: Mapped[str]
    capital_cents: Mapped[int]
    contracts: Mapped[int]
    stage: Mapped[str] = mapped_column(default="LAB")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    reset_at: Mapped[datetime] = mapped_column(server_default=func.now())


class BotStageEvent(Base):
    """One row per move of a bot between stages, written in the move's own transaction."""

    __tablename__ = "bot_stage_events"
    __table_args__ = (
        Index(None, "bot_id", "created_at"),
        UniqueConstraint("decision_id"),  # a decision carries one move; moves down cite none
    )
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    bot_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SCHEMA}.bots.id"))
    from_stage: Mapped[str]
    to_stage: Mapped[str]
    decision_id: Mapped[UUID | None] = mapped_column(ForeignKey(f"{SCHEMA}.promotion_decisions.id"))
    actor: Mapped[str]
    trace_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class BotJob(Base):
    """One row per job. Status moves only through ``jobs.machine``; the database refuses any other move.

    A bot has at most one open job. ``claim_key`` is the key of the session-level advisory lock that the process doing
    the job holds: an open job whose lock can be had has no process any more.
    """

    __tablename__ = "bot_jobs"
    __table_args__ = (
        Index(None, "bot_id", "created_at"),
        Index(None, "trace_id"),
        Index("uq_bot_jobs_open", "bot_id", unique=True, postgresql_where=text(OPEN_JOB_OF_BOT)),
        CheckConstraint("status IN ('QUEUED','RUNNING','COMPLETED','FAILED','REFUSED','TIMEOUT')", name="status"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    bot_id: Mapped[UUID | None] = mapped_column(ForeignKey(f"{SCHEMA}.bots.id"))
    job_type: Mapped[str]
    status: Mapped[str]
    trace_id: Mapped[str]
    dagster_run_id: Mapped[str | None]
    claim_key: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    started_at: Mapped[datetime | None]
    last_heartbeat_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    reason: Mapped[Json | None]


class JobRunEvent(Base):
    """One row per move of a job, written in the move's own transaction."""

    __tablename__ = "job_run_events"
    __table_args__ = (Index(None, "job_id", "created_at"),)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    job_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SCHEMA}.bot_jobs.id"))
    from_status: Mapped[str | None]
    to_status: Mapped[str]
    reason: Mapped[Json | None]
    trace_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class BacktestSession(Base):
    """One row per backtest of one bot: inputs by hash, terminal status, metrics or a reason."""

    __tablename__ = "backtest_sessions"
    __table_args__ = (
        Index(None, "bot_id", "created_at"),
        CheckConstraint("status IN ('COMPLETED','FAILED','REFUSED')", name="status"),
        CheckConstraint("(status = 'COMPLETED') = (metrics IS NOT NULL)", name="metrics_or_reason"),
        CheckConstraint("(status = 'COMPLETED') = (reason IS NULL)", name="reason_or_metrics"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    bot_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SCHEMA}.bots.id"))
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey(f"{SCHEMA}.bot_jobs.id"))
    trace_id: Mapped[str]
    status: Mapped[str]
    reason: Mapped[Json | None]
    instrument: Mapped[str]
    symbol: Mapped[str | None]
    snapshot_id: Mapped[str | None] = mapped_column(ForeignKey(f"{SCHEMA}.snapshots.snapshot_id"))
    content_hash: Mapped[str | None]
    verdict_id: Mapped[UUID | None] = mapped_column(ForeignKey(f"{SCHEMA}.quality_verdicts.id"))
    request_ids: Mapped[list[Any]]
    strategy_family: Mapped[str]
    strategy_hash: Mapped[str]
    params: Mapped[Json]
    params_hash: Mapped[str]
    engine_version: Mapped[str]
    policy_hash: Mapped[str]
    spec: Mapped[Json]  # everything else the kernel read: costs, margins, capital, rules
    capital_cents: Mapped[int]
    trades: Mapped[int | None]
    net_pnl_cents: Mapped[int | None]
    max_drawdown_pct: Mapped[float | None]
    metrics: Mapped[Json | None]
    result_hash: Mapped[str | None]
    trades_path: Mapped[str | None]  # relative to the lake
    equity_path: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class BacktestDiagnostics(Base):
    """One row per completed session: the trade-level breakdown."""

    __tablename__ = "backtest_diagnostics"
    session_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SCHEMA}.backtest_sessions.id"), primary_key=True)
    payload: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class AutonomyScore(Base):
    """One row per scoring of one bot: total, tier, each sub-score with its evidence, what blocks autonomy."""

    __tablename__ = "autonomy_scores"
    __table_args__ = (Index(None, "bot_id", "created_at"),)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    bot_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SCHEMA}.bots.id"))
    session_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SCHEMA}.backtest_sessions.id"))
    trace_id: Mapped[str]
    score: Mapped[float]
    tier: Mapped[str]
    subscores: Mapped[list[Any]]
    blockers: Mapped[list[Any]]
    policy_hash: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class PromotionDecision(Base):
    """One row per decision: every gate's input, threshold and result, and the ids of all evidence read."""

    __tablename__ = "promotion_decisions"
    __table_args__ = (
        Index(None, "bot_id", "created_at"),
        CheckConstraint("decision IN ('PROMOTE','REFUSE')", name="decision"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    bot_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SCHEMA}.bots.id"))
    session_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SCHEMA}.backtest_sessions.id"))
    score_id: Mapped[UUID | None] = mapped_column(ForeignKey(f"{SCHEMA}.autonomy_scores.id"))
    trace_id: Mapped[str]
    from_stage: Mapped[str]
    to_stage: Mapped[str]
    decision: Mapped[str]
    gate_set: Mapped[str]
    gates: Mapped[list[Any]]
    failing_gates: Mapped[list[Any]]
    snapshot_id: Mapped[str | None]
    strategy_hash: Mapped[str]
    policy_hash: Mapped[str]
    request_ids: Mapped[list[Any]]
    decision_hash: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
