"""The LAB cycle of a cohort: backtest, diagnostics, autonomy score, promotion decision, with evidence.

One call serves any number of bots. Each gets a job and a trace id; bars are loaded once per snapshot and shared; all
results of the cohort are written in one transaction, each bot's behind a savepoint of its own, so that a bot that is
refused or fails ends with a session, a decision and a reason and never takes the cohort down. A bot moves up in the
same savepoint, after its stored evidence was checked. The rules themselves are elsewhere: ``backtest`` knows fills,
``policy`` knows gates; the rows are made in ``records``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from blaid_pipelines.backtest.diagnostics import diagnose
from blaid_pipelines.backtest.engine import run_backtest
from blaid_pipelines.backtest.strategy import get_family
from blaid_pipelines.ids import new_id, new_trace_id
from blaid_pipelines.jobs.liveness import claim
from blaid_pipelines.jobs.machine import JobStatus, JobType, create_job, end_dead_jobs, move_job
from blaid_pipelines.lab.bots import find_bot
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.lab.evidence import check_evidence_in, check_proof_in
from blaid_pipelines.lab.inputs import InputCache, find_snapshot, gather_inputs, load_arrays
from blaid_pipelines.lab.judgement import JudgedSession, Judgement, judge_bot
from blaid_pipelines.lab.records import Run, Work, metadata_of, store_run, write_files
from blaid_pipelines.market.lake.snapshots import verdict_of
from blaid_pipelines.policy.stages import move_stage
from blaid_pipelines.reasons import BlaidError, InvalidRequest, Reason, ReasonCode, Refused, StopAndFix
from blaid_pipelines.store.tables import Bot, BotJob

Progress = Callable[[str], None]

# What a backtest read of its bot; a bot that differs from it when the result is stored was changed in between.
RUN_ON = (
    "instrument",
    "symbol",
    "schema",
    "strategy_family",
    "params_hash",
    "capital_cents",
    "contracts",
    "stage",
    "reset_at",
)


@dataclass
class BotOutcome:
    """What a cycle did with one bot. ``metadata`` holds JSON-ready values per asset of the cohort."""

    bot: Bot
    trace_id: str
    session_id: UUID
    status: JobStatus
    reason: Reason | None
    judgement: Judgement
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)


def run_cohort(
    lab: LabContext,
    bot_names: Sequence[str],
    *,
    dagster_run_id: str | None = None,
    snapshot_id: str | None = None,
    progress: Progress | None = None,
) -> list[BotOutcome]:
    """Run one cycle for each named bot and return the outcomes in name order.

    ``snapshot_id`` names the snapshot to use instead of the current one of each bot's series. Raises
    :class:`InvalidRequest` when a name is unknown, before any work, and :class:`Refused` (ALREADY_RUNNING) when every
    bot has another job under way; of several, the busy ones are left out and said. A refused or failing bot raises
    nothing.
    """
    say = progress or (lambda _text: None)
    with claim(lab.store) as key:
        cohort = _begin(lab, sorted(set(bot_names)), dagster_run_id, key, say)
        cache = InputCache()
        runs = []
        for work in cohort:
            run = _run_bot(lab, work, cache, snapshot_id)
            trades = "" if run.result is None else f", {run.result.metrics.trades} trades"
            why = "" if run.reason is None else f" ({run.reason})"
            say(f"{work.bot.name}: {run.status.value.lower()}{trades}{why}")
            runs.append(run)
        return _finish(lab, runs)


def _begin(lab: LabContext, names: Sequence[str], run_id: str | None, key: int, say: Progress) -> list[Work]:
    now = lab.clock()
    cohort, busy = [], []
    with lab.store.session() as session:
        bots = [find_bot(session, name) for name in names]
        end_dead_jobs(session, now=now)
        for bot in bots:
            trace_id = new_trace_id()
            try:
                with session.begin_nested():
                    job = create_job(
                        session,
                        JobType.BACKTEST,
                        trace_id=trace_id,
                        bot_id=bot.id,
                        dagster_run_id=run_id,
                        claim_key=key,
                    )
            except IntegrityError as error:
                if "uq_bot_jobs_open" not in str(error.orig):
                    raise
                busy.append(bot.name)
                say(f"{bot.name}: left out, another job of it is under way")
                continue
            move_job(session, job, JobStatus.RUNNING, now=now)
            cohort.append(Work(bot, job.id, trace_id, new_id()))
        session.flush()
        session.expunge_all()
    if busy and not cohort:
        raise Refused(
            Reason(
                ReasonCode.ALREADY_RUNNING,
                f"another job of {', '.join(busy)} is under way",
                "Wait for it to end; `blaid explain` names it with its trace id.",
                {"bots": busy},
            )
        )
    return cohort


def _run_bot(lab: LabContext, work: Work, cache: InputCache, snapshot_id: str | None) -> Run:
    run = Run(work, strategy_hash="UNKNOWN", status=JobStatus.FAILED)
    try:
        run = replace(run, strategy_hash=get_family(work.bot.strategy_family).source_hash)
        snapshot = find_snapshot(lab, work.bot, snapshot_id)
        run = replace(run, snapshot=snapshot, verdict=verdict_of(lab.store, snapshot.snapshot_id))
        inputs = gather_inputs(lab, work.bot, snapshot, cache)
        run = replace(run, inputs=inputs)
        result = run_backtest(inputs.spec, inputs.arrays)
        if snapshot.snapshot_id not in cache.again:
            cache.again[snapshot.snapshot_id] = load_arrays(lab, inputs.instrument, snapshot)
        again = run_backtest(inputs.spec, cache.again[snapshot.snapshot_id])
        return replace(
            run,
            result=result,
            diagnostics=diagnose(result, inputs.arrays, inputs.spec),
            reproducible=again.result_hash == result.result_hash,
            status=JobStatus.COMPLETED,
        )
    except Exception as error:  # noqa: BLE001 - a strategy may raise anything; its bot fails, the cohort goes on
        return _ended(run, error)


def _ended(run: Run, error: Exception) -> Run:
    """The run without a result, refused or failed for ``error``."""
    if isinstance(error, BlaidError):
        status, reason = JobStatus.REFUSED if isinstance(error, Refused) else JobStatus.FAILED, error.reason
    else:
        status = JobStatus.FAILED
        reason = Reason(
            ReasonCode.JOB_FAILED,
            f"the cycle raised {type(error).__name__}: {error}",
            "Mend the strategy or its parameters; the trace id leads to the run's log.",
            {"trace_id": run.work.trace_id, "exception": type(error).__name__},
        )
    return replace(run, result=None, diagnostics=None, reproducible=None, status=status, reason=reason)


def _finish(lab: LabContext, runs: Sequence[Run]) -> list[BotOutcome]:
    """Write result files, then every row of the cohort in one transaction."""
    written = []
    for run in runs:
        try:
            write_files(lab, run)
        except (OSError, BlaidError) as error:
            run = _ended(run, error)
        written.append(run)
    with lab.store.session() as session:
        return [_settle(lab, session, run) for run in written]


def _settle(lab: LabContext, session: Session, run: Run) -> BotOutcome:
    """Store one bot's results behind a savepoint; what cannot be stored as it is ends as a failed session."""
    try:
        with session.begin_nested():
            return _store(lab, session, run)
    except (BlaidError, IntegrityError) as error:
        with session.begin_nested():
            return _store(lab, session, _ended(run, error))


