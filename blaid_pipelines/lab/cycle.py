"""The LAB cycle of a cohort: backtest, diagnostics, autonomy score, promotion decision, with evidence.

One call serves any number of bots. Each gets a job and a trace id; bars are loaded once per snapshot and shared; all
results of the cohort are written in one transaction at the end. A bot that is refused or fails ends with a session row,
a decision row and a reason like every other; it never takes the cohort down. The rules themselves are elsewhere:
``backtest`` knows fills, ``policy`` knows gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from blaid_pipelines.backtest.diagnostics import diagnose
from blaid_pipelines.backtest.engine import ENGINE_VERSION, BacktestResult, run_backtest
from blaid_pipelines.backtest.strategy import get_family
from blaid_pipelines.ids import new_id, new_trace_id
from blaid_pipelines.jobs.machine import JobStatus, JobType, create_job, move_job
from blaid_pipelines.lab.bots import find_bot
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.lab.inputs import InputCache, Inputs, gather_inputs
from blaid_pipelines.lab.judgement import JudgedSession, Judgement, judge_bot
from blaid_pipelines.lab.results import result_path, write_result
from blaid_pipelines.policy.stages import move_stage
from blaid_pipelines.reasons import BlaidError, Reason, ReasonCode, Refused
from blaid_pipelines.store.tables import (
    AutonomyScore,
    BacktestDiagnostics,
    BacktestSession,
    Bot,
    BotJob,
    PromotionDecision,
)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """One bot's place in a cohort."""

    bot: Bot
    job_id: UUID
    trace_id: str
    session_id: UUID


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


@dataclass(frozen=True)
class _Run:
    """A finished computation, before anything of it is stored."""

    work: Work
    inputs: Inputs | None
    result: BacktestResult | None
    diagnostics: dict[str, Any] | None
    reproducible: bool | None
    status: JobStatus
    reason: Reason | None


def run_cohort(
    lab: LabContext,
    bot_names: Sequence[str],
    *,
    dagster_run_id: str | None = None,
    snapshot_id: str | None = None,
    progress: Progress | None = None,
) -> list[BotOutcome]:
    """Run one cycle for each named bot and return the outcomes in name order.

    ``snapshot_id`` names the snapshot to use instead of the newest of each bot's series. Raises
    :class:`InvalidRequest` when a name is unknown, before any work; a refused or failing bot raises nothing.
    """
    say = progress or (lambda _text: None)
    cohort = _begin(lab, sorted(set(bot_names)), dagster_run_id)
    cache = InputCache()
    runs = []
    for work in cohort:
        run = _run_bot(lab, work, cache, snapshot_id)
        trades = "" if run.result is None else f", {run.result.metrics.trades} trades"
        say(f"{work.bot.name}: {run.status.value.lower()}{trades}" + ("" if run.reason is None else f" ({run.reason})"))
        runs.append(run)
    return _finish(lab, runs)


def _begin(lab: LabContext, names: Sequence[str], dagster_run_id: str | None) -> list[Work]:
    now = lab.clock()
    cohort = []
    with lab.store.session() as session:
        for name in names:
            bot = find_bot(session, name)
            trace_id = new_trace_id()
            job = create_job(
                session, JobType.BACKTEST, trace_id=trace_id, now=now, bot_id=bot.id, dagster_run_id=dagster_run_id
            )
            move_job(session, job, JobStatus.RUNNING, now=now)
            cohort.append(Work(bot, job.id, trace_id, new_id()))
        session.flush()
        session.expunge_all()
    return cohort


