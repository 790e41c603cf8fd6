"""Real runs of the jobs on Dagster's own Postgres storage: what is recorded, what is refused, what blocks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import select, update

from assets.market import VERDICT_CHECK
from blaid_pipelines.definitions import defs
from blaid_pipelines.lab.bots import NewBot, create_bot
from blaid_pipelines.lab.context import open_lab
from blaid_pipelines.market.gate.checks import QUALITY_CHECKS
from blaid_pipelines.market.lake.snapshots import get_snapshot
from blaid_pipelines.proof.usage import proof_counts
from blaid_pipelines.reasons import InvalidRequest, ReasonCode, Refused
from blaid_pipelines.sandbox.synthetic import Defect, Recipe, synthesise
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import dagster_environment, open_store
from blaid_pipelines.store.tables import BotJob, Instrument, PromotionDecision, ProviderRequest
from resources.launch import JobResult, run_job_in_process, settings_environment
from resources.runs import end_dead_runs
from tests.sandbox.fixtures import StartGateway
from tests.support import eventually

DAYS = (date(2024, 3, 4), date(2024, 3, 9))


HOLE = Defect("gap", int(datetime(2024, 3, 5, 15, tzinfo=UTC).timestamp()) * 10**9, 240)


def recipe(symbol: str, **options: Any) -> Recipe:
    """A week and a bit of a series."""
    return Recipe(symbol, date(2024, 3, 1), date(2024, 3, 12), **options)


def pull(settings: Settings, symbol: str, **more: str) -> JobResult:
    """The job ``market_data`` for one series of the running gateway."""
    config = {"source": "pull", "start": str(DAYS[0]), "end": str(DAYS[1]), **more}
    return run_job_in_process(settings, "market_data", {"ops": {"bars": {"config": config}}}, partition_key=symbol)


def cycle(settings: Settings, *bots: str) -> JobResult:
    """The job ``lab_cycle`` for named bots, without a partition."""
    config = {"ops": {"lab_cohort": {"config": {"bots": list(bots)}}}}
    return run_job_in_process(settings, "lab_cycle", config)


@contextmanager
def instance_of(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The installation's Dagster instance, to look at what a run left."""
    for name, value in dagster_environment(settings).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        yield instance