def _store(lab: LabContext, session: Session, run: Run) -> BotOutcome:
    work = run.work
    bot = session.scalars(select(Bot).where(Bot.id == work.bot.id).with_for_update()).one()
    if run.result is not None:
        _require_unchanged(work.bot, bot)
    job = session.get_one(BotJob, work.job_id)
    judgement = judge_bot(
        lab,
        JudgedSession(
            session_id=work.session_id,
            trace_id=work.trace_id,
            bot=work.bot,
            started_at=job.created_at,
            metrics=None if run.result is None else run.result.metrics.as_json(),
            result_hash=None if run.result is None else run.result.result_hash,
            snapshot=run.snapshot,
            verdict=run.verdict,
            reproducible=run.reproducible,
            strategy_hash=run.strategy_hash,
            refusal=run.reason,
        ),
    )
    decision_id = store_run(lab, session, run, judgement)
    metadata = metadata_of(lab, run, judgement)
    _require_evidence(session, run, metadata)
    verdict = judgement.verdict
    if verdict.promoted:
        move_stage(
            session, bot.id, verdict.to_stage, actor="lab_cycle", trace_id=work.trace_id, decision_id=decision_id
        )
    move_job(session, job, run.status, now=lab.clock(), reason=run.reason)
    return BotOutcome(work.bot, work.trace_id, work.session_id, run.status, run.reason, judgement, metadata)


def _require_unchanged(ran: Bot, now: Bot) -> None:
    changed = [name for name in RUN_ON if getattr(ran, name) != getattr(now, name)]
    if changed:
        raise InvalidRequest(
            Reason(
                ReasonCode.BOT_CHANGED,
                f"{now.name} was changed while its backtest ran: {', '.join(changed)}",
                "Backtest it again as it is now.",
                {"changed": changed},
            )
        )


def _require_evidence(session: Session, run: Run, metadata: dict[str, dict[str, Any]]) -> None:
    """What the assets' checks report is required here already: a bot never moves on evidence that does not hold."""
    cited = [UUID(value) for value in metadata["promotion_decision"]["request_ids"]]
    reasons = check_evidence_in(session, [metadata])
    if run.result is not None:
        reasons = [*check_proof_in(session, [run.work.trace_id], cited), *reasons]
    if reasons:
        raise StopAndFix(*reasons)
