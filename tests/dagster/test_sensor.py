"""The LAB sensor: whom it asks for, when it keeps still, and that it says why."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from blaid_pipelines.definitions import defs
from blaid_pipelines.jobs.machine import JobStatus, JobType, move_job
from blaid_pipelines.lab.bots import NewBot, create_bot
from blaid_pipelines.lab.context import open_lab
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import Bot, BotJob, JobRunEvent
from resources.lab import LabResource
from sensors.lab_cadence import tick

NOW = datetime(2024, 7, 1, 12, 0, 1, tzinfo=UTC)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance of its own."""
    with dg.instance_for_test() as fresh:
        yield fresh


def look(
    instance: dg.DagsterInstance, now: datetime = NOW, cursor: str | None = None
) -> tuple[list[dg.RunRequest], str | None, str | None]:
    """One tick at ``now``: run requests, the reason for skipping, the new cursor."""
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        result = tick(context, LabResource(), now)
    if isinstance(result, dg.SkipReason):
        return [], result.skip_message, None
    skip = result.skip_reason
    return list(result.run_requests or []), skip.skip_message if skip else None, result.cursor


def make_bots(settings: Settings, *names: str) -> None:
    with open_lab(settings) as lab:
        for name in names:
            create_bot(lab, NewBot(name, "MES", "ma_cross", {}, 2_500_000, symbol="MES.c.0"))


def add_job(store: Store, name: str, began: datetime, *, done: bool) -> None:
    with store.session() as session:
        bot = session.query(Bot).filter(Bot.name == name).one()
        trace_id = "a" * 32
        job = BotJob(
            bot_id=bot.id, job_type=JobType.BACKTEST, status=JobStatus.QUEUED, trace_id=trace_id, created_at=began
        )
        session.add(job)
        session.flush()
        session.add(JobRunEvent(job_id=job.id, to_status=JobStatus.QUEUED, trace_id=trace_id))
        move_job(session, job, JobStatus.RUNNING, now=began)
        if done:
            move_job(session, job, JobStatus.COMPLETED, now=began)


def names_in(requests: list[dg.RunRequest]) -> list[str]:
    (request,) = requests
    names: list[str] = request.run_config["ops"]["lab_cohort"]["config"]["bots"]
    return names


def test_without_bots_it_says_so(store: Store, instance: dg.DagsterInstance) -> None:
    requests, reason, cursor = look(instance)
    assert requests == []
    assert "No LAB bot is due" in str(reason)
    assert cursor == NOW.isoformat()


def test_due_bots_are_one_run_longest_waiting_first(
    settings: Settings, store: Store, instance: dg.DagsterInstance
) -> None:
    make_bots(settings, "new", "waited", "fresh", "busy")
    add_job(store, "waited", NOW - timedelta(hours=1), done=True)
    add_job(store, "fresh", NOW - timedelta(minutes=5), done=True)
    add_job(store, "busy", NOW - timedelta(minutes=20), done=False)
    requests, reason, _ = look(instance)
    assert reason is None
    assert names_in(requests) == ["new", "waited"]
    job = defs.resolve_job_def("lab_cycle")
    assert dg.validate_run_config(job, requests[0].run_config)


def test_a_cohort_is_asked_for_once_per_cadence_window(
    settings: Settings, store: Store, instance: dg.DagsterInstance
) -> None:
    make_bots(settings, "a")
    keys = [look(instance, NOW + timedelta(minutes=minutes))[0][0].run_key for minutes in (0, 2, 14, 16)]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    make_bots(settings, "b")
    assert look(instance)[0][0].run_key != keys[0]


def test_it_looks_no_more_often_than_the_policy_says(
    settings: Settings, store: Store, instance: dg.DagsterInstance
) -> None:
    make_bots(settings, "a")
    cursor = (NOW - timedelta(seconds=20)).isoformat()
    requests, reason, _ = look(instance, cursor=cursor)
    assert (requests, reason) == ([], "Looked 20 s ago; the policy looks every 60 s.")
    assert look(instance, NOW + timedelta(seconds=40), cursor=cursor)[0]
    # a clock that was set back must not silence the LAB
    assert look(instance, NOW - timedelta(days=1), cursor=cursor)[0]


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_it_waits_for_the_cohort_under_way(
    settings: Settings, store: Store, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    make_bots(settings, "a")
    run = instance.create_run_for_job(defs.resolve_job_def("lab_cycle"), status=status)
    requests, reason, _ = look(instance)
    assert requests == []
    assert run.run_id in str(reason)
    instance.report_run_canceled(run)
    assert look(instance)[0]


def test_a_database_that_is_away_fails_the_tick(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLAID_DATABASE_URL", "postgresql+psycopg2://nobody@127.0.0.1:1/none")
    with pytest.raises(dg.Failure) as failed:
        look(instance)
    assert failed.value.metadata["error_code"].value == "DATABASE_UNAVAILABLE"
