"""The first schema: tables, the moves that the database allows, the view of market-data requests.

Why: everything else stands on it.
Data safety: upgrade makes new tables only. Downgrade drops every table of schema blaid with its rows: back up first.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Rows that are evidence: written once, never changed, never removed.
INSERT_ONLY = (
    "environment_stamp",
    "lake_segments",
    "snapshots",
    "series_heads",
    "quality_verdicts",
    "backtest_sessions",
    "backtest_diagnostics",
    "autonomy_scores",
    "promotion_decisions",
    "bot_stage_events",
    "job_run_events",
)
NO_DELETE = ("provider_requests", "bots", "bot_jobs")


def upgrade() -> None:
    _create_tables()
    op.execute(Path(__file__).with_suffix(".sql").read_text())
    for table in INSERT_ONLY:
        op.execute(
            f"CREATE TRIGGER write_once BEFORE UPDATE OR DELETE ON blaid.{table} "
            "FOR EACH ROW EXECUTE FUNCTION blaid.refuse_change()"
        )
    for table in NO_DELETE:
        op.execute(
            f"CREATE TRIGGER no_delete BEFORE DELETE ON blaid.{table} "
            "FOR EACH ROW EXECUTE FUNCTION blaid.refuse_change()"
        )
    for table in (*INSERT_ONLY, *NO_DELETE):
        op.execute(
            f"CREATE TRIGGER no_truncate BEFORE TRUNCATE ON blaid.{table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION blaid.refuse_change()"
        )


def downgrade() -> None:
    op.execute("DROP VIEW blaid.market_data_requests")
    for table in TABLES_IN_ORDER_OF_REMOVAL:
        op.drop_table(table, schema="blaid")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION blaid.{function}")


FUNCTIONS = (
    "refuse_change",
    "check_job_move",
    "check_stage_move",
    "check_request_outcome",
    "require_stage_event",
    "require_stage_move",
    "require_job_event",
    "require_job_move",
    "written_here",
)
TABLES_IN_ORDER_OF_REMOVAL = (
    "bot_stage_events",
    "promotion_decisions",
    "backtest_diagnostics",
    "autonomy_scores",
    "job_run_events",
    "backtest_sessions",
    "quality_verdicts",
    "bot_jobs",
    "series_heads",
    "snapshots",
    "instrument_margins",
    "instrument_costs",
    "bots",
    "provider_requests",
    "lake_segments",
    "instruments",
    "environment_stamp",
)


def _create_tables() -> None:
    op.create_table(
        "environment_stamp",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("env", sa.Text(), nullable=False),
        sa.Column("installation_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("env IN ('sandbox','dev','production')", name=op.f("ck_environment_stamp_env")),
        sa.CheckConstraint("id = 1", name=op.f("ck_environment_stamp_single_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_environment_stamp")),
        schema="blaid",
    )
    op.create_table(
        "instruments",
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("exchange", sa.Text(), nullable=False),
        sa.Column("mic", sa.Text(), nullable=False),
        sa.Column("tick_size", sa.Numeric(precision=18, scale=9), nullable=False),
        sa.Column("point_value", sa.Numeric(precision=18, scale=6), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("min_qty", sa.BigInteger(), nullable=False),
        sa.Column("max_qty", sa.BigInteger(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("contract_months", sa.Text(), nullable=False),
        sa.Column("price_low", sa.Numeric(precision=18, scale=9), nullable=False),
        sa.Column("price_high", sa.Numeric(precision=18, scale=9), nullable=False),
        sa.Column("may_be_negative", sa.Boolean(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("symbol", name=op.f("pk_instruments")),
        schema="blaid",
    )
    op.create_table(
        "lake_segments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("source_key", sa.Text(), nullable=False),
        sa.Column("range_start", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("range_end", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("file_sha256", sa.Text(), nullable=False),
        sa.Column("bar_count", sa.BigInteger(), nullable=False),
        sa.Column("provenance", postgresql.JSONB(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("range_start < range_end", name=op.f("ck_lake_segments_range")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lake_segments")),
        schema="blaid",
    )
    op.create_index(
        op.f("ix_lake_segments_dataset_schema_symbol_source_key_range_start"),
        "lake_segments",
        ["dataset", "schema", "symbol", "source_key", "range_start"],
        unique=False,
        schema="blaid",
    )
    op.create_table(
        "provider_requests",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("bot_id", sa.Uuid(), nullable=True),
        sa.Column("stage", sa.Text(), nullable=True),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("request_fingerprint", sa.Text(), nullable=False),
        sa.Column("params", postgresql.JSONB(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=True),
        sa.Column("schema", sa.Text(), nullable=True),
        sa.Column("start_ts", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("end_ts", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("completed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("success", sa.Boolean(), nullable=True),
        sa.Column("latency_ms", sa.BigInteger(), nullable=True),
        sa.Column("http_status", sa.BigInteger(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("provider_request_id", sa.Text(), nullable=True),
        sa.Column("bar_count", sa.BigInteger(), nullable=True),
        sa.Column("cost_usd", sa.Numeric(precision=14, scale=6), nullable=True),
        sa.Column("response_bytes", sa.BigInteger(), nullable=True),
        sa.Column("response_sha256", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(success IS NULL) = (completed_at IS NULL)", name=op.f("ck_provider_requests_outcome_complete")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_requests")),
        schema="blaid",
    )
    op.create_index(
        op.f("ix_provider_requests_bot_id_created_at"),
        "provider_requests",
        ["bot_id", "created_at"],
        unique=False,
        schema="blaid",
    )
    op.create_index(
        op.f("ix_provider_requests_provider_created_at"),
        "provider_requests",
        ["provider", "created_at"],
        unique=False,
        schema="blaid",
    )
    op.create_index(
        op.f("ix_provider_requests_trace_id"), "provider_requests", ["trace_id"], unique=False, schema="blaid"
    )
    op.create_table(
        "bots",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("instrument", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=True),
        sa.Column("schema", sa.Text(), nullable=False),
        sa.Column("strategy_family", sa.Text(), nullable=False),
        sa.Column("params", postgresql.JSONB(), nullable=False),
        sa.Column("params_hash", sa.Text(), nullable=False),
        sa.Column("capital_cents", sa.BigInteger(), nullable=False),
        sa.Column("contracts", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("reset_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("stage IN ('LAB','PAPER','SHADOW','CANARY','LIVE')", name=op.f("ck_bots_stage")),
        sa.CheckConstraint("capital_cents > 0", name=op.f("ck_bots_capital")),
        sa.CheckConstraint("contracts > 0", name=op.f("ck_bots_contracts")),
        sa.ForeignKeyConstraint(["instrument"], ["blaid.instruments.symbol"], name=op.f("fk_bots_instrument")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bots")),
        sa.UniqueConstraint("name", name=op.f("uq_bots_name")),
        schema="blaid",
    )
    op.create_table(
        "instrument_costs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("effective_from", sa.Date(), nullable=False),
        sa.Column("commission_per_side", sa.Numeric(precision=12, scale=6), nullable=False),
        sa.Column("fees_per_side", sa.Numeric(precision=12, scale=6), nullable=False),
        sa.Column("slippage_ticks", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["symbol"], ["blaid.instruments.symbol"], name=op.f("fk_instrument_costs_symbol")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instrument_costs")),
        sa.UniqueConstraint("symbol", "effective_from", name=op.f("uq_instrument_costs_symbol_effective_from")),
        schema="blaid",
    )
    op.create_table(
        "instrument_margins",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("effective_from", sa.Date(), nullable=False),
        sa.Column("initial", sa.Numeric(precision=14, scale=2), nullable=False),
        sa.Column("maintenance", sa.Numeric(precision=14, scale=2), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["symbol"], ["blaid.instruments.symbol"], name=op.f("fk_instrument_margins_symbol")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instrument_margins")),
        sa.UniqueConstraint("symbol", "effective_from", name=op.f("uq_instrument_margins_symbol_effective_from")),
        schema="blaid",
    )
    op.create_table(
        "snapshots",
        sa.Column("snapshot_id", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("instrument", sa.Text(), nullable=False),
        sa.Column("range_start", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("range_end", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("bar_count", sa.BigInteger(), nullable=False),
        sa.Column("first_ts", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("last_ts", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("files", postgresql.JSONB(), nullable=False),
        sa.Column("contracts", postgresql.JSONB(), nullable=False),
        sa.Column("provenance", postgresql.JSONB(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["instrument"], ["blaid.instruments.symbol"], name=op.f("fk_snapshots_instrument")),
        sa.PrimaryKeyConstraint("snapshot_id", name=op.f("pk_snapshots")),
        schema="blaid",
    )
    op.create_index(op.f("ix_snapshots_content_hash"), "snapshots", ["content_hash"], unique=False, schema="blaid")
    op.create_index(
        op.f("ix_snapshots_symbol_schema_created_at"),
        "snapshots",
        ["symbol", "schema", "created_at"],
        unique=False,
        schema="blaid",
    )
    op.create_table(
        "series_heads",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("source_key", sa.Text(), nullable=False),
        sa.Column("snapshot_id", sa.Text(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["blaid.snapshots.snapshot_id"], name=op.f("fk_series_heads_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series_heads")),
        schema="blaid",
    )
    op.create_index(
        op.f("ix_series_heads_symbol_schema_created_at"),
        "series_heads",
        ["symbol", "schema", "created_at"],
        unique=False,
        schema="blaid",
    )
    op.create_table(
        "bot_jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("bot_id", sa.Uuid(), nullable=True),
        sa.Column("job_type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("dagster_run_id", sa.Text(), nullable=True),
        sa.Column("claim_key", sa.BigInteger(), nullable=True),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("started_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("last_heartbeat_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("completed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("reason", postgresql.JSONB(), nullable=True),
        sa.CheckConstraint(
            "status IN ('QUEUED','RUNNING','COMPLETED','FAILED','REFUSED','TIMEOUT')", name=op.f("ck_bot_jobs_status")
        ),
        sa.ForeignKeyConstraint(["bot_id"], ["blaid.bots.id"], name=op.f("fk_bot_jobs_bot_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bot_jobs")),
        schema="blaid",
    )
    op.create_index(
        op.f("ix_bot_jobs_bot_id_created_at"), "bot_jobs", ["bot_id", "created_at"], unique=False, schema="blaid"
    )
    op.create_index(op.f("ix_bot_jobs_trace_id"), "bot_jobs", ["trace_id"], unique=False, schema="blaid")
    op.create_index(
        "uq_bot_jobs_open",
        "bot_jobs",
        ["bot_id"],
        unique=True,
        schema="blaid",
        postgresql_where=sa.text("status IN ('QUEUED','RUNNING') AND bot_id IS NOT NULL"),
    )
    op.create_table(
        "quality_verdicts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("snapshot_id", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("policy_hash", sa.Text(), nullable=False),
        sa.Column("suite_version", sa.Text(), nullable=False),
        sa.Column("checks", postgresql.JSONB(), nullable=False),
        sa.Column("reasons", postgresql.JSONB(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("status IN ('PASS','FAIL')", name=op.f("ck_quality_verdicts_status")),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["blaid.snapshots.snapshot_id"], name=op.f("fk_quality_verdicts_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quality_verdicts")),
        schema="blaid",
    )
    op.create_index(
        op.f("ix_quality_verdicts_snapshot_id_created_at"),
        "quality_verdicts",
        ["snapshot_id", "created_at"],
        unique=False,
        schema="blaid",
    )
    op.create_table(
        "backtest_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("bot_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", postgresql.JSONB(), nullable=True),
        sa.Column("instrument", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=True),
        sa.Column("snapshot_id", sa.Text(), nullable=True),
        sa.Column("content_hash", sa.Text(), nullable=True),
        sa.Column("verdict_id", sa.Uuid(), nullable=True),
        sa.Column("request_ids", postgresql.JSONB(), nullable=False),
        sa.Column("strategy_family", sa.Text(), nullable=False),
        sa.Column("strategy_hash", sa.Text(), nullable=False),
        sa.Column("params", postgresql.JSONB(), nullable=False),
        sa.Column("params_hash", sa.Text(), nullable=False),
        sa.Column("engine_version", sa.Text(), nullable=False),
        sa.Column("policy_hash", sa.Text(), nullable=False),
        sa.Column("spec", postgresql.JSONB(), nullable=False),
        sa.Column("capital_cents", sa.BigInteger(), nullable=False),
        sa.Column("trades", sa.BigInteger(), nullable=True),
        sa.Column("net_pnl_cents", sa.BigInteger(), nullable=True),
        sa.Column("max_drawdown_pct", sa.Double(), nullable=True),
        sa.Column("metrics", postgresql.JSONB(), nullable=True),
        sa.Column("result_hash", sa.Text(), nullable=True),
        sa.Column("trades_path", sa.Text(), nullable=True),
        sa.Column("equity_path", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(status = 'COMPLETED') = (metrics IS NOT NULL)", name=op.f("ck_backtest_sessions_metrics_or_reason")
        ),
        sa.CheckConstraint(
            "(status = 'COMPLETED') = (reason IS NULL)", name=op.f("ck_backtest_sessions_reason_or_metrics")
        ),
        sa.CheckConstraint("status IN ('COMPLETED','FAILED','REFUSED')", name=op.f("ck_backtest_sessions_status")),
        sa.ForeignKeyConstraint(["bot_id"], ["blaid.bots.id"], name=op.f("fk_backtest_sessions_bot_id")),
        sa.ForeignKeyConstraint(["job_id"], ["blaid.bot_jobs.id"], name=op.f("fk_backtest_sessions_job_id")),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["blaid.snapshots.snapshot_id"], name=op.f("fk_backtest_sessions_snapshot_id")
        ),
        sa.ForeignKeyConstraint(
            ["verdict_id"], ["blaid.quality_verdicts.id"], name=op.f("fk_backtest_sessions_verdict_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backtest_sessions")),
        schema="blaid",
    )
    op.create_index(
        op.f("ix_backtest_sessions_bot_id_created_at"),
        "backtest_sessions",
        ["bot_id", "created_at"],
        unique=False,
        schema="blaid",
    )
    op.create_table(
        "job_run_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=True),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("reason", postgresql.JSONB(), nullable=True),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["job_id"], ["blaid.bot_jobs.id"], name=op.f("fk_job_run_events_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_run_events")),
        schema="blaid",
    )
    op.create_index(
        op.f("ix_job_run_events_job_id_created_at"),
        "job_run_events",
        ["job_id", "created_at"],
        unique=False,
        schema="blaid",
    )
    op.create_table(
        "autonomy_scores",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("bot_id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("subscores", postgresql.JSONB(), nullable=False),
        sa.Column("blockers", postgresql.JSONB(), nullable=False),
        sa.Column("policy_hash", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["bot_id"], ["blaid.bots.id"], name=op.f("fk_autonomy_scores_bot_id")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["blaid.backtest_sessions.id"], name=op.f("fk_autonomy_scores_session_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_autonomy_scores")),
        schema="blaid",
    )
    op.create_index(
        op.f("ix_autonomy_scores_bot_id_created_at"),
        "autonomy_scores",
        ["bot_id", "created_at"],
        unique=False,
        schema="blaid",
    )
    op.create_table(
        "backtest_diagnostics",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["blaid.backtest_sessions.id"], name=op.f("fk_backtest_diagnostics_session_id")
        ),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_backtest_diagnostics")),
        schema="blaid",
    )
    op.create_table(
        "promotion_decisions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("bot_id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("score_id", sa.Uuid(), nullable=True),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("from_stage", sa.Text(), nullable=False),
        sa.Column("to_stage", sa.Text(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("gate_set", sa.Text(), nullable=False),
        sa.Column("gates", postgresql.JSONB(), nullable=False),
        sa.Column("failing_gates", postgresql.JSONB(), nullable=False),
        sa.Column("snapshot_id", sa.Text(), nullable=True),
        sa.Column("strategy_hash", sa.Text(), nullable=False),
        sa.Column("policy_hash", sa.Text(), nullable=False),
        sa.Column("request_ids", postgresql.JSONB(), nullable=False),
        sa.Column("decision_hash", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("decision IN ('PROMOTE','REFUSE')", name=op.f("ck_promotion_decisions_decision")),
        sa.ForeignKeyConstraint(["bot_id"], ["blaid.bots.id"], name=op.f("fk_promotion_decisions_bot_id")),
        sa.ForeignKeyConstraint(
            ["score_id"], ["blaid.autonomy_scores.id"], name=op.f("fk_promotion_decisions_score_id")
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["blaid.backtest_sessions.id"], name=op.f("fk_promotion_decisions_session_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotion_decisions")),
        schema="blaid",
    )
    op.create_index(
        op.f("ix_promotion_decisions_bot_id_created_at"),
        "promotion_decisions",
        ["bot_id", "created_at"],
        unique=False,
        schema="blaid",
    )
    op.create_table(
        "bot_stage_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("bot_id", sa.Uuid(), nullable=False),
        sa.Column("from_stage", sa.Text(), nullable=False),
        sa.Column("to_stage", sa.Text(), nullable=False),
        sa.Column("decision_id", sa.Uuid(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["bot_id"], ["blaid.bots.id"], name=op.f("fk_bot_stage_events_bot_id")),
        sa.ForeignKeyConstraint(
            ["decision_id"], ["blaid.promotion_decisions.id"], name=op.f("fk_bot_stage_events_decision_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bot_stage_events")),
        sa.UniqueConstraint("decision_id", name=op.f("uq_bot_stage_events_decision_id")),
        schema="blaid",
    )
    op.create_index(
        op.f("ix_bot_stage_events_bot_id_created_at"),
        "bot_stage_events",
        ["bot_id", "created_at"],
        unique=False,
        schema="blaid",
    )
