"""Series: bars of one symbol brought into the lake by a pull or from files and judged; the check of instrument rows.

Each is one job with its own trace id. What a pull or an ingest means is in ``market``; here are the job around it and
the metadata that proves what was used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from sqlalchemy import func, select

from blaid_pipelines.ids import new_trace_id
from blaid_pipelines.jobs.liveness import claim
from blaid_pipelines.jobs.machine import JobStatus, JobType, create_job, end_dead_jobs, move_job
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.lab.fallback import pull_or_fall_back, taken_back
from blaid_pipelines.market.definitions import DefinitionCheck, check_definitions
from blaid_pipelines.market.gate.quality import judge
from blaid_pipelines.market.intake.ingest import IngestRequest, ingest
from blaid_pipelines.market.lake.snapshots import current_head, get_snapshot
from blaid_pipelines.market.purchase.budget import PROVIDER
from blaid_pipelines.market.purchase.plan import PullPlan
from blaid_pipelines.market.purchase.pull import PullRequest, PullResult, quote_pull
from blaid_pipelines.proof.recorder import CallContext
from blaid_pipelines.reasons import BlaidError, InvalidRequest, Reason, ReasonCode, Refused
from blaid_pipelines.store.tables import BotJob, QualityVerdict, Snapshot

if TYPE_CHECKING:
    from blaid_pipelines.providers.databento.client import DatasetRange

Result = TypeVar("Result")

NEW_SERIES_DAYS = 90
"""Days of a new series that a pull without a range asks for."""

_watchers: list[Callable[[str], None]] = []


def parse_instant(name: str, value: str | None) -> datetime:
    """A day (``2024-01-02``) or an ISO time as an aware UTC time; a time without a zone is UTC, as Databento reads it.

    Raises :class:`InvalidRequest` naming the field.
    """
    problem = "neither a day nor an ISO time"
    try:
        instant = datetime.fromisoformat(value or "")
        if 1970 < instant.year < 2100:  # what bars may be of; a year less, so that no zone leads out of it
            return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
        problem = "outside 1971 to 2099"
    except ValueError:
        pass
    raise InvalidRequest(
        Reason(
            ReasonCode.INVALID_REQUEST,
            f"{name} is {value!r}, which is {problem}",
            "Give a day such as 2024-01-02, or a time such as 2024-01-02T14:30Z.",
            {"field": name, "value": value},
        )
    )


def usual_range(lab: LabContext, symbol: str, schema: str, dataset: str) -> tuple[datetime, datetime]:
    """The range to pull where nobody names one: what bots on the series read now, else the newest whole UTC days.

    For a series that has no bars yet the provider is asked, in a free call of its own DATA_QUOTE job, up to where its
    data goes; the range is the :data:`NEW_SERIES_DAYS` before that.
    """
    head = current_head(lab.store, symbol, schema)
    if head is not None:
        snapshot = get_snapshot(lab.store, head.snapshot_id)
        return snapshot.range_start, snapshot.range_end

    def work(context: CallContext) -> DatasetRange:
        from blaid_pipelines.providers.databento.client import DatabentoHistorical

        client = DatabentoHistorical(lab.settings, lab.recorder, context, max_attempts=_attempts(lab))
        return client.get_dataset_range(dataset)

    _, available = as_job(lab, JobType.DATA_QUOTE, work, None)
    begins, ends = available.by_schema.get(schema, (available.start, available.end))
    first, last = parse_instant("start", begins[:19]), min(parse_instant("end", ends[:19]), lab.clock())
    end = last.replace(hour=0, minute=0, second=0, microsecond=0)
    return max(first, end - timedelta(days=NEW_SERIES_DAYS)), end


@dataclass(frozen=True)
class SeriesOutcome:
    """A snapshot that a job made or found again, with the proof of what it used; ``metadata`` is JSON-ready."""

    snapshot: Snapshot
    trace_id: str
    request_ids: list[UUID]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class PullQuote:
    """What a pull would buy (None: nothing is missing), with the calls that were asked for it."""

    trace_id: str
    request_ids: list[UUID]
    plan: PullPlan | None


@dataclass(frozen=True)
class InstrumentsOutcome:
    """What a check of instruments found: contracts looked at by series, differences (none: all agree), calls."""

    trace_id: str
    contracts: dict[str, list[str]]
    reasons: list[Reason]
    request_ids: list[UUID]


@contextmanager
def watching_pulls(watcher: Callable[[str], None]) -> Iterator[None]:
    """Tell ``watcher`` the progress of every pull of this process inside the block, also of one that a job makes."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def pull_series(
    lab: LabContext,
    request: PullRequest,
    *,
    dagster_run_id: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> SeriesOutcome:
    """Pull what is missing of a series and snapshot the whole range, as one DATA_PULL job."""

    def say(text: str) -> None:
        for listener in ([] if progress is None else [progress]) + _watchers:
            listener(text)

    def work(context: CallContext) -> PullResult:
        return pull_or_fall_back(lab, context, request, say)

    trace_id, result = as_job(lab, JobType.DATA_PULL, work, dagster_run_id)
    budget = lab.policy.budgets.data
    extra: dict[str, Any] = {
        "quoted_usd": float(result.quoted_usd),
        "cost_usd": float(result.cost_usd),
        "spent_today_usd": None if result.spent_today_usd is None else float(result.spent_today_usd),
        "budget_usd_per_pull": float(budget.max_cost_usd_per_pull),
        "budget_usd_per_day": float(budget.max_cost_usd_per_day),
        "bars_pulled": result.bars_pulled,
        "months_pulled": result.months_pulled,
        "months_recovered": result.months_recovered,
        "ranges_pulled": [[start.isoformat(), end.isoformat()] for start, end in result.missing_ranges],
        "segments_reused": result.reused_segments,
        "data_ends_at": None if result.ends_at is None else result.ends_at.isoformat(),
        "source": result.snapshot.provenance["source"],
        "fallback_for": result.snapshot.provenance.get("fallback_for"),
    }
    return _outcome(lab, trace_id, result.snapshot, list(result.request_ids), extra)