def _run_bot(lab: LabContext, work: Work, cache: InputCache, snapshot_id: str | None) -> _Run:
    inputs: Inputs | None = None
    try:
        inputs = gather_inputs(lab, work.bot, cache, snapshot_id=snapshot_id)
        result = run_backtest(inputs.spec, inputs.arrays)
        again = run_backtest(inputs.spec, inputs.arrays)
        diagnostics = diagnose(result, inputs.arrays, inputs.spec)
    except Refused as error:
        return _Run(work, inputs, None, None, None, JobStatus.REFUSED, error.reason)
    except BlaidError as error:
        return _Run(work, inputs, None, None, None, JobStatus.FAILED, error.reason)
    except Exception as error:  # noqa: BLE001 - a strategy may raise anything; its bot fails, the cohort goes on
        reason = Reason(
            ReasonCode.JOB_FAILED,
            f"the backtest raised {type(error).__name__}: {error}",
            "Mend the strategy or its parameters; the trace id leads to the run's log.",
            {"trace_id": work.trace_id, "exception": type(error).__name__},
        )
        return _Run(work, inputs, None, None, None, JobStatus.FAILED, reason)
    reproducible = again.result_hash == result.result_hash
    return _Run(work, inputs, result, diagnostics, reproducible, JobStatus.COMPLETED, None)


def _finish(lab: LabContext, runs: Sequence[_Run]) -> list[BotOutcome]:
    """Write result files, then every row of the cohort in one transaction."""
    for run in runs:
        _write_files(lab, run)
    judgements = [judge_bot(lab, _judged(run)) for run in runs]
    now = lab.clock()
    outcomes = []
    with lab.store.session() as session:
        for run, judgement in zip(runs, judgements, strict=True):
            _store(lab, session, run, judgement, now)
            outcomes.append(_outcome(lab, run, judgement))
    return outcomes


def _judged(run: _Run) -> JudgedSession:
    return JudgedSession(
        session_id=run.work.session_id,
        trace_id=run.work.trace_id,
        bot=run.work.bot,
        metrics=None if run.result is None else run.result.metrics.as_json(),
        result_hash=None if run.result is None else run.result.result_hash,
        snapshot=None if run.inputs is None else run.inputs.snapshot,
        verdict=None if run.inputs is None else run.inputs.verdict,
        reproducible=run.reproducible,
        strategy_hash=get_family(run.work.bot.strategy_family).source_hash,
        refusal=run.reason,
    )


def _identity(run: _Run) -> dict[str, str]:
    assert run.inputs is not None
    bot = run.work.bot
    return {
        "session_id": str(run.work.session_id),
        "bot_id": str(bot.id),
        "bot_name": bot.name,
        "instrument": bot.instrument,
        "strategy_family": bot.strategy_family,
        "strategy_hash": get_family(bot.strategy_family).source_hash,
        "params_hash": bot.params_hash,
        "snapshot_id": run.inputs.snapshot.snapshot_id,
        "content_hash": run.inputs.snapshot.content_hash,
        "engine_version": ENGINE_VERSION,
    }


def _write_files(lab: LabContext, run: _Run) -> None:
    if run.result is None:
        return
    identity = _identity(run)
    for kind, table in (("trades", run.result.trades), ("equity", run.result.equity)):
        write_result(lab.lake, result_path(kind, run.work.bot.id, run.work.session_id), table, identity)


def _store(lab: LabContext, session: Session, run: _Run, judgement: Judgement, now: datetime) -> None:
    bot, work = run.work.bot, run.work
    session.add(_session_row(lab, run, now))
    session.flush()
    if run.diagnostics is not None:
        session.add(BacktestDiagnostics(session_id=work.session_id, payload=run.diagnostics))
    score, verdict = judgement.score, judgement.verdict
    stored = score.as_json()
    session.add(
        AutonomyScore(
            id=judgement.score_id,
            bot_id=bot.id,
            session_id=work.session_id,
            trace_id=work.trace_id,
            score=score.score,
            tier=score.tier.value,
            subscores=stored["subscores"],
            blockers=stored["blockers"],
            policy_hash=lab.policy.hash,
        )
    )
    session.flush()
    decision = PromotionDecision(
        id=new_id(),
        bot_id=bot.id,
        session_id=work.session_id,
        score_id=judgement.score_id,
        trace_id=work.trace_id,
        from_stage=verdict.from_stage.value,
        to_stage=verdict.to_stage.value,
        decision=verdict.decision,
        gate_set=verdict.gate_set,
        gates=[gate.as_json() for gate in verdict.gates],
        failing_gates=list(verdict.failing_gates),
        snapshot_id=verdict.ids.snapshot_id,
        strategy_hash=get_family(bot.strategy_family).source_hash,
        policy_hash=lab.policy.hash,
        request_ids=[str(value) for value in judgement.request_ids],
        decision_hash=verdict.decision_hash,
    )
    session.add(decision)
    session.flush()
    if verdict.promoted:
        move_stage(
            session, bot.id, verdict.to_stage, actor="lab_cycle", trace_id=work.trace_id, decision_id=decision.id
        )
    move_job(session, session.get_one(BotJob, work.job_id), run.status, now=now, reason=run.reason)