def checks_of(instance: dg.DagsterInstance, run_id: str) -> dict[str, tuple[bool, dict[str, Any]]]:
    """Check evaluations of a run: name to (passed, metadata)."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    found = {}
    for record in records:
        evaluation = record.event_log_entry.dagster_event.asset_check_evaluation_data  # type: ignore[union-attr]
        metadata = {name: value.value for name, value in evaluation.metadata.items()}
        found[evaluation.check_name] = (evaluation.passed, metadata)
    return found


def test_from_bars_to_decisions_for_any_subset_of_bots(
    settings: Settings, gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = recipe("M2K.c.0", defects=(HOLE,))
    world = gateway(series=[synthesise(recipe("MES.c.0")), synthesise(spoilt)]).settings

    good = pull(world, "MES.c.0")
    good.raise_for_failure()
    bars = next(made for made in good.materialized if made.asset == "bars")
    assert bars.partition == "MES.c.0"
    again = pull(world, "MES.c.0")
    repeated = next(made.metadata for made in again.materialized if made.asset == "bars")
    assert (repeated["snapshot_id"], repeated["bars_pulled"]) == (bars.metadata["snapshot_id"], 0)

    bad = pull(world, "M2K.c.0")
    assert not bad.success
    assert isinstance(bad.failures[0], Refused)
    assert bad.failures[0].reason.code is ReasonCode.DATA_QUALITY_FAILED
    assert {"quality_verdict:session_gaps", "quality_verdict:verdict"} <= set(bad.failed_checks)
    verdict = next(made.metadata for made in bad.materialized if made.asset == "quality_verdict")
    assert verdict["status"] == "FAIL"
    assert "SESSION_GAP" in verdict["reason_codes"]
    found = "| session_gaps: SESSION_GAP | worst 240 minutes at session 20240305, 30 allowed |"
    assert found in verdict["findings"]
    assert verdict["checks_passed"] + verdict["checks_not_passed"] == len(QUALITY_CHECKS)

    with open_lab(world) as lab:
        for name, symbol in (("a", "MES.c.0"), ("b", "MES.c.0"), ("c", "MES.c.0"), ("barred", "M2K.c.0")):
            create_bot(lab, NewBot(name, symbol.split(".")[0], "ma_cross", {}, 2_500_000, symbol=symbol))
    cohort = cycle(world, "a", "c", "barred")
    cohort.raise_for_failure()
    made = {(item.asset, item.partition) for item in cohort.materialized}
    # what a cohort of hundreds writes every cycle stays small; the documents are in Postgres
    assert sum(len(json.dumps(dict(item.metadata))) for item in cohort.materialized if item.partition == "a") < 12_000
    assert made == {
        *((asset, bot) for asset in ("backtest", "diagnostics", "autonomy_score") for bot in ("a", "c")),
        *(("promotion_decision", bot) for bot in ("a", "c", "barred")),
    }
    decision = next(m.metadata for m in cohort.materialized if (m.asset, m.partition) == ("promotion_decision", "a"))
    assert decision["request_ids"]
    assert set(decision["request_ids"]) <= set(bars.metadata["request_ids"])
    assert decision["first_failing_gate"] in decision["gates"]
    for key in ("trace_id", "snapshot_id", "content_hash", "strategy_hash", "policy_hash", "decision_hash"):
        assert decision[key], key

    one = run_job_in_process(
        world, "lab_cycle", {"ops": {"lab_cohort": {"config": {}}}}, partition_key="b", tags={"why": "a click"}
    )
    one.raise_for_failure()
    assert {item.partition for item in one.materialized} == {"b"}

    unknown = cycle(world, "a", "nobody")
    assert isinstance(unknown.failures[0], InvalidRequest)
    assert unknown.failures[0].reason.code is ReasonCode.NOT_FOUND
    nobody = cycle(world)
    assert nobody.failures[0].reason.code is ReasonCode.INVALID_REQUEST

    with instance_of(world, monkeypatch) as instance:
        assert set(instance.get_dynamic_partitions("bots")) == {"a", "b", "c", "barred"}
        assert instance.get_materialized_partitions(dg.AssetKey("backtest")) == {"a", "b", "c"}
        observed = instance.fetch_observations(dg.AssetKey("backtest"), limit=5).records
        assert [record.partition_key for record in observed] == ["barred"]
        assert observed[0].asset_observation is not None
        assert observed[0].asset_observation.metadata["reason_code"].value == "DATA_QUALITY_FAILED"
        proof = checks_of(instance, cohort.run_id)
        assert {name: passed for name, (passed, _) in proof.items()} == {
            "proof_both_ways": True,
            "evidence_complete": True,
        }
        assert proof["proof_both_ways"][1]["bots"] == 3
        assert instance.get_run_by_id(one.run_id).tags["why"] == "a click"  # type: ignore[union-attr]
    with open_lab(world) as lab, lab.store.session() as session:
        assert len(session.scalars(select(PromotionDecision)).all()) == 4
        cited = set(bars.metadata["request_ids"]) | set(repeated["request_ids"])
        rows = session.scalars(select(ProviderRequest).where(ProviderRequest.symbol == "MES.c.0")).all()
        assert {str(row.id) for row in rows if row.success} <= cited


def test_a_judge_that_raises_leaves_every_check_failed_and_unknown(
    settings: Settings, gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = gateway(series=[synthesise(recipe("MES.c.0"))]).settings
    snapshot_id = next(m.metadata["snapshot_id"] for m in pull(world, "MES.c.0").materialized if m.asset == "bars")
    for file in world.lake.rglob("*.parquet"):
        file.write_bytes(b"spoilt")
    with instance_of(world, monkeypatch) as instance:
        result = defs.resolve_job_def("market_data").execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey("quality_verdict")],
            partition_key="MES.c.0",
            run_config={"ops": {"quality_verdict": {"config": {"snapshot_id": snapshot_id}}}},
            raise_on_error=False,
        )
        assert not result.success
        checks = checks_of(instance, result.run_id)
        assert set(checks) == {*QUALITY_CHECKS, VERDICT_CHECK}
        assert not any(passed for passed, _ in checks.values())
        assert {metadata["status"] for _, metadata in checks.values()} == {"UNKNOWN"}
        assert "SNAPSHOT_CORRUPT" in checks[VERDICT_CHECK][1]["error"]
        assert instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey("quality_verdict")), limit=10
        ).records[0].run_id != result.run_id  # fmt: skip


@pytest.fixture(scope="module")
def quick_instance() -> Iterator[dg.DagsterInstance]:
    """An instance without Postgres, for runs that end before they do anything."""
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("instruments", ["MES.c.0"])
        yield instance


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        ({"source": "carrier pigeon"}, "source"),
        ({"source": "pull", "end": "2024-01-03"}, "start"),
        ({"source": "pull", "start": "2024-01-02", "end": "soon"}, "end"),
        ({"source": "pull", "start": "2024-01-02T25:00Z", "end": "2024-01-03"}, "start"),
        ({"source": "file"}, "files"),
    ],
)
def test_bars_refuse_a_config_that_leaves_something_open(
    settings: Settings, quick_instance: dg.DagsterInstance, config: dict[str, Any], setting: str
) -> None:
    result = defs.resolve_job_def("market_data").execute_in_process(
        instance=quick_instance,
        partition_key="MES.c.0",
        run_config={"ops": {"bars": {"config": config}}},
        raise_on_error=False,
    )
    failure = next(event.step_failure_data for event in result.all_events if event.is_step_failure)
    assert failure.user_failure_data is not None
    reasons: Any = failure.user_failure_data.metadata["reasons"].value
    numbers = reasons[0]["numbers"]
    assert (reasons[0]["code"], numbers.get("setting") or numbers.get("field")) == ("INVALID_REQUEST", setting)


def test_instruments_are_held_against_the_provider_definitions(settings: Settings, gateway: StartGateway) -> None:
    world = gateway(series=[synthesise(recipe("MES.c.0"))]).settings
    nothing = run_job_in_process(world, "reference_data")
    assert nothing.failures[0].reason.code is ReasonCode.SNAPSHOT_MISSING

    pull(world, "MES.c.0").raise_for_failure()
    agreed = run_job_in_process(world, "reference_data")
    agreed.raise_for_failure()
    with open_lab(world) as lab:
        counts = proof_counts(lab.store, lab.settings)
        assert counts.equal
        with lab.store.session() as session:
            session.execute(update(Instrument).where(Instrument.symbol == "MES").values(point_value=50))
    differs = run_job_in_process(world, "reference_data")
    assert differs.failed_checks == ("instruments:matches_definitions",)
    assert isinstance(differs.failures[0], Refused)


def test_a_killed_run_holds_up_nobody(
    settings: Settings, gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = gateway(series=[synthesise(recipe("MES.c.0"))]).settings
    code = (
        "import os, signal\n"
        "from blaid_pipelines.lab import series\n"
        "from blaid_pipelines.settings import load_settings\n"
        "from resources.commands import run_market_data\n"
        "series.pull_or_fall_back = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"run_market_data(load_settings(), 'MES.c.0', {{'source': 'pull', 'data_schema': 'ohlcv-1m',"
        f" 'start': '{DAYS[0]}', 'end': '{DAYS[1]}'}})\n"
    )
    values = {name: value for name, value in settings_environment(world).items() if value is not None}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **values}, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]

    with open_lab(world) as lab, instance_of(world, monkeypatch) as instance:
        (left,) = instance.get_runs()
        assert left.status is dg.DagsterRunStatus.STARTED
        ended = eventually(lambda: end_dead_runs(instance, lab.store, datetime.now(UTC)), what="the claim is free")
        assert ended == [left.run_id]
        assert instance.get_run_by_id(left.run_id).status is dg.DagsterRunStatus.FAILURE  # type: ignore[union-attr]
        assert end_dead_runs(instance, lab.store, datetime.now(UTC)) == []
        with lab.store.session() as session:
            job = session.scalars(select(BotJob)).one()
            assert (job.status, job.job_type) == ("TIMEOUT", "DATA_PULL")
    pull(world, "MES.c.0").raise_for_failure()


def test_bars_are_held_against_the_backup_with_the_defaults(settings: Settings, gateway: StartGateway) -> None:
    world = gateway(series=[synthesise(recipe("MES.c.0"))]).settings
    pull(world, "MES.c.0").raise_for_failure()
    run = run_job_in_process(world, "reconcile", {}, partition_key="MES.c.0")
    run.raise_for_failure()
    made = next(made for made in run.materialized if made.asset == "reconciliation")
    assert (made.partition, made.metadata["status"], made.metadata["kind"]) == ("MES.c.0", "PASS", "backup")
    assert run.failed_checks == ()


def test_the_launchpad_defaults_work_on_a_new_series_and_on_a_known_one(
    settings: Settings, gateway: StartGateway
) -> None:
    world = gateway(series=[synthesise(recipe("MES.c.0"))]).settings
    first, again = (run_job_in_process(world, "market_data", {}, partition_key="MES.c.0") for _ in range(2))
    for run in (first, again):
        run.raise_for_failure()
    bars = [next(made.metadata for made in run.materialized if made.asset == "bars") for run in (first, again)]
    assert bars[0]["snapshot_id"] == bars[1]["snapshot_id"]
    assert bars[0]["bars_pulled"] > 0
    assert bars[1]["bars_pulled"] == 0
    with open_store(world) as store:
        snapshot = get_snapshot(store, str(bars[0]["snapshot_id"]))
    served = recipe("MES.c.0")
    assert (snapshot.range_start.date(), snapshot.range_end.date()) == (served.start, served.end)
