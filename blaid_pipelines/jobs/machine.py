"""The job state machine: the table of allowed moves and the one function that makes them.

A move updates the job and writes its event in one transaction; the database's own trigger refuses every other move, so
a caller that goes around this module fails. Claims and leases are not here: a job of this version runs in the process
that creates it, and one whose process died is ended by :func:`end_stale_jobs`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from blaid_pipelines.ids import new_id
from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix
from blaid_pipelines.store.tables import BotJob, JobRunEvent


class JobType(StrEnum):
    """What a job does."""

    DATA_PULL = "DATA_PULL"
    DATA_INGEST = "DATA_INGEST"
    INSTRUMENT_CHECK = "INSTRUMENT_CHECK"
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
    now: datetime,
    bot_id: UUID | None = None,
    dagster_run_id: str | None = None,
) -> BotJob:
    """Add one QUEUED job and its first event to ``session``."""
    job = BotJob(
        id=new_id(),
        bot_id=bot_id,
        job_type=job_type.value,
        status=JobStatus.QUEUED.value,
        trace_id=trace_id,
        dagster_run_id=dagster_run_id,
        created_at=now,
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


def end_stale_jobs(session: Session, *, now: datetime, silent_for: timedelta) -> list[BotJob]:
    """Move every RUNNING job without a heartbeat for ``silent_for`` to TIMEOUT (HEARTBEAT_TIMEOUT) and return them.

    A QUEUED job that never began for as long ends as FAILED with the same reason. Jobs that another process is moving
    are left to it.
    """
    last_sign = func.coalesce(BotJob.last_heartbeat_at, BotJob.created_at)
    stale = session.scalars(
        select(BotJob)
        .where(BotJob.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]), last_sign < now - silent_for)
        .order_by(BotJob.created_at, BotJob.id)
        .with_for_update(skip_locked=True)
    ).all()
    for job in stale:
        silent = now - (job.last_heartbeat_at or job.created_at)
        reason = Reason(
            ReasonCode.HEARTBEAT_TIMEOUT,
            f"no sign of life for {silent.total_seconds():.0f} s, {silent_for.total_seconds():.0f} s are allowed",
            "Its process died or hangs; the next cycle starts a new job.",
            {"silent_s": silent.total_seconds(), "allowed_s": silent_for.total_seconds()},
        )
        running = job.status == JobStatus.RUNNING
        move_job(session, job, JobStatus.TIMEOUT if running else JobStatus.FAILED, now=now, reason=reason)
    return list(stale)