def _session_row(lab: LabContext, run: _Run, now: datetime) -> BacktestSession:
    bot, inputs, result = run.work.bot, run.inputs, run.result
    row = BacktestSession(
        id=run.work.session_id,
        bot_id=bot.id,
        job_id=run.work.job_id,
        trace_id=run.work.trace_id,
        status=run.status.value,
        reason=None if run.reason is None else run.reason.as_dict(),
        instrument=bot.instrument,
        symbol=bot.symbol,
        request_ids=[],
        strategy_family=bot.strategy_family,
        strategy_hash=get_family(bot.strategy_family).source_hash,
        params=dict(bot.params),
        params_hash=bot.params_hash,
        engine_version=ENGINE_VERSION,
        policy_hash=lab.policy.hash,
        spec={},
        capital_cents=bot.capital_cents,
        created_at=now,
    )
    if inputs is not None:
        row.symbol = inputs.snapshot.symbol
        row.snapshot_id = inputs.snapshot.snapshot_id
        row.content_hash = inputs.snapshot.content_hash
        row.verdict_id = inputs.verdict.id
        row.request_ids = [str(value) for value in inputs.request_ids]
        row.spec = {**inputs.spec.as_json(), "sources": inputs.sources}
    if result is not None:
        row.trades = result.metrics.trades
        row.net_pnl_cents = result.metrics.net_pnl_cents
        row.max_drawdown_pct = result.metrics.max_drawdown_pct
        row.metrics = result.metrics.as_json()
        row.result_hash = result.result_hash
        row.trades_path = result_path("trades", bot.id, run.work.session_id)
        row.equity_path = result_path("equity", bot.id, run.work.session_id)
    return row


def _outcome(lab: LabContext, run: _Run, judgement: Judgement) -> BotOutcome:
    bot, inputs, verdict = run.work.bot, run.inputs, judgement.verdict
    proof = {
        "trace_id": run.work.trace_id,
        "session_id": str(run.work.session_id),
        "request_ids": [str(value) for value in judgement.request_ids],
        "snapshot_id": verdict.ids.snapshot_id,
        "content_hash": None if inputs is None else inputs.snapshot.content_hash,
        "strategy_hash": get_family(bot.strategy_family).source_hash,
        "policy_hash": lab.policy.hash,
    }
    metrics = None if run.result is None else run.result.metrics.as_json()
    metadata: dict[str, dict[str, Any]] = {
        "backtest": {
            **proof,
            "status": run.status.value,
            "reason": None if run.reason is None else run.reason.as_dict(),
            "metrics": metrics,
            "result_hash": None if run.result is None else run.result.result_hash,
        },
        "promotion_decision": {
            **proof,
            "decision": verdict.decision,
            "from_stage": verdict.from_stage.value,
            "to_stage": verdict.to_stage.value,
            "failing_gates": list(verdict.failing_gates),
            "gates": [gate.as_json() for gate in verdict.gates],
            "decision_hash": verdict.decision_hash,
        },
    }
    if run.diagnostics is not None:
        metadata["diagnostics"] = {**proof, "diagnostics": run.diagnostics}
    metadata["autonomy_score"] = {**proof, **judgement.score.as_json()}
    return BotOutcome(bot, run.work.trace_id, run.work.session_id, run.status, run.reason, judgement, metadata)