def quote_series(lab: LabContext, request: PullRequest) -> PullQuote:
    """What a pull would buy now and what that would cost, as one DATA_QUOTE job of free calls. Buys nothing."""

    def work(context: CallContext) -> tuple[PullPlan | None, list[UUID]]:
        return quote_pull(
            lab.store,
            lab.settings,
            lab.recorder,
            lab.policy.budgets.data,
            context,
            taken_back(lab, request),
            limits=lab.policy.pulls,
            attempts=_attempts(lab),
        )

    trace_id, (plan, request_ids) = as_job(lab, JobType.DATA_QUOTE, work, None)
    return PullQuote(trace_id, request_ids, plan)


def _attempts(lab: LabContext) -> int:
    return lab.policy.stages.LAB.retry_limits.provider_attempts


def ingest_series(lab: LabContext, request: IngestRequest, *, dagster_run_id: str | None = None) -> SeriesOutcome:
    """Take bars from files and snapshot them, as one DATA_INGEST job. No external call is made."""

    def work(context: CallContext) -> Snapshot:
        return ingest(lab.store, lab.settings, context, request).snapshot

    trace_id, snapshot = as_job(lab, JobType.DATA_INGEST, work, dagster_run_id)
    return _outcome(lab, trace_id, snapshot, [], {"files": [path.name for path in request.files]})


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


def check_instruments(
    lab: LabContext, symbols: Sequence[str] = (), *, dagster_run_id: str | None = None
) -> InstrumentsOutcome:
    """Hold our instrument rows against Databento's definitions, as one INSTRUMENT_CHECK job.

    ``symbols`` are series; by default every series that was pulled. Each is looked up on the last day of its newest
    snapshot. Billed calls, within the budget.
    """
    days = _last_days(lab, symbols)

    def work(context: CallContext) -> list[DefinitionCheck]:
        budget = lab.policy.budgets.data
        return [
            check_definitions(
                lab.store, lab.settings, lab.recorder, budget, context, symbol, day, attempts=_attempts(lab)
            )
            for symbol, day in days.items()
        ]

    trace_id, checks = as_job(lab, JobType.INSTRUMENT_CHECK, work, dagster_run_id)
    return InstrumentsOutcome(
        trace_id=trace_id,
        contracts={symbol: check.contracts for symbol, check in zip(days, checks, strict=True)},
        reasons=[reason for check in checks for reason in check.reasons],
        request_ids=[request_id for check in checks for request_id in check.request_ids],
    )


def _last_days(lab: LabContext, symbols: Sequence[str]) -> dict[str, date]:
    query = (
        select(Snapshot.symbol, func.max(Snapshot.last_ts))
        .where(Snapshot.provenance["source"].astext == PROVIDER)
        .group_by(Snapshot.symbol)
        .order_by(Snapshot.symbol)
    )
    with lab.store.session() as session:
        pulled: dict[str, datetime] = {row[0]: row[1] for row in session.execute(query) if row[1] is not None}
    unknown = sorted(set(symbols) - pulled.keys())
    if unknown or not pulled:
        raise Refused(
            Reason(
                ReasonCode.SNAPSHOT_MISSING,
                f"no pulled bars of {', '.join(unknown)}" if unknown else "no series was pulled yet",
                "Pull the series first: definitions are looked up on the last day of its bars.",
                {"symbols": unknown},
            )
        )
    return {symbol: last.astimezone(UTC).date() for symbol, last in pulled.items() if not symbols or symbol in symbols}


def as_job(
    lab: LabContext, job_type: JobType, work: Callable[[CallContext], Result], dagster_run_id: str | None
) -> tuple[str, Result]:
    """Do ``work`` as one job with a trace id of its own; however it ends, the job ends too, with the reason."""
    with claim(lab.store) as key:
        return _under_claim(lab, job_type, work, dagster_run_id, key)


def _under_claim(
    lab: LabContext, job_type: JobType, work: Callable[[CallContext], Result], dagster_run_id: str | None, key: int
) -> tuple[str, Result]:
    trace_id = new_trace_id()
    with lab.store.session() as session:
        end_dead_jobs(session, now=lab.clock())
        job = create_job(session, job_type, trace_id=trace_id, dagster_run_id=dagster_run_id, claim_key=key)
        move_job(session, job, JobStatus.RUNNING, now=lab.clock())
        job_id = job.id
    try:
        result = work(CallContext(trace_id=trace_id, stage="LAB"))
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
    return trace_id, result


def _outcome(
    lab: LabContext, trace_id: str, snapshot: Snapshot, request_ids: list[UUID], extra: dict[str, Any]
) -> SeriesOutcome:
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
