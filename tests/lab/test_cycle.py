"""The LAB cycle on real Postgres: what a bot gets from bars to decision, and every way in which it is refused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select, update

from blaid_pipelines.backtest import strategy
from blaid_pipelines.jobs.liveness import claim
from blaid_pipelines.jobs.machine import JobStatus, JobType, create_job, move_job
from blaid_pipelines.lab import cycle
from blaid_pipelines.lab.bots import NewBot, create_bot, due_bots
from blaid_pipelines.lab.context import LabContext, open_lab
from blaid_pipelines.lab.cycle import BotOutcome, run_cohort
from blaid_pipelines.lab.explain import explain
from blaid_pipelines.lab.inputs import snapshot_request_ids
from blaid_pipelines.lab.reproduce import reproduce
from blaid_pipelines.lab.series import judge_series, pull_series
from blaid_pipelines.lab.status import bot_statuses, status_report
from blaid_pipelines.market.lake.snapshots import get_snapshot
from blaid_pipelines.market.purchase.pull import PullRequest
from blaid_pipelines.policy.load import default_policy_text, load_policy
from blaid_pipelines.proof.usage import check_requests
from blaid_pipelines.reasons import DependencyDown, InvalidRequest, ReasonCode, Refused
from blaid_pipelines.sandbox.gateway import Fault
from blaid_pipelines.sandbox.series import Series
from blaid_pipelines.settings import load_settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import (
    AutonomyScore,
    BacktestDiagnostics,
    BacktestSession,
    Bot,
    BotJob,
    BotStageEvent,
    InstrumentCost,
    JobRunEvent,
    PromotionDecision,
    ProviderRequest,
)
from resources.launch import settings_environment
from tests.lab.conftest import MakeBot, Pull, midnight
from tests.sandbox.fixtures import StartGateway
from tests.support import eventually

WHOLE = {"start": date(2024, 1, 2), "end": date(2024, 6, 28)}
IRONBEAM = {"IRONBEAM_USERNAME": "51364321", "IRONBEAM_API_KEY": "9f0c1f6d2f5a4c7e8b1a3d5c7e9f0a1b"}


def _one(lab: LabContext, name: str) -> BotOutcome:
    (outcome,) = run_cohort(lab, [name])
    return outcome


def _gate(outcome: BotOutcome, name: str) -> dict[str, object]:
    return next(gate for gate in outcome.metadata["promotion_decision"]["gates"] if gate["name"] == name)


def test_a_good_bot_is_stopped_by_the_missing_broker_alone_and_everything_is_stored(
    lab: LabContext, pulled: Pull, make_bot: MakeBot
) -> None:
    series, bot = pulled(**WHOLE), make_bot("good")
    outcome = _one(lab, "good")
    assert outcome.status is JobStatus.COMPLETED
    decision = outcome.metadata["promotion_decision"]
    assert decision["decision"] == "REFUSE"
    assert decision["failing_gates"] == ["broker_for_paper"]
    assert _gate(outcome, "broker_for_paper")["code"] == "BROKER_REQUIRED_FOR_PAPER"
    assert decision["request_ids"] == series.snapshot.provenance["request_ids"]
    assert set(decision["request_ids"]) <= {str(request_id) for request_id in series.request_ids}
    with lab.store.session() as session:
        row = session.scalars(select(BacktestSession)).one()
        assert (row.snapshot_id, row.status, row.reason) == (series.snapshot.snapshot_id, "COMPLETED", None)
        assert session.get_one(BacktestDiagnostics, row.id).payload
        assert session.scalars(select(AutonomyScore)).one().session_id == row.id
        stored = session.scalars(select(PromotionDecision)).one()
        assert stored.gates == decision["gates"]
        assert session.get_one(Bot, bot.id).stage == "LAB"
        job = session.get_one(BotJob, row.job_id)
        assert job.status == "COMPLETED"
        moves = session.scalars(select(JobRunEvent).where(JobRunEvent.job_id == job.id).order_by(JobRunEvent.id)).all()
        assert [event.to_status for event in moves] == ["QUEUED", "RUNNING", "COMPLETED"]
        trades = pq.read_table(lab.lake / str(row.trades_path), partitioning=None)
        assert trades.num_rows == row.trades
        assert set(trades.column("snapshot_id").to_pylist()) == {series.snapshot.snapshot_id}
        assert sum(trades.column("net_pnl_cents").to_pylist()) == row.net_pnl_cents
    bundle = explain(lab.store, "good")
    assert bundle["decision_hash_valid"] is True
    assert any("BROKER_REQUIRED_FOR_PAPER" in line for line in bundle["why"])
    again = reproduce(lab, str(row.id))
    assert again.identical, again.differences


def test_with_a_configured_broker_it_is_promoted_once_and_then_waits_in_paper(
    lab: LabContext, pulled: Pull, make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in IRONBEAM.items():
        monkeypatch.setenv(name, value)
    pulled(**WHOLE)
    bot = make_bot("ready")
    outcome = _one(lab, "ready")
    assert outcome.metadata["promotion_decision"]["decision"] == "PROMOTE"
    with lab.store.session() as session:
        assert session.get_one(Bot, bot.id).stage == "PAPER"
        event = session.scalars(select(BotStageEvent)).one()
        decision = session.scalars(select(PromotionDecision)).one()
        assert (event.from_stage, event.to_stage, event.decision_id) == ("LAB", "PAPER", decision.id)
    assert "ready" not in due_bots(lab, datetime.now(UTC) + timedelta(days=1), 10)
    second = _one(lab, "ready")  # a person may still backtest it; these gates judge LAB to PAPER alone
    assert second.metadata["promotion_decision"]["decision"] == "REFUSE"


def test_bars_that_failed_the_gate_are_refused_in_every_run(lab: LabContext, pulled: Pull, make_bot: MakeBot) -> None:
    pulled("M2K.c.0", date(2024, 2, 12), date(2024, 3, 8))
    make_bot("bad-bars", "M2K.c.0")
    for _ in range(2):
        outcome = _one(lab, "bad-bars")
        assert outcome.status is JobStatus.REFUSED
        assert outcome.reason is not None
        assert outcome.reason.code is ReasonCode.DATA_QUALITY_FAILED
    with lab.store.session() as session:
        for row in session.scalars(select(BacktestSession)):
            assert (row.status, row.metrics, row.trades) == ("REFUSED", None, None)
            assert row.reason is not None
    (status,) = bot_statuses(lab)
    assert (status.decision, status.reason) == ("REFUSE", "DATA_QUALITY_FAILED")
    assert _gate(outcome, "quality")["status"] == "FAIL"
    assert not list(lab.lake.glob("trades/**/*.parquet"))


def test_bars_without_a_verdict_are_refused(lab: LabContext, pulled: Pull, make_bot: MakeBot) -> None:
    pulled(judged=False)
    make_bot("unjudged")
    outcome = _one(lab, "unjudged")
    assert outcome.reason is not None
    assert outcome.reason.code is ReasonCode.DATA_QUALITY_UNKNOWN
    assert _gate(outcome, "quality")["status"] == "UNKNOWN"


def test_without_bars_it_is_refused(lab: LabContext, make_bot: MakeBot) -> None:
    make_bot("empty")
    outcome = _one(lab, "empty")
    assert outcome.reason is not None
    assert outcome.reason.code is ReasonCode.SNAPSHOT_MISSING
    assert outcome.metadata["promotion_decision"]["decision"] == "REFUSE"


def test_a_newer_failing_snapshot_is_not_passed_over_for_an_older_good_one(
    lab: LabContext, pulled: Pull, make_bot: MakeBot
) -> None:
    good = pulled()
    pulled(end=date(2024, 1, 25), judged=False)
    make_bot("newest")
    outcome = _one(lab, "newest")
    assert outcome.status is JobStatus.REFUSED
    (named,) = run_cohort(lab, ["newest"], snapshot_id=good.snapshot.snapshot_id)
    assert named.status is JobStatus.COMPLETED
    # One may look at an older snapshot, but nobody promotes a bot on bars of their choice.
    assert _gate(named, "snapshot_current")["code"] == "SNAPSHOT_NOT_CURRENT"
    assert named.metadata["promotion_decision"]["snapshot_id"] == good.snapshot.snapshot_id


def test_a_snapshot_of_another_instrument_is_refused(lab: LabContext, pulled: Pull, make_bot: MakeBot) -> None:
    other = pulled("M2K.c.0", date(2024, 1, 2), date(2024, 1, 12))
    make_bot("mes")
    (outcome,) = run_cohort(lab, ["mes"], snapshot_id=other.snapshot.snapshot_id)
    assert outcome.reason is not None
    assert outcome.reason.code is ReasonCode.INSTRUMENT_MISMATCH


def test_a_spoilt_bar_file_is_refused_by_cycle_and_reproduction(
    lab: LabContext, pulled: Pull, make_bot: MakeBot
) -> None:
    series = pulled()
    make_bot("spoilt")
    done = _one(lab, "spoilt")
    file = lab.lake / series.snapshot.files[0]["path"]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.chmod(0o644)
    file.write_bytes(content)
    outcome = _one(lab, "spoilt")
    assert outcome.reason is not None
    assert outcome.reason.code is ReasonCode.SNAPSHOT_CORRUPT
    with pytest.raises(Refused) as refused:
        reproduce(lab, str(done.session_id))
    assert refused.value.reason.code is ReasonCode.SNAPSHOT_CORRUPT


def test_reproduction_names_what_differs(lab: LabContext, pulled: Pull, make_bot: MakeBot) -> None:
    pulled()
    make_bot("twice", fast=5, slow=20)
    done = _one(lab, "twice")
    assert reproduce(lab, str(done.session_id)).identical
    with lab.store.session() as session:
        path = lab.lake / str(session.get_one(BacktestSession, done.session_id).trades_path)
    table = pq.read_table(path, partitioning=None)
    changed = table.to_pydict()
    changed["net_pnl_cents"][0] += 1
    pq.write_table(type(table).from_pydict(changed, schema=table.schema), path)
    again = reproduce(lab, str(done.session_id))
    assert not again.identical
    assert any("net_pnl_cents" in difference for difference in again.differences)


def test_one_bot_that_raises_does_not_take_the_cohort_down(
    lab: LabContext, pulled: Pull, make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Raises(type(strategy.FAMILIES["ma_cross"])):  # type: ignore[misc]
        name = "raises"

        def signals(self, arrays: object, params: object) -> object:
            raise ZeroDivisionError("in the strategy")

    monkeypatch.setattr(strategy, "FAMILIES", {**strategy.FAMILIES, "raises": Raises()})
    pulled()
    make_bot("broken", strategy="raises")
    make_bot("fine")
    broken, fine = run_cohort(lab, ["fine", "broken"])
    assert broken.status is JobStatus.FAILED
    assert broken.reason is not None
    assert (broken.reason.code, broken.reason.numbers["exception"]) == (ReasonCode.JOB_FAILED, "ZeroDivisionError")
    assert fine.status is JobStatus.COMPLETED


def test_an_unknown_bot_stops_the_cohort_before_any_work(lab: LabContext, make_bot: MakeBot) -> None:
    make_bot("known")
    with pytest.raises(InvalidRequest) as error:
        run_cohort(lab, ["known", "unknown"])
    assert error.value.reason.code is ReasonCode.NOT_FOUND
    with lab.store.session() as session:
        assert session.scalars(select(BotJob)).all() == []


def test_the_same_cycle_twice_gives_the_same_result_and_another_session(
    lab: LabContext, pulled: Pull, make_bot: MakeBot
) -> None:
    pulled()
    make_bot("same")
    first, second = _one(lab, "same"), _one(lab, "same")
    assert first.session_id != second.session_id
    assert first.metadata["backtest"]["result_hash"] == second.metadata["backtest"]["result_hash"]
    assert first.metadata["backtest"]["metrics"] == second.metadata["backtest"]["metrics"]


def test_due_bots_by_cadence(lab: LabContext, pulled: Pull, make_bot: MakeBot) -> None:
    pulled()
    now = datetime.now(UTC)
    make_bot("b-new")
    make_bot("a-new")
    make_bot("ran")
    run_cohort(lab, ["ran"])
    assert due_bots(lab, now, 10) == ["a-new", "b-new"]
    assert due_bots(lab, now, 1) == ["a-new"]
    later = now + timedelta(seconds=lab.policy.stages.LAB.cadence.BACKTEST.every_s + 60)
    assert due_bots(lab, later, 10) == ["a-new", "b-new", "ran"]


def _open_job(lab: LabContext, bot: Bot, key: int | None) -> UUID:
    with lab.store.session() as session:
        job = create_job(session, JobType.BACKTEST, trace_id="1" * 32, bot_id=bot.id, claim_key=key)
        move_job(session, job, JobStatus.RUNNING, now=lab.clock())
        return job.id


def test_a_bot_whose_job_is_under_way_is_left_out_however_long_it_takes(
    lab: LabContext, pulled: Pull, make_bot: MakeBot
) -> None:
    pulled()
    busy = make_bot("busy")
    make_bot("free")
    with claim(lab.store) as key:
        job_id = _open_job(lab, busy, key)
        assert "busy" not in due_bots(lab, lab.clock() + timedelta(days=3), 10)
        (outcome,) = run_cohort(lab, ["busy", "free"])
        assert outcome.bot.name == "free"
        with pytest.raises(Refused) as refused:
            run_cohort(lab, ["busy"])
        assert refused.value.reason.code is ReasonCode.ALREADY_RUNNING
        with lab.store.session() as session:
            assert session.get_one(BotJob, job_id).status == "RUNNING"
    # The process is gone: its claim went with its connection, and nothing has to wait for a time-out.
    (outcome,) = run_cohort(lab, ["busy"])
    assert outcome.status is JobStatus.COMPLETED
    with lab.store.session() as session:
        job = session.get_one(BotJob, job_id)
        assert job.status == "TIMEOUT"
        assert job.reason is not None
        assert job.reason["code"] == "HEARTBEAT_TIMEOUT"


def test_a_cycle_killed_in_the_middle_holds_nobody_back(lab: LabContext, pulled: Pull, make_bot: MakeBot) -> None:
    pulled()
    bot = make_bot("killed")
    code = (
        "import os, signal, sys\n"
        "from blaid_pipelines.lab import cycle\n"
        "from blaid_pipelines.lab.context import open_lab\n"
        "from blaid_pipelines.settings import load_settings\n"
        "cycle._finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with open_lab(load_settings()) as lab:\n"
        "    cycle.run_cohort(lab, ['killed'])\n"
    )
    environment = {**os.environ, **{k: str(v) for k, v in settings_environment(lab.settings).items() if v is not None}}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    with lab.store.session() as session:
        assert session.scalars(select(BotJob.status).where(BotJob.bot_id == bot.id)).all() == ["RUNNING"]
        assert session.scalars(select(BacktestSession)).all() == []

    def after() -> BotOutcome | None:  # the server needs a moment to see that its client is gone
        try:
            return _one(lab, "killed")
        except Refused:
            return None

    assert eventually(after, what="the dead claim is free").status is JobStatus.COMPLETED


def test_a_family_that_is_gone_fails_its_bot_alone(
    lab: LabContext, pulled: Pull, make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled()
    make_bot("gone", strategy="zscore_reversion")
    make_bot("stays")
    monkeypatch.setattr(strategy, "FAMILIES", {"ma_cross": strategy.FAMILIES["ma_cross"]})
    gone, stays = run_cohort(lab, ["gone", "stays"])
    assert gone.status is JobStatus.FAILED
    assert gone.reason is not None
    assert gone.reason.code is ReasonCode.STRATEGY_UNKNOWN
    assert stays.status is JobStatus.COMPLETED
    with lab.store.session() as session:
        assert set(session.scalars(select(BotJob.status).where(BotJob.bot_id.is_not(None)))) == {"FAILED", "COMPLETED"}


def test_a_bot_reset_in_mid_cycle_is_not_promoted(
    lab: LabContext, pulled: Pull, make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in IRONBEAM.items():
        monkeypatch.setenv(name, value)
    pulled(**WHOLE)
    bot = make_bot("reset")
    make_bot("calm")
    diagnose = cycle.diagnose

    def reset_then(*arguments: Any) -> Any:
        with lab.store.session() as session:
            session.execute(update(Bot).where(Bot.id == bot.id).values(reset_at=func.clock_timestamp()))
        return diagnose(*arguments)

    monkeypatch.setattr(cycle, "diagnose", reset_then)
    calm, reset = run_cohort(lab, ["reset", "calm"])
    assert reset.status is JobStatus.FAILED
    assert reset.reason is not None
    assert reset.reason.code is ReasonCode.BOT_CHANGED
    assert calm.metadata["promotion_decision"]["decision"] == "PROMOTE"
    with lab.store.session() as session:
        assert session.get_one(Bot, bot.id).stage == "LAB"


def test_two_cycles_of_one_bot_at_once_give_one_result(lab: LabContext, pulled: Pull, make_bot: MakeBot) -> None:
    pulled()
    make_bot("twin")
    together = Barrier(2)

    def run() -> JobStatus | ReasonCode:
        together.wait()
        try:
            return _one(lab, "twin").status
        except Refused as refused:
            return refused.reason.code

    with ThreadPoolExecutor(2) as threads:
        found = sorted(str(future.result()) for future in [threads.submit(run), threads.submit(run)])
    assert found in (["ALREADY_RUNNING", "COMPLETED"], ["COMPLETED", "COMPLETED"])
    with lab.store.session() as session:
        sessions = len(session.scalars(select(BacktestSession)).all())
    assert sessions == found.count("COMPLETED")


def test_costs_that_change_inside_the_range_refuse(lab: LabContext, pulled: Pull, make_bot: MakeBot) -> None:
    pulled()
    make_bot("dated")
    with lab.store.session() as session:
        session.add(
            InstrumentCost(
                symbol="MES",
                effective_from=date(2024, 1, 10),
                commission_per_side=5,
                fees_per_side=1,
                slippage_ticks=1,
                source="test",
            )
        )
    outcome = _one(lab, "dated")
    assert outcome.reason is not None
    assert outcome.reason.code is ReasonCode.COSTS_CHANGE_IN_RANGE
    assert outcome.metadata["promotion_decision"]["decision"] == "REFUSE"


def test_status_counts_what_left_what_was_recorded_and_what_arrived(
    lab: LabContext, pulled: Pull, make_bot: MakeBot
) -> None:
    pulled()
    make_bot("counted")
    run_cohort(lab, ["counted"])
    report = status_report(lab)
    proof = report["proof"]
    assert proof["calls"] == proof["rows"] == proof["sandbox_received"] > 0
    (line,) = report["bots"]
    expected = {"name", "stage", "instrument", "snapshot", "trades", "net_pnl", "max_drawdown_pct", "score", "tier"}
    assert expected | {"decision", "failing_gates"} <= line.keys()


def test_a_call_that_had_to_be_repeated_is_counted_and_the_evidence_cites_its_answer(
    store: Store, gateway: StartGateway, catalog: dict[str, Series]
) -> None:
    busy = Fault(endpoint="timeseries.get_range", status=503, detail="busy")
    with open_lab(gateway(series=[catalog["MES.c.0"]], faults=[busy]).settings) as lab:
        outcome = pull_series(lab, PullRequest("MES.c.0", midnight(date(2024, 1, 2)), midnight(date(2024, 1, 5))))
        proof = status_report(lab)["proof"]
        assert proof["calls"] == proof["rows"] == proof["sandbox_received"] == len(outcome.request_ids) + 1
        assert check_requests(lab.store, outcome.request_ids) == []
        assert check_requests(lab.store, snapshot_request_ids(outcome.snapshot)) == []
        with lab.store.session() as session:
            failed = session.scalars(select(ProviderRequest).where(ProviderRequest.success.is_(False))).one()
        assert (failed.error_code, failed.endpoint) == ("UPSTREAM_5XX", "timeseries.get_range")
        judge_series(lab, outcome.snapshot.snapshot_id)
        create_bot(lab, NewBot("scored", "MES", "ma_cross", {}, 2_500_000, symbol="MES.c.0"))
        scored = _one(lab, "scored").judgement.score
    reliability = next(part for part in scored.subscores if part.name == "data_reliability")
    assert reliability.evidence["requests"] == {"total": len(outcome.request_ids) + 1, "failed": 1, "unknown": 0}
    assert reliability.value is not None
    assert reliability.value < 1


def test_a_verdict_under_another_policy_does_not_count(
    lab: LabContext, pulled: Pull, make_bot: MakeBot, tmp_path: Path
) -> None:
    series = pulled()
    make_bot("mes")
    stricter = tmp_path / "policy.toml"
    stricter.write_text(default_policy_text().replace("min_bars = 1000", "min_bars = 1001"))
    other = replace(lab, policy=load_policy(stricter))
    assert other.policy.hash != lab.policy.hash
    (outcome,) = run_cohort(other, ["mes"])
    assert outcome.reason is not None
    assert outcome.reason.code is ReasonCode.DATA_QUALITY_UNKNOWN
    judge_series(other, series.snapshot.snapshot_id)
    (again,) = run_cohort(other, ["mes"])
    assert again.status is JobStatus.COMPLETED


def test_a_verdict_is_bound_to_its_snapshot(lab: LabContext, pulled: Pull) -> None:
    first, second = pulled(), pulled(end=date(2024, 1, 25), judged=False)
    verdict = judge_series(lab, second.snapshot.snapshot_id)
    assert verdict.snapshot_id == second.snapshot.snapshot_id != first.snapshot.snapshot_id
    assert verdict.content_hash == get_snapshot(lab.store, verdict.snapshot_id).content_hash


def test_a_call_that_met_no_server_is_a_row_that_nobody_received(
    lab: LabContext, pulled: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("BLAID_DATABENTO_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with open_lab(load_settings()) as away, pytest.raises(DependencyDown) as error:
            pull_series(away, PullRequest("MES.c.0", midnight(date(2024, 1, 2)), midnight(date(2024, 1, 5))))
    assert error.value.reason.code is ReasonCode.PROVIDER_UNREACHABLE
    assert status_report(lab)["proof"]["equal"] is True
    pulled()
    proof = status_report(lab)["proof"]
    assert (proof["equal"], proof["unreached"], proof["unknown"]) == (True, 1, 0)
    assert proof["calls"] == proof["rows"] == proof["sandbox_received"] + 1
