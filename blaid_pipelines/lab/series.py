"""Series: bars of one symbol brought into the lake by a pull or from files, and judged by the quality gate.

Each is one job with its own trace id. What a pull or an ingest means is in ``market``; here are the job around it and
the metadata that proves what was used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from blaid_pipelines.ids import new_trace_id
from blaid_pipelines.jobs.machine import JobStatus, JobType, create_job, move_job
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.market.ingest import IngestRequest, ingest
from blaid_pipelines.market.pull import PullRequest, pull
from blaid_pipelines.market.quality import judge
from blaid_pipelines.market.snapshots import get_snapshot
from blaid_pipelines.proof.recorder import CallContext
from blaid_pipelines.reasons import BlaidError, InvalidRequest, Reason, ReasonCode, Refused
from blaid_pipelines.store.tables import BotJob, QualityVerdict, Snapshot


def parse_instant(name: str, value: str | None) -> datetime:
    """A day (``2024-01-02``) or an ISO time as an aware UTC time; a time without a zone is UTC, as Databento reads it.

    Raises :class:`InvalidRequest` naming the field.
    """
    try:
        instant = datetime.fromisoformat(value or "")
    except ValueError:
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"{name} is {value!r}, which is neither a day nor an ISO time",
                "Give a day such as 2024-01-02, or a time such as 2024-01-02T14:30Z.",
                {"field": name, "value": value},
            )
        ) from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


@dataclass(frozen=True)
class SeriesOutcome:
    """A snapshot that a job made or found again, with the proof of what it used; ``metadata`` is JSON-ready."""

    snapshot: Snapshot
    trace_id: str
    request_ids: list[UUID]
    metadata: dict[str, Any]


def pull_series(
    lab: LabContext,
    request: PullRequest,
    *,
    dagster_run_id: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> SeriesOutcome:
    """Pull what is missing of a series and snapshot the whole range, as one DATA_PULL job."""

    def work(context: CallContext) -> tuple[Snapshot, list[UUID], dict[str, Any]]:
        result = pull(lab.store, lab.settings, lab.recorder, lab.policy.budgets.data, context, request, progress)
        return (
            result.snapshot,
            list(result.request_ids),
            {
                "cost_usd": float(result.cost_usd),
                "bars_pulled": result.bars_pulled,
                "ranges_pulled": [[start.isoformat(), end.isoformat()] for start, end in result.missing_ranges],
                "segments_reused": result.reused_segments,
            },
        )

    return _as_job(lab, JobType.DATA_PULL, work, dagster_run_id)


def ingest_series(lab: LabContext, request: IngestRequest, *, dagster_run_id: str | None = None) -> SeriesOutcome:
    """Take bars from files and snapshot them, as one DATA_INGEST job. No external call is made."""

    def work(context: CallContext) -> tuple[Snapshot, list[UUID], dict[str, Any]]:
        result = ingest(lab.store, lab.settings, context, request)
        return result.snapshot, [], {"files": [path.name for path in request.files]}

    return _as_job(lab, JobType.DATA_INGEST, work, dagster_run_id)


def judge_series(lab: LabContext, snapshot_id: str, *, trace_id: str | None = None) -> QualityVerdict:
    """Put a snapshot through the quality gate and write the verdict, PASS or FAIL."""
    snapshot = get_snapshot(lab.store, snapshot_id)
    return judge(
        lab.store,
        lab.lake,
        snapshot,
        lab.policy.quality,
        policy_hash=lab.policy.hash,
        trace_id=trace_id or snapshot.trace_id,
    )


def _as_job(
    lab: LabContext,
    job_type: JobType,
    work: Callable[[CallContext], tuple[Snapshot, list[UUID], dict[str, Any]]],
    dagster_run_id: str | None,
) -> SeriesOutcome:
    trace_id = new_trace_id()
    with lab.store.session() as session:
        job = create_job(session, job_type, trace_id=trace_id, now=lab.clock(), dagster_run_id=dagster_run_id)
        move_job(session, job, JobStatus.RUNNING, now=lab.clock())
        job_id = job.id
    try:
        snapshot, request_ids, extra = work(CallContext(trace_id=trace_id, stage="LAB"))
    except BaseException as error:
        reason = (
            error.reason
            if isinstance(error, BlaidError)
            else Reason(
                ReasonCode.JOB_FAILED,
                f"{type(error).__name__}: {error}",
                "Read the log of this run; report the error with its trace id.",
                {"trace_id": trace_id},
            )
        )
        _end(lab, job_id, JobStatus.REFUSED if isinstance(error, Refused) else JobStatus.FAILED, reason)
        raise
    _end(lab, job_id, JobStatus.COMPLETED, None)
    metadata = {
        "trace_id": trace_id,
        "request_ids": [str(request_id) for request_id in request_ids],
        "snapshot_id": snapshot.snapshot_id,
        "content_hash": snapshot.content_hash,
        "policy_hash": lab.policy.hash,
        "symbol": snapshot.symbol,
        "schema": snapshot.schema,
        "bars": snapshot.bar_count,
        "simulated": snapshot.simulated,
        "contracts": list(snapshot.contracts),
        **extra,
    }
    return SeriesOutcome(snapshot, trace_id, request_ids, metadata)


def _end(lab: LabContext, job_id: UUID, status: JobStatus, reason: Reason | None) -> None:
    with lab.store.session() as session:
        move_job(session, session.get_one(BotJob, job_id), status, now=lab.clock(), reason=reason)
