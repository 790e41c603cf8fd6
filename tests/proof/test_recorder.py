"""The recorder: intent before the call, outcome after it, and no call that cannot be recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, select, text

from blaid_pipelines.ids import new_id, new_trace_id
from blaid_pipelines.proof.recorder import CallContext, CallIntent, Recorder, wire_log_path
from blaid_pipelines.proof.redact import REDACTED, redact_params, redact_text
from blaid_pipelines.proof.usage import check_requests, proof_counts, request_log_path
from blaid_pipelines.reasons import BlaidError, DependencyDown, Reason, ReasonCode, RetryLater
from blaid_pipelines.settings import Environment, Settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import ProviderRequest

INTENT = CallIntent(
    provider="databento",
    category="market_data",
    endpoint="metadata.get_cost",
    params={"dataset": "GLBX.MDP3", "symbols": ["MES.c.0"], "api_key": "db-verysecret123"},
    simulated=True,
    symbol="MES.c.0",
    schema="ohlcv-1m",
    start=datetime(2024, 1, 2, tzinfo=UTC),
    end=datetime(2024, 1, 3, tzinfo=UTC),
)


def context() -> CallContext:
    return CallContext(new_trace_id(), new_id(), "LAB")


def rows(store: Store) -> list[ProviderRequest]:
    with store.session() as session:
        return list(session.scalars(select(ProviderRequest)))


@pytest.fixture
def recorder(store: Store, settings: Settings) -> Recorder:
    return Recorder(store, wire_log_path(settings))


def test_a_good_call_from_intent_to_outcome(recorder: Recorder, store: Store, settings: Settings) -> None:
    mine = context()
    with recorder.attempt(mine, INTENT) as attempt:
        (row,) = rows(store)  # committed: this is another connection
        assert (row.id, row.success, row.completed_at, row.latency_ms) == (attempt.id, None, None, None)
        assert proof_counts(store, settings).calls == 0
        attempt.about_to_send()
        assert proof_counts(store, settings).calls == 1
        attempt.outcome(http_status=200, cost_usd=Decimal("0.25"), response_bytes=17)
        attempt.outcome(bar_count=3, response_sha256="ab", provider_request_id="r1")
    (row,) = rows(store)
    assert row.success is True
    assert (row.trace_id, row.bot_id, row.stage) == (mine.trace_id, mine.bot_id, "LAB")
    assert (row.provider, row.category, row.endpoint, row.attempt) == (
        "databento",
        "market_data",
        "metadata.get_cost",
        1,
    )
    assert (row.symbol, row.schema, row.start_ts, row.end_ts) == ("MES.c.0", "ohlcv-1m", INTENT.start, INTENT.end)
    assert (row.http_status, row.cost_usd, row.response_bytes, row.bar_count) == (200, Decimal("0.25"), 17, 3)
    assert (row.response_sha256, row.provider_request_id) == ("ab", "r1")
    assert (row.error_code, row.error_message) == (None, None)
    assert row.latency_ms is not None
    assert row.latency_ms >= 0
    assert row.params == {"dataset": "GLBX.MDP3", "symbols": ["MES.c.0"], "api_key": REDACTED}
    assert check_requests(store, [attempt.id]) == []
    (line,) = wire_log_path(settings).read_text().split("\n")[1:]
    assert json.loads(line)["id"] == str(attempt.id)


def test_a_refused_call_keeps_its_reason(recorder: Recorder, store: Store) -> None:
    reason = Reason(ReasonCode.RATE_LIMITED, "slow down, db-verysecret123", "wait")

    def call() -> None:
        with recorder.attempt(context(), INTENT) as attempt:
            attempt.about_to_send()
            attempt.outcome(http_status=429)
            raise RetryLater(reason, retry_after_s=2)

    with pytest.raises(RetryLater):
        call()
    (row,) = rows(store)
    assert (row.success, row.error_code, row.http_status) == (False, "RATE_LIMITED", 429)
    assert row.error_message == f"slow down, {REDACTED}"
    (found,) = check_requests(store, [row.id])
    assert found.code is ReasonCode.PROOF_MISMATCH


def test_a_crash_of_ours_is_a_failed_call_too(recorder: Recorder, store: Store) -> None:
    with pytest.raises(ZeroDivisionError), recorder.attempt(context(), INTENT):
        raise ZeroDivisionError("oops")
    (row,) = rows(store)
    assert (row.success, row.error_code, row.error_message) == (False, "JOB_FAILED", "ZeroDivisionError: oops")


def test_an_interrupted_call_stays_unknown(recorder: Recorder, store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), recorder.attempt(context(), INTENT):
        raise KeyboardInterrupt
    (row,) = rows(store)
    assert row.success is None
    (reason,) = check_requests(store, [row.id])
    assert reason.code is ReasonCode.PROOF_UNKNOWN


def test_a_row_that_nobody_wrote_is_a_mismatch(store: Store) -> None:
    missing = uuid4()
    (reason,) = check_requests(store, [missing, missing])
    assert reason.code is ReasonCode.PROOF_MISMATCH
    assert reason.numbers["request_id"] == str(missing)
    assert check_requests(store, []) == []


@pytest.mark.parametrize("received", [0, 1])
def test_a_kill_after_the_call_left_leaves_open_whether_it_arrived(
    received: int, store: Store, settings: Settings
) -> None:
    log = request_log_path(settings)
    log.parent.mkdir(parents=True)
    log.write_text('{"n": 1}\n' * received)
    code = KILLED.replace("intent):", "intent) as attempt:\n        attempt.about_to_send()")
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=60)
    assert done.returncode == -9, done.stderr.decode()
    counts = proof_counts(store, settings)
    assert (counts.calls, counts.rows, counts.unknown, counts.unsent, counts.equal) == (1, 1, 1, 0, True)
    log.write_text('{"n": 1}\n' * 2)
    assert not proof_counts(store, settings).equal


KILLED = """
import os, signal
from blaid_pipelines.ids import new_trace_id
from blaid_pipelines.proof.recorder import CallContext, CallIntent, Recorder, wire_log_path
from blaid_pipelines.settings import load_settings
from blaid_pipelines.store.database import open_store
settings = load_settings()
with open_store(settings) as store:
    intent = CallIntent("databento", "market_data", "timeseries.get_range", {}, True)
    with Recorder(store, wire_log_path(settings)).attempt(CallContext(new_trace_id()), intent):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_intent_survives_a_kill_before_the_call(store: Store, settings: Settings) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], check=False, capture_output=True, timeout=60)
    assert done.returncode == -9, done.stderr.decode()
    (row,) = rows(store)
    assert (row.endpoint, row.success, row.completed_at) == ("timeseries.get_range", None, None)
    assert [reason.code for reason in check_requests(store, [row.id])] == [ReasonCode.PROOF_UNKNOWN]
    counts = proof_counts(store, settings)
    assert (counts.calls, counts.rows, counts.unsent, counts.equal) == (0, 1, 1, True)


