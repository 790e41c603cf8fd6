"""The job state machine: every cell of the table of moves, in Python and in the database itself."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from blaid_pipelines.jobs.machine import ALLOWED_MOVES, JobStatus, JobType, create_job, move_job
from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import BotJob, JobRunEvent

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
REASON = Reason(ReasonCode.JOB_FAILED, "it broke", "mend it")
TRACE = "0af7651916cd43dd8448eb211c80319c"

# How a job gets to each state by allowed moves.
WAYS = {
    JobStatus.QUEUED: [],
    JobStatus.RUNNING: [JobStatus.RUNNING],
    JobStatus.COMPLETED: [JobStatus.RUNNING, JobStatus.COMPLETED],
    JobStatus.FAILED: [JobStatus.RUNNING, JobStatus.FAILED],
    JobStatus.REFUSED: [JobStatus.RUNNING, JobStatus.REFUSED],
    JobStatus.TIMEOUT: [JobStatus.RUNNING, JobStatus.TIMEOUT],
}
CELLS = [(origin, to, to in ALLOWED_MOVES[origin]) for origin, to in product(JobStatus, JobStatus)]


def _job_in(store: Store, status: JobStatus) -> BotJob:
    with store.session() as session:
        job = create_job(session, JobType.BACKTEST, trace_id=TRACE)
        for step in WAYS[status]:
            move_job(session, job, step, now=NOW, reason=REASON)
        session.flush()
        session.expunge(job)
    return job


@pytest.mark.parametrize(("origin", "to", "allowed"), CELLS)
def test_every_cell_of_the_table_holds_in_python_and_in_the_database(
    store: Store, origin: JobStatus, to: JobStatus, allowed: bool
) -> None:
    through_python, through_sql = _job_in(store, origin), _job_in(store, origin)
    if allowed:
        with store.session() as session:
            move_job(session, session.get_one(BotJob, through_python.id), to, now=NOW, reason=REASON)
        with store.session() as session:
            assert session.get_one(BotJob, through_python.id).status == to
            events = session.scalars(
                select(JobRunEvent).where(JobRunEvent.job_id == through_python.id).order_by(JobRunEvent.id)
            ).all()
            assert (events[-1].from_status, events[-1].to_status) == (origin, to)
        return
    with pytest.raises(StopAndFix) as refused, store.session() as session:
        move_job(session, session.get_one(BotJob, through_python.id), to, now=NOW, reason=REASON)
    assert refused.value.reason.code is ReasonCode.TRANSITION_NOT_ALLOWED
    if origin is not to:
        with pytest.raises(DBAPIError), store.session() as session:
            session.execute(
                text("UPDATE blaid.bot_jobs SET status = :to WHERE id = :id"), {"to": to.value, "id": through_sql.id}
            )


@pytest.mark.parametrize("to", [JobStatus.FAILED, JobStatus.REFUSED, JobStatus.TIMEOUT])
def test_a_job_never_ends_badly_without_a_reason(store: Store, to: JobStatus) -> None:
    job = _job_in(store, JobStatus.RUNNING)
    with pytest.raises(StopAndFix), store.session() as session:
        move_job(session, session.get_one(BotJob, job.id), to, now=NOW)
    with store.session() as session:
        assert session.get_one(BotJob, job.id).status == JobStatus.RUNNING


def test_a_move_and_its_event_are_one_transaction(store: Store) -> None:
    job = _job_in(store, JobStatus.RUNNING)

    def move_and_die() -> None:
        with store.session() as session:
            move_job(session, session.get_one(BotJob, job.id), JobStatus.COMPLETED, now=NOW)
            raise RuntimeError("after the move")

    with pytest.raises(RuntimeError, match="after the move"):
        move_and_die()
    with store.session() as session:
        assert session.get_one(BotJob, job.id).status == JobStatus.RUNNING
        count = len(session.scalars(select(JobRunEvent).where(JobRunEvent.job_id == job.id)).all())
    assert count == 2  # queued, running
