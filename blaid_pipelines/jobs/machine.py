"""The job state machine: the table of allowed moves and the one function that makes them.

A move updates the job and writes its event in one transaction; the database's own trigger refuses every other move, so
a caller that goes around this module fails. A job runs in the process that creates it, under a claim (``liveness``);
one whose process is gone is ended by :func:`end_dead_jobs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from blaid_pipelines.ids import new_id
from blaid_pipelines.jobs.liveness import is_abandoned
from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix
from blaid_pipelines.store.tables import BotJob, JobRunEvent

# A job without a claim that gave no sign for so long is dead; every job of this version has a claim.
DEAD_AFTER = timedelta(hours=1)


class JobType(StrEnum):
    """What a job does."""

    DATA_PULL = "DATA_PULL"
    DATA_QUOTE = "DATA_QUOTE"
    DATA_INGEST = "DATA_INGEST"
    INSTRUMENT_CHECK = "INSTRUMENT_CHECK"
    CONTRACT_IMPORT = "CONTRACT_IMPORT"
    RECONCILE = "RECONCILE"
    LAKE_CLEAN = "LAKE_CLEAN"
    BACKTEST = "BACKTEST"


class JobStatus(StrEnum):
    """Where a job is. All but QUEUED and RUNNING are terminal."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    REFUSED = "REFUSED"
    TIMEOUT = "TIMEOUT"


ALLOWED_MOVES: dict[JobStatus | None, frozenset[JobStatus]] = {
    None: frozenset({JobStatus.QUEUED}),
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.REFUSED, JobStatus.FAILED}),
    JobStatus.RUNNING: frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.REFUSED, JobStatus.TIMEOUT}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.REFUSED: frozenset(),
    JobStatus.TIMEOUT: frozenset(),
}


def create_job(
    session: Session,
    job_type: JobType,
    *,
    trace_id: str,
    bot_id: UUID | None = None,
    dagster_run_id: str | None = None,
    claim_key: int | None = None,
) -> BotJob:
    """Add one QUEUED job and its first event to ``session``; the database stamps it.

    A bot has one open job at most: the database refuses a second one (``uq_bot_jobs_open``).
    """
    job = BotJob(
        id=new_id(),
        bot_id=bot_id,
        job_type=job_type.value,
        status=JobStatus.QUEUED.value,
        trace_id=trace_id,
        dagster_run_id=dagster_run_id,
        claim_key=claim_key,
    )
    session.add(job)
    session.flush()
    session.add(JobRunEvent(job_id=job.id, from_status=None, to_status=job.status, trace_id=trace_id))
    return job


def move_job(session: Session, job: BotJob, to: JobStatus, *, now: datetime, reason: Reason | None = None) -> None:
    """Move ``job`` to ``to`` and write the event in the same transaction.

    Raises :class:`StopAndFix` (TRANSITION_NOT_ALLOWED) for a move that the table does not hold, and for a refusal,
    failure or time-out without a reason: nothing ends badly in silence.
    """
    current = JobStatus(job.status)
    needs_reason = to in {JobStatus.FAILED, JobStatus.REFUSED, JobStatus.TIMEOUT}
    if to not in ALLOWED_MOVES[current] or (needs_reason and reason is None):
        raise StopAndFix(
            Reason(
                ReasonCode.TRANSITION_NOT_ALLOWED,
                f"a {job.job_type} job cannot move from {current.value} to {to.value}"
                + (" without a reason" if needs_reason and reason is None else ""),
                "Start a new job instead of moving one that has ended.",
                {"job_id": str(job.id), "from": current.value, "to": to.value},
            )
        )
    payload: dict[str, Any] | None = None if reason is None else reason.as_dict()
    job.status = to.value
    if to is JobStatus.RUNNING:
        job.started_at = now
        job.last_heartbeat_at = now
    else:
        job.completed_at = now
        job.reason = payload
    session.flush()
    session.add(
        JobRunEvent(job_id=job.id, from_status=current.value, to_status=to.value, reason=payload, trace_id=job.trace_id)
    )


def end_dead_jobs(session: Session, *, now: datetime, silent_for: timedelta = DEAD_AFTER) -> list[BotJob]:
    """End every open job whose process is gone, with HEARTBEAT_TIMEOUT, and return them.

    RUNNING becomes TIMEOUT; a QUEUED job that never began becomes FAILED. A job with a claim is dead as soon as nobody
    holds the claim, and alive while somebody does, however long it takes; one without a claim is dead after
    ``silent_for`` without a sign. Jobs that another process is moving are left to it.
    """
    query = (
        select(BotJob)
        .where(BotJob.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]))
        .order_by(BotJob.created_at, BotJob.id)
        .with_for_update(skip_locked=True)
    )
    abandoned: dict[int, bool] = {}
    ended = []
    for job in session.scalars(query):
        silent = now - (job.last_heartbeat_at or job.created_at)
        if job.claim_key is None:
            dead = silent > silent_for
        else:
            if job.claim_key not in abandoned:
                abandoned[job.claim_key] = is_abandoned(session, job.claim_key)
            dead = abandoned[job.claim_key]
        if dead:
            _end_dead(session, job, now, silent)
            ended.append(job)
    return ended


def _end_dead(session: Session, job: BotJob, now: datetime, silent: timedelta) -> None:
    reason = Reason(
        ReasonCode.HEARTBEAT_TIMEOUT,
        "the process that worked on it is gone",
        "The next cycle starts a new job; the run's log says how far this one came.",
        {"silent_s": silent.total_seconds(), "claimed": job.claim_key is not None},
    )
    running = job.status == JobStatus.RUNNING
    move_job(session, job, JobStatus.TIMEOUT if running else JobStatus.FAILED, now=now, reason=reason)


def dead_run_ids(session: Session, runs: Mapping[str, int | None], *, now: datetime) -> set[str]:
    """Which of the given runs, by id, nobody works on any more; a run's value is the key of its own claim, if any.

    A run is dead when its claim is abandoned, or when a job that it worked on ended for want of a sign of life. Dead
    jobs are ended on the way.
    """
    end_dead_jobs(session, now=now)
    dead = {run_id for run_id, key in runs.items() if key is not None and is_abandoned(session, key)}
    ended = session.scalars(
        select(BotJob.dagster_run_id).where(
            BotJob.dagster_run_id.in_(list(runs)),
            BotJob.reason["code"].astext == ReasonCode.HEARTBEAT_TIMEOUT.value,
        )
    )
    return dead | {str(run_id) for run_id in ended}