def rename(store: Store, before: str, after: str) -> None:
    with store.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE blaid.{before} RENAME TO {after}"))


def test_a_call_that_cannot_be_recorded_is_not_made(recorder: Recorder, store: Store, settings: Settings) -> None:
    rename(store, "provider_requests", "elsewhere")
    with pytest.raises(DependencyDown) as caught, recorder.attempt(context(), INTENT):
        pytest.fail("the call was made")
    assert caught.value.reason.code is ReasonCode.LEDGER_UNAVAILABLE
    rename(store, "elsewhere", "provider_requests")
    counts = proof_counts(store, settings)
    assert (counts.calls, counts.rows) == (0, 0)


def test_a_call_that_cannot_be_counted_is_not_made_and_leaves_no_row(store: Store, settings: Settings) -> None:
    path = wire_log_path(settings)
    path.mkdir(parents=True)  # a folder where the file belongs
    with pytest.raises(DependencyDown) as caught, Recorder(store, path).attempt(context(), INTENT):
        pytest.fail("the call was made")
    assert caught.value.reason.code is ReasonCode.LEDGER_UNAVAILABLE
    assert rows(store) == []


def test_a_call_not_made_because_the_log_was_full_leaves_the_counts_equal(store: Store, settings: Settings) -> None:
    with pytest.raises(DependencyDown) as caught, Recorder(store, Path("/dev/full")).attempt(context(), INTENT) as full:
        full.about_to_send()
    assert caught.value.reason.code is ReasonCode.LEDGER_UNAVAILABLE
    counts = proof_counts(store, settings)
    assert (counts.calls, counts.rows, counts.unsent, counts.equal) == (0, 1, 1, True)
    with Recorder(store, wire_log_path(settings)).attempt(context(), INTENT) as made:
        made.about_to_send()
    wire_log_path(settings).unlink()
    assert not proof_counts(store, settings).equal, "a call that was answered left, whatever the log has lost"


