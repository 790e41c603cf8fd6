"""What the database itself refuses, one cell a test: moves of jobs and stages, changes to what is written once."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from blaid_pipelines.store.database import Store
from tests.store.rows import fill

JOB_STATUSES = ("QUEUED", "RUNNING", "COMPLETED", "FAILED", "REFUSED", "TIMEOUT")
JOB_MOVES = {
    ("QUEUED", "QUEUED"), ("QUEUED", "RUNNING"), ("QUEUED", "REFUSED"), ("QUEUED", "FAILED"),
    ("RUNNING", "RUNNING"), ("RUNNING", "COMPLETED"), ("RUNNING", "FAILED"), ("RUNNING", "REFUSED"),
    ("RUNNING", "TIMEOUT"),
}  # fmt: skip
PATH_TO = {"QUEUED": (), "RUNNING": ("RUNNING",), "REFUSED": ("REFUSED",)}
STAGES = ("LAB", "PAPER", "SHADOW", "CANARY", "LIVE")


@pytest.fixture
def rows(store: Store) -> dict[str, dict[str, Any]]:
    """One row in every table."""
    with store.engine.begin() as connection:
        return fill(connection)


def allowed(store: Store, statement: str, **values: Any) -> bool:
    """Whether the database takes the statement; it is rolled back either way."""
    with store.engine.connect() as connection:
        try:
            connection.execute(text(statement), values)
        except IntegrityError:
            return False
        finally:
            connection.rollback()
    return True


def test_job_moves(store: Store, rows: dict[str, dict[str, Any]]) -> None:
    job = rows["bot_jobs"]["id"]
    found = set()
    for begin in JOB_STATUSES:
        path = PATH_TO.get(begin, ("RUNNING", begin))
        for end in JOB_STATUSES:
            with store.engine.connect() as connection:
                for step in path:
                    connection.execute(text("UPDATE bot_jobs SET status = :s WHERE id = :i"), {"s": step, "i": job})
                try:
                    connection.execute(text("UPDATE bot_jobs SET status = :s WHERE id = :i"), {"s": end, "i": job})
                    found.add((begin, end))
                except IntegrityError:
                    pass
                connection.rollback()
    assert found == JOB_MOVES


@pytest.mark.parametrize("status", JOB_STATUSES[1:])
def test_job_begins_queued(store: Store, status: str) -> None:
    assert not allowed(
        store,
        "INSERT INTO bot_jobs (id, job_type, status, trace_id) VALUES (gen_random_uuid(), 'BACKTEST', :s, 't')",
        s=status,
    )


JOB_OF = "INSERT INTO bot_jobs (id, bot_id, job_type, status, trace_id) VALUES (gen_random_uuid(), :b, 'X', 'QUEUED', 't')"


def test_bot_has_one_open_job(store: Store, rows: dict[str, dict[str, Any]]) -> None:
    bot, job = rows["bots"]["id"], rows["bot_jobs"]["id"]
    assert not allowed(store, JOB_OF, b=bot)  # QUEUED
    for step, fine in (("RUNNING", False), ("COMPLETED", True)):
        with store.engine.begin() as connection:
            connection.execute(text("UPDATE bot_jobs SET status = :s WHERE id = :i"), {"s": step, "i": job})
        assert allowed(store, JOB_OF, b=bot) == fine, step
    with store.engine.begin() as connection:  # jobs of no bot may be many
        connection.execute(text(JOB_OF), [{"b": None}, {"b": None}])


def test_decision_carries_one_move(store: Store, rows: dict[str, dict[str, Any]]) -> None:
    move = (
        "INSERT INTO bot_stage_events (id, bot_id, from_stage, to_stage, decision_id, actor, trace_id) "
        "SELECT gen_random_uuid(), bot_id, from_stage, to_stage, CAST(:d AS uuid), actor, trace_id FROM bot_stage_events"
    )
    assert not allowed(store, move, d=rows["promotion_decisions"]["id"])
    assert allowed(store, move, d=None)


def test_stage_moves_one_step_up_or_any_step_down(store: Store, rows: dict[str, dict[str, Any]]) -> None:
    bot = rows["bots"]["id"]
    for begin, name in enumerate(STAGES):
        for end, target in enumerate(STAGES):
            with store.engine.connect() as connection:
                for step in STAGES[1 : begin + 1]:
                    connection.execute(text("UPDATE bots SET stage = :s WHERE id = :i"), {"s": step, "i": bot})
                try:
                    connection.execute(text("UPDATE bots SET stage = :s WHERE id = :i"), {"s": target, "i": bot})
                    moved = True
                except IntegrityError:
                    moved = False
                connection.rollback()
            assert moved == (end <= begin + 1), f"{name} -> {target}"


@pytest.mark.parametrize("stage", STAGES[1:])
def test_bot_begins_in_lab(store: Store, rows: dict[str, dict[str, Any]], stage: str) -> None:
    assert not allowed(
        store,
        "INSERT INTO bots (id, name, instrument, schema, strategy_family, params, params_hash, capital_cents, "
        "contracts, stage) SELECT gen_random_uuid(), 'other', instrument, schema, strategy_family, params, "
        "params_hash, capital_cents, contracts, :s FROM bots",
        s=stage,
    )


@pytest.mark.parametrize(
    "table",
    [
        "environment_stamp", "lake_segments", "snapshots", "series_heads", "quality_verdicts", "backtest_sessions",
        "backtest_diagnostics", "autonomy_scores", "promotion_decisions", "bot_stage_events", "job_run_events",
    ],
)  # fmt: skip
def test_evidence_is_written_once(store: Store, rows: dict[str, dict[str, Any]], table: str) -> None:
    assert not allowed(store, f"UPDATE {table} SET created_at = created_at")
    assert not allowed(store, f"DELETE FROM {table}")
    assert not allowed(store, f"TRUNCATE {table} CASCADE")


@pytest.mark.parametrize("table", ["provider_requests", "bots", "bot_jobs"])
def test_rows_that_others_cite_stay(store: Store, rows: dict[str, dict[str, Any]], table: str) -> None:
    assert not allowed(store, f"DELETE FROM {table}")
    assert not allowed(store, f"TRUNCATE {table} CASCADE")


OUTCOME = "success = true, completed_at = now()"


@pytest.mark.parametrize(
    ("statements", "fine"),
    [
        ([f"UPDATE provider_requests SET {OUTCOME}, response_sha256 = 'y' WHERE response_sha256 IS NULL"], True),
        ([f"UPDATE provider_requests SET {OUTCOME}"], True),
        ([f"UPDATE provider_requests SET {OUTCOME}", f"UPDATE provider_requests SET {OUTCOME}"], False),
        ([f"UPDATE provider_requests SET {OUTCOME}", "UPDATE provider_requests SET success = false"], False),
        ([f"UPDATE provider_requests SET {OUTCOME}", "UPDATE provider_requests SET error_code = 'E'"], False),
        (["UPDATE provider_requests SET success = true"], False),
        (["UPDATE provider_requests SET endpoint = 'other'"], False),
        (["UPDATE provider_requests SET params = '{}'"], False),
        (["UPDATE provider_requests SET simulated = false"], False),
        (["UPDATE provider_requests SET http_status = 500"], False),  # has a value already
        ([f"UPDATE provider_requests SET {OUTCOME}, trace_id = 'other'"], False),
    ],
)
def test_request_outcome_is_written_once(
    store: Store, rows: dict[str, dict[str, Any]], statements: list[str], fine: bool
) -> None:
    with store.engine.connect() as connection:
        try:
            for statement in statements:
                connection.execute(text(statement))
            taken = True
        except IntegrityError:
            taken = False
        connection.rollback()
    assert taken == fine


def test_market_data_requests_shows_market_data_only(store: Store, rows: dict[str, dict[str, Any]]) -> None:
    with store.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO provider_requests (id, trace_id, category, provider, endpoint, attempt, "
                "request_fingerprint, params, simulated) "
                "VALUES (gen_random_uuid(), 't', 'ai', 'p', 'e', 1, 'f', '{}', false)"
            )
        )
        found = connection.execute(text("SELECT * FROM market_data_requests")).mappings().all()
    assert len(found) == 1
    assert set(found[0]) >= {
        "created_at", "trace_id", "bot_id", "stage", "provider", "endpoint", "request_fingerprint", "symbol", "schema",
        "start_ts", "end_ts", "bar_count", "latency_ms", "success", "error_code", "error_message",
    }  # fmt: skip
