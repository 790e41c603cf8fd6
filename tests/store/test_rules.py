"""What the database itself refuses, one cell a test: moves of jobs and stages, changes to what is written once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from blaid_pipelines.ids import new_id
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import Bot
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


def allowed(store: Store, *statements: str, **values: Any) -> bool:
    """Whether the database takes the statements and would commit them; they are rolled back either way."""
    with store.engine.connect() as connection:
        try:
            for statement in (*statements, "SET CONSTRAINTS ALL IMMEDIATE"):
                connection.execute(text(statement), values)
        except IntegrityError:
            return False
        finally:
            connection.rollback()
    return True


def job_move(begin: str | None, end: str) -> tuple[str, str]:
    """Statements that move job ``:job``, its event included."""
    was = "NULL" if begin is None else f"'{begin}'"
    return (
        f"UPDATE bot_jobs SET status = '{end}' WHERE id = :job",
        "INSERT INTO job_run_events (id, job_id, from_status, to_status, trace_id) "
        f"VALUES (gen_random_uuid(), :job, {was}, '{end}', 't')",
    )


def test_job_moves(store: Store, rows: dict[str, dict[str, Any]]) -> None:
    found = set()
    for begin in JOB_STATUSES:
        path = ("QUEUED", *PATH_TO.get(begin, ("RUNNING", begin)))
        before = [statement for move in pairwise(path) for statement in job_move(*move)]
        for end in JOB_STATUSES:
            if allowed(store, *before, *job_move(begin, end), job=rows["bot_jobs"]["id"]):
                found.add((begin, end))
    assert found == JOB_MOVES


JOB = "INSERT INTO bot_jobs (id, bot_id, job_type, status, trace_id) VALUES (:job, :bot, 'X', '{}', 't')"


@pytest.mark.parametrize("status", JOB_STATUSES)
def test_job_begins_queued(store: Store, status: str) -> None:
    fine = allowed(store, JOB.format(status), job_move(None, status)[1], job=new_id(), bot=None)
    assert fine == (status == "QUEUED")


RUN, RUN_EVENT = job_move("QUEUED", "RUNNING")
END, END_EVENT = job_move("RUNNING", "COMPLETED")


@pytest.mark.parametrize(
    ("statements", "fine"),
    [
        ([RUN, RUN_EVENT], True),
        ([RUN_EVENT, RUN], True),
        ([RUN, RUN_EVENT, END, END_EVENT], True),
        ([RUN, END, RUN_EVENT, END_EVENT], True),
        ([RUN, "SAVEPOINT s", RUN_EVENT, "RELEASE SAVEPOINT s"], True),
        (["SAVEPOINT s", RUN, RUN_EVENT, "RELEASE SAVEPOINT s"], True),
        ([RUN, "SAVEPOINT s", RUN_EVENT, "ROLLBACK TO SAVEPOINT s"], False),
        ([RUN], False),
        ([RUN, END, END_EVENT], False),
        ([RUN, END_EVENT], False),
        ([RUN_EVENT], False),
        ([RUN_EVENT, "UPDATE bot_jobs SET last_heartbeat_at = now()"], False),
        (["UPDATE bot_jobs SET last_heartbeat_at = now(), claim_key = 7"], True),
        ([JOB.format("QUEUED").replace(":job, :bot", "gen_random_uuid(), NULL")], False),
    ],
)
def test_job_and_event_move_together(
    store: Store, rows: dict[str, dict[str, Any]], statements: list[str], fine: bool
) -> None:
    assert allowed(store, *statements, job=rows["bot_jobs"]["id"]) == fine


def test_bot_has_one_open_job(store: Store, rows: dict[str, dict[str, Any]]) -> None:
    bot, job = rows["bots"]["id"], rows["bot_jobs"]["id"]

    def another(of: object) -> bool:
        return allowed(store, JOB.format("QUEUED"), job_move(None, "QUEUED")[1], job=new_id(), bot=of)

    assert not another(bot)
    for statements, fine in (((RUN, RUN_EVENT), False), ((END, END_EVENT), True)):
        with store.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement), {"job": job})
        assert another(bot) == fine, statements
    assert allowed(  # jobs of no bot may be many
        store, *(JOB.format("QUEUED").replace(":job, :bot", f"'{new_id()}', NULL") for _ in range(2)),
        "INSERT INTO job_run_events (id, job_id, to_status, trace_id) "
        "SELECT gen_random_uuid(), id, status, 't' FROM bot_jobs WHERE bot_id IS NULL",
    )  # fmt: skip


EVENT = (
    "INSERT INTO bot_stage_events (id, bot_id, from_stage, to_stage, decision_id, actor, trace_id) "
    "VALUES (gen_random_uuid(), '{bot}', '{begin}', '{end}', {decision}, 'test', 't')"
)


def decision(bot: UUID, begin: str, end: str, said: str = "PROMOTE") -> tuple[str, str]:
    """A statement that writes a decision like the one of ``rows``, and its id as an SQL literal."""
    literal = f"'{new_id()}'"
    return (
        "INSERT INTO promotion_decisions SELECT (jsonb_populate_record(d, jsonb_build_object("
        f"'id', {literal}, 'bot_id', '{bot}', 'from_stage', '{begin}', 'to_stage', '{end}', 'decision', '{said}'))).* "
        "FROM promotion_decisions d LIMIT 1",
        literal,
    )


def stage_move(bot: UUID, begin: str, end: str) -> list[str]:
    """Statements that move a bot between stages as it should be: with an event, and a decision where it goes up."""
    promotion, literal = decision(bot, begin, end)
    is_up = STAGES.index(end) > STAGES.index(begin)
    return [
        *([promotion] if is_up else []),
        f"UPDATE bots SET stage = '{end}' WHERE id = '{bot}'",
        EVENT.format(bot=bot, begin=begin, end=end, decision=literal if is_up else "NULL"),
    ]


def test_stage_moves_one_step_up_or_any_step_down(store: Store, rows: dict[str, dict[str, Any]]) -> None:
    bot = rows["bots"]["id"]
    for begin, name in enumerate(STAGES):
        path = ("PAPER", "LAB", *STAGES[1 : begin + 1])
        before = [statement for move in pairwise(path) for statement in stage_move(bot, *move)]
        for end, target in enumerate(STAGES):
            if target != name:
                moved = allowed(store, *before, *stage_move(bot, name, target))
                assert moved == (end <= begin + 1), f"{name} -> {target}"


def stage_cases(bot: UUID, other: UUID) -> dict[str, tuple[list[str], bool]]:
    """What may be tried with ``bot``, which is in PAPER; ``other`` is in LAB."""
    promotion, cited = decision(bot, "PAPER", "SHADOW")
    refusal, refused = decision(bot, "PAPER", "SHADOW", "REFUSE")
    of_other, others = decision(other, "PAPER", "SHADOW")
    of_other_move, other_moves = decision(bot, "SHADOW", "CANARY")
    up, down = (f"UPDATE bots SET stage = '{stage}' WHERE id = '{bot}'" for stage in ("SHADOW", "LAB"))

    def event(decision: str = "NULL", begin: str = "PAPER", end: str = "SHADOW", of: UUID = bot) -> str:
        return EVENT.format(bot=of, begin=begin, end=end, decision=decision)

    return {
        "up with a decision": ([promotion, up, event(cited)], True),
        "event before the move": ([promotion, event(cited), up], True),
        "up within a savepoint": ([promotion, "SAVEPOINT s", up, event(cited), "RELEASE SAVEPOINT s"], True),
        "event in a savepoint": ([promotion, up, "SAVEPOINT s", event(cited), "RELEASE SAVEPOINT s"], True),
        "event rolled back": ([promotion, up, "SAVEPOINT s", event(cited), "ROLLBACK TO SAVEPOINT s"], False),
        "up alone": ([promotion, up], False),
        "up without a decision": ([up, event()], False),
        "up on a decision that refuses": ([refusal, up, event(refused)], False),
        "up on another bot's decision": ([of_other, up, event(others)], False),
        "up on a decision for another move": ([of_other_move, up, event(other_moves)], False),
        "up with another bot's event": ([promotion, up, event(cited, of=other)], False),
        "up with another move's event": ([promotion, up, event(cited, begin="LAB")], False),
        "down": ([down, event(begin="PAPER", end="LAB")], True),
        "down alone": ([down], False),
        "back without an event": ([promotion, up, event(cited), down], False),
        "event alone": ([event(begin="PAPER", end="LAB")], False),
        "event beside a reset": ([event(end="LAB"), "UPDATE bots SET reset_at = now()"], False),
    }


@pytest.mark.parametrize("case", stage_cases(UUID(int=1), UUID(int=2)))
def test_stage_and_event_move_together(store: Store, rows: dict[str, dict[str, Any]], case: str) -> None:
    other = new_id()
    with store.engine.begin() as connection:
        connection.execute(insert(Bot).values(rows["bots"] | {"id": other, "name": "other", "stage": "LAB"}))
    statements, fine = stage_cases(rows["bots"]["id"], other)[case]
    assert allowed(store, *statements) == fine


def test_event_of_an_earlier_transaction_carries_no_move(store: Store, rows: dict[str, dict[str, Any]]) -> None:
    bot = rows["bots"]["id"]
    with store.engine.begin() as connection:
        for statement in (*stage_move(bot, "PAPER", "LAB"), *stage_move(bot, "LAB", "PAPER")):
            connection.execute(text(statement))
    with pytest.raises(IntegrityError), store.session() as session:  # refused at the commit itself
        session.execute(text("UPDATE bots SET stage = 'LAB'"))
    with store.session() as session:
        assert session.get_one(Bot, bot).stage == "PAPER"


def test_decision_carries_one_move(store: Store, rows: dict[str, dict[str, Any]]) -> None:
    bot, used = rows["bots"]["id"], rows["promotion_decisions"]["id"]
    down = stage_move(bot, "PAPER", "LAB")
    assert allowed(store, *down, *stage_move(bot, "LAB", "PAPER"), *down)  # moves down cite none
    again = EVENT.format(bot=bot, begin="LAB", end="PAPER", decision=f"'{used}'")
    assert not allowed(store, *down, f"UPDATE bots SET stage = 'PAPER' WHERE id = '{bot}'", again)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "gen_random_uuid()"), ("name", "'other'"), ("instrument", "'MES'"), ("symbol", "NULL"),
        ("schema", "'ohlcv-1h'"), ("strategy_family", "'other'"), ("params", "'{}'"), ("params_hash", "'other'"),
        ("capital_cents", "capital_cents + 1"), ("contracts", "contracts + 1"),
        ("created_at", "created_at + interval '1 us'"), ("reset_at", "reset_at - interval '1 us'"),
    ],
)  # fmt: skip
def test_what_a_bot_is_does_not_change(store: Store, rows: dict[str, dict[str, Any]], column: str, value: str) -> None:
    # "bot_jobs" and others cite the id, so that it could not change anyway
    assert not allowed(store, f"UPDATE bots SET {column} = {value}")


def test_bot_is_reset_forward(store: Store, rows: dict[str, dict[str, Any]]) -> None:
    assert allowed(store, "UPDATE bots SET reset_at = clock_timestamp()")
    assert allowed(store, "UPDATE bots SET capital_cents = capital_cents, reset_at = reset_at")


def test_every_column_of_a_bot_is_covered() -> None:
    (marker,) = test_what_a_bot_is_does_not_change.pytestmark  # type: ignore[attr-defined]
    assert {column for column, _ in marker.args[1]} | {"stage"} == set(Bot.__table__.columns.keys())


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