@pytest.mark.parametrize("fails", [False, True])
def test_an_outcome_that_cannot_be_written_stays_unknown(fails: bool, recorder: Recorder, store: Store) -> None:
    def call() -> None:
        with recorder.attempt(context(), INTENT) as attempt:
            attempt.about_to_send()
            rename(store, "provider_requests", "elsewhere")
            if fails:
                raise BlaidError(Reason(ReasonCode.TIMEOUT, "too late", "again"))

    with pytest.raises(DependencyDown) as caught:
        call()
    assert [reason.code for reason in caught.value.reasons] == [
        ReasonCode.LEDGER_UNAVAILABLE,
        *([ReasonCode.TIMEOUT] if fails else []),
    ]
    rename(store, "elsewhere", "provider_requests")
    (row,) = rows(store)
    assert row.success is None


def test_a_database_that_is_gone(store: Store, settings: Settings) -> None:
    recorder = Recorder(store, wire_log_path(settings))
    url = store.engine.url
    server = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {url.database} WITH ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": url.database}
        )
    server.dispose()
    with pytest.raises(DependencyDown) as caught, recorder.attempt(context(), INTENT):
        pytest.fail("the call was made")
    assert caught.value.reason.code is ReasonCode.LEDGER_UNAVAILABLE


def test_the_same_question_has_one_fingerprint(recorder: Recorder, store: Store) -> None:
    for _ in range(2):
        with recorder.attempt(context(), INTENT):
            pass
    assert len({row.request_fingerprint for row in rows(store)}) == 1
    assert len({row.id for row in rows(store)}) == 2


def test_counts_that_differ_are_seen(recorder: Recorder, store: Store, settings: Settings) -> None:
    uncounted = proof_counts(store, settings)
    assert (uncounted.sandbox_received, uncounted.equal) == (None, True), "nobody was asked: no log is missing"
    elsewhere = proof_counts(store, settings.model_copy(update={"env": Environment.DEV}))
    assert (elsewhere.sandbox_received, elsewhere.equal) == (None, True)
    with recorder.attempt(context(), INTENT) as attempt:
        attempt.about_to_send()
    uncounted = proof_counts(store, settings)
    assert (uncounted.sandbox_received, uncounted.equal) == (None, False), "in the sandbox world the gateway counts too"
    log = request_log_path(settings)
    log.parent.mkdir(parents=True)
    log.touch()
    assert not proof_counts(store, settings).equal
    log.write_text('{"n": 1}\n')
    counts = proof_counts(store, settings)
    assert (counts.calls, counts.rows, counts.sandbox_received, counts.equal) == (1, 1, 1, True)


@pytest.mark.parametrize(
    "text_in",
    [
        "key db-abcdefgh12345 refused",
        "Authorization: Basic ZGItYWJjOg==",
        "Bearer eyJhbGciOi.abc.def",
        "postgresql://user:pa55word@host/db",
        "sk-ant-api03-0123456789abcdef",
    ],
)
def test_key_shapes_are_taken_out_of_texts(text_in: str) -> None:
    out = redact_text(text_in)
    assert REDACTED in out
    for secret in ("db-abcdefgh12345", "ZGItYWJjOg==", "eyJhbGciOi", "pa55word", "0123456789abcdef"):
        assert secret not in out


def test_params_are_redacted_in_depth() -> None:
    params = {"a": {"Password": "x", "list": ["db-abcdefgh12345", 1, None]}, "when": datetime(2024, 1, 2, tzinfo=UTC)}
    assert redact_params(params) == {
        "a": {"Password": REDACTED, "list": [REDACTED, 1, None]},
        "when": "2024-01-02T00:00:00+00:00",
    }
    assert redact_params({"q": "my-own-secret"}, ["my-own-secret"]) == {"q": REDACTED}


def test_a_line_cut_short_counts_nothing_and_swallows_nothing(
    recorder: Recorder, store: Store, settings: Settings
) -> None:
    for _ in range(2):
        with recorder.attempt(context(), INTENT) as attempt:
            attempt.about_to_send()
        with wire_log_path(settings).open("ab") as log:
            log.write(b'\n{"id": "01a1fb')  # what a disk that fills up leaves
    assert proof_counts(store, settings).calls == 2
