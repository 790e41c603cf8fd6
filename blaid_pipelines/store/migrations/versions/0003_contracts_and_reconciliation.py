"""Contracts, their days, reconciliations and what was cleaned out of the lake.

Why: rolls need expiries and open interest, bars need a second account of themselves to be held against, and a bar file
may only leave the lake with a row that says so.
Data safety: upgrade makes new tables only. Downgrade drops these four with their rows; bars, snapshots, verdicts and
decisions stay.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = ("contract_definitions", "contract_days", "reconciliations", "lake_removals")


def upgrade() -> None:
    _create_tables()
    for table in TABLES:
        op.execute(
            f"CREATE TRIGGER write_once BEFORE UPDATE OR DELETE ON blaid.{table} "
            "FOR EACH ROW EXECUTE FUNCTION blaid.refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER no_truncate BEFORE TRUNCATE ON blaid.{table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION blaid.refuse_change()"
        )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table, schema="blaid")


def _create_tables() -> None:
    op.create_table(
        "lake_removals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("file_sha256", sa.Text(), nullable=True),
        sa.Column("file_bytes", sa.BigInteger(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lake_removals")),
        schema="blaid",
    )
    op.create_index(op.f("ix_lake_removals_path"), "lake_removals", ["path"], unique=False, schema="blaid")
    op.create_table(
        "contract_days",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("instrument", sa.Text(), nullable=False),
        sa.Column("raw_symbol", sa.Text(), nullable=False),
        sa.Column("session_date", sa.Date(), nullable=False),
        sa.Column("volume", sa.BigInteger(), nullable=True),
        sa.Column("open_interest", sa.BigInteger(), nullable=True),
        sa.Column("source_key", sa.Text(), nullable=False),
        sa.Column("provenance", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("volume >= 0 AND open_interest >= 0", name=op.f("ck_contract_days_counts")),
        sa.CheckConstraint(
            "volume IS NOT NULL OR open_interest IS NOT NULL", name=op.f("ck_contract_days_says_something")
        ),
        sa.ForeignKeyConstraint(["instrument"], ["blaid.instruments.symbol"], name=op.f("fk_contract_days_instrument")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contract_days")),
        schema="blaid",
    )
    op.create_index(
        op.f("ix_contract_days_instrument_session_date"),
        "contract_days",
        ["instrument", "session_date"],
        unique=False,
        schema="blaid",
    )
    op.create_table(
        "contract_definitions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("raw_symbol", sa.Text(), nullable=False),
        sa.Column("instrument", sa.Text(), nullable=False),
        sa.Column("instrument_id", sa.BigInteger(), nullable=True),
        sa.Column("activation", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("expiration", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("tick_size", sa.Numeric(precision=18, scale=9), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("mic", sa.Text(), nullable=True),
        sa.Column("definition", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("source_key", sa.Text(), nullable=False),
        sa.Column("provenance", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["instrument"], ["blaid.instruments.symbol"], name=op.f("fk_contract_definitions_instrument")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contract_definitions")),
        sa.UniqueConstraint(
            "raw_symbol",
            "expiration",
            "source_key",
            "fingerprint",
            name=op.f("uq_contract_definitions_raw_symbol_expiration_source_key_fingerprint"),
        ),
        schema="blaid",
    )
    op.create_index(
        op.f("ix_contract_definitions_instrument_expiration"),
        "contract_definitions",
        ["instrument", "expiration"],
        unique=False,
        schema="blaid",
    )
    op.create_table(
        "reconciliations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("snapshot_id", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("other", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("policy_hash", sa.Text(), nullable=False),
        sa.Column("numbers", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("reasons", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("request_ids", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("kind IN ('daily','overlap','backup')", name=op.f("ck_reconciliations_kind")),
        sa.CheckConstraint("status IN ('PASS','FAIL','UNKNOWN')", name=op.f("ck_reconciliations_status")),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["blaid.snapshots.snapshot_id"], name=op.f("fk_reconciliations_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliations")),
        schema="blaid",
    )
    op.create_index(
        op.f("ix_reconciliations_snapshot_id_kind_created_at"),
        "reconciliations",
        ["snapshot_id", "kind", "created_at"],
        unique=False,
        schema="blaid",
    )
