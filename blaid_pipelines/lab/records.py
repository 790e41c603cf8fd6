"""What a cycle leaves of one bot: the rows of its session, the result files, and the metadata that Dagster shows.

Pure translation of a finished run and its judgement; nothing is computed or decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.orm import Session

from blaid_pipelines.backtest.engine import ENGINE_VERSION, BacktestResult
from blaid_pipelines.ids import new_id
from blaid_pipelines.jobs.machine import JobStatus
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.lab.inputs import Inputs
from blaid_pipelines.lab.judgement import Judgement
from blaid_pipelines.lab.pictures import thinned
from blaid_pipelines.lab.results import result_path, write_result
from blaid_pipelines.reasons import Reason
from blaid_pipelines.store.tables import (
    AutonomyScore,
    BacktestDiagnostics,
    BacktestSession,
    Bot,
    PromotionDecision,
    QualityVerdict,
    Snapshot,
)

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Work:
    """One bot's place in a cohort; ``bot`` is the row as it was when the job began, detached."""

    bot: Bot
    job_id: UUID
    trace_id: str
    session_id: UUID


@dataclass(frozen=True)
class Run:
    """One bot's computation, as far as it came. ``reason`` says why it has no result."""

    work: Work
    strategy_hash: str
    status: JobStatus
    reason: Reason | None = None
    snapshot: Snapshot | None = None
    verdict: QualityVerdict | None = None
    inputs: Inputs | None = None
    result: BacktestResult | None = None
    diagnostics: dict[str, Any] | None = None
    reproducible: bool | None = None


def write_files(lab: LabContext, run: Run) -> None:
    """Write the trades and equity of a completed run to the lake."""
    if run.result is None:
        return
    assert run.snapshot is not None
    bot = run.work.bot
    identity = {
        "session_id": str(run.work.session_id),
        "bot_id": str(bot.id),
        "bot_name": bot.name,
        "instrument": bot.instrument,
        "strategy_family": bot.strategy_family,
        "strategy_hash": run.strategy_hash,
        "params_hash": bot.params_hash,
        "snapshot_id": run.snapshot.snapshot_id,
        "content_hash": run.snapshot.content_hash,
        "engine_version": ENGINE_VERSION,
    }
    for kind, table in (("trades", run.result.trades), ("equity", run.result.equity)):
        write_result(lab.lake, result_path(kind, bot.id, run.work.session_id), table, identity)


def store_run(lab: LabContext, session: Session, run: Run, judgement: Judgement) -> UUID:
    """Add session, diagnostics, score and decision to ``session``; returns the decision's id."""
    work = run.work
    session.add(_session_row(lab, run, judgement))
    session.flush()
    if run.diagnostics is not None:
        session.add(BacktestDiagnostics(session_id=work.session_id, payload=run.diagnostics))
    score, verdict = judgement.score, judgement.verdict
    scored = score.as_json()
    session.add(
        AutonomyScore(
            id=judgement.score_id,
            bot_id=work.bot.id,
            session_id=work.session_id,
            trace_id=work.trace_id,
            score=score.score,
            tier=score.tier.value,
            subscores=scored["subscores"],
            blockers=scored["blockers"],
            policy_hash=lab.policy.hash,
        )
    )
    session.flush()
    decision = PromotionDecision(
        id=new_id(),
        bot_id=work.bot.id,
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
        strategy_hash=run.strategy_hash,
        policy_hash=lab.policy.hash,
        request_ids=[str(value) for value in judgement.request_ids],
        decision_hash=verdict.decision_hash,
    )
    session.add(decision)
    session.flush()
    return decision.id


def _session_row(lab: LabContext, run: Run, judgement: Judgement) -> BacktestSession:
    bot, inputs, result, snapshot = run.work.bot, run.inputs, run.result, run.snapshot
    row = BacktestSession(
        id=run.work.session_id,
        bot_id=bot.id,
        job_id=run.work.job_id,
        trace_id=run.work.trace_id,
        status=run.status.value,
        reason=None if run.reason is None else run.reason.as_dict(),
        instrument=bot.instrument,
        symbol=bot.symbol if snapshot is None else snapshot.symbol,
        snapshot_id=None if snapshot is None else snapshot.snapshot_id,
        content_hash=None if snapshot is None else snapshot.content_hash,
        verdict_id=None if run.verdict is None else run.verdict.id,
        request_ids=[str(value) for value in judgement.request_ids],
        strategy_family=bot.strategy_family,
        strategy_hash=run.strategy_hash,
        params=dict(bot.params),
        params_hash=bot.params_hash,
        engine_version=ENGINE_VERSION,
        policy_hash=lab.policy.hash,
        spec={} if inputs is None else {**inputs.spec.as_json(), "sources": inputs.sources},
        capital_cents=bot.capital_cents,
    )
    if result is not None:
        row.trades = result.metrics.trades
        row.net_pnl_cents = result.metrics.net_pnl_cents
        row.max_drawdown_pct = result.metrics.max_drawdown_pct
        row.metrics = result.metrics.as_json()
        row.result_hash = result.result_hash
        row.trades_path = result_path("trades", bot.id, run.work.session_id)
        row.equity_path = result_path("equity", bot.id, run.work.session_id)
    return row


def metadata_of(lab: LabContext, run: Run, judgement: Judgement) -> dict[str, dict[str, Any]]:
    """JSON-ready metadata per asset, what a quant reads first; ``diagnostics`` only where there are some."""
    verdict, snapshot = judgement.verdict, run.snapshot
    proof = {
        "trace_id": run.work.trace_id,
        "session_id": str(run.work.session_id),
        "request_ids": [str(value) for value in judgement.request_ids],
        "snapshot_id": verdict.ids.snapshot_id,
        "content_hash": None if snapshot is None else snapshot.content_hash,
        "strategy_hash": run.strategy_hash,
        "policy_hash": lab.policy.hash,
    }
    metadata: dict[str, dict[str, Any]] = {
        "backtest": {
            "status": run.status.value,
            "reason": None if run.reason is None else run.reason.as_dict(),
            "metrics": None if run.result is None else run.result.metrics.as_json(),
            "result_hash": None if run.result is None else run.result.result_hash,
            "equity": None if run.result is None else _equity_curve(run.result.equity),
            **proof,
        },
        "autonomy_score": {**judgement.score.as_json(), **proof},
        "promotion_decision": {
            "decision": verdict.decision,
            "from_stage": verdict.from_stage.value,
            "to_stage": verdict.to_stage.value,
            "failing_gates": list(verdict.failing_gates),
            "gates": [gate.as_json() for gate in verdict.gates],
            "decision_hash": verdict.decision_hash,
            **proof,
        },
    }
    if run.diagnostics is not None:
        metadata["diagnostics"] = {"diagnostics": run.diagnostics, **proof}
    return metadata


def _equity_curve(equity: pa.Table) -> dict[str, list[Any]]:
    """Session dates and the balance in dollars at each session's end, thinned to what a picture shows."""
    balance = [cents / 100 for cents in equity.column("equity_cents").to_pylist()]
    if not balance:
        return {"session_date": [], "equity_usd": []}
    dates = equity.column("session_date").to_pylist()
    kept = thinned(balance)
    return {"session_date": [dates[row] for row in kept], "equity_usd": [balance[row] for row in kept]}
