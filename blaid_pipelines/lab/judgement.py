"""From a backtest to a judgement: collects the evidence that gates and score read, and asks ``policy`` for both.

Nothing is decided here. Evidence that cannot be had is handed on as missing, and missing does not pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from blaid_pipelines.ids import new_id
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.lab.fallback import require_no_stand_in
from blaid_pipelines.lab.inputs import snapshot_request_ids
from blaid_pipelines.market.lake.provenance import check_snapshot_proof
from blaid_pipelines.market.lake.snapshots import resolve_snapshot
from blaid_pipelines.market.reconcile import require_reconciled
from blaid_pipelines.policy.autonomy import AutonomyEvidence, RequestOutcomes, Score, score
from blaid_pipelines.policy.gates import EvidenceIds, PromotionEvidence
from blaid_pipelines.policy.model import STAGE_LADDER, Stage
from blaid_pipelines.policy.promotion import PromotionVerdict, decide
from blaid_pipelines.providers.registry import configured_brokers
from blaid_pipelines.reasons import Reason, Refused
from blaid_pipelines.store.tables import Bot, ProviderRequest, QualityVerdict, Snapshot


@dataclass(frozen=True)
class JudgedSession:
    """What the judgement reads of a backtest session.

    Metrics, result, snapshot and verdict are None where there are none; ``started_at`` is the database's time of the
    job's creation; ``refusal`` is why a refused or failed session has no result.
    """

    session_id: UUID
    trace_id: str
    bot: Bot
    started_at: datetime
    metrics: dict[str, Any] | None
    result_hash: str | None
    snapshot: Snapshot | None
    verdict: QualityVerdict | None
    reproducible: bool | None
    strategy_hash: str
    refusal: Reason | None


@dataclass(frozen=True)
class Judgement:
    """The score and the verdict on one bot's move to the next stage, and the calls that both rest on."""

    score_id: UUID
    score: Score
    verdict: PromotionVerdict
    request_ids: list[UUID]


def judge_bot(lab: LabContext, done: JudgedSession) -> Judgement:
    """Score one session's bot and decide whether it may go up; reads committed rows, writes nothing."""
    snapshot, verdict = done.snapshot, done.verdict
    request_ids = [] if snapshot is None else snapshot_request_ids(snapshot)
    stage, target = Stage(done.bot.stage), _next_stage(Stage(done.bot.stage))
    quality = None if verdict is None else verdict.status
    made = score(
        AutonomyEvidence(
            stage=stage,
            quality_status=quality,
            requests=None if snapshot is None else _outcomes(lab, snapshot, request_ids),
            metrics=done.metrics,
            capital_cents=done.bot.capital_cents,
        ),
        lab.policy,
    )
    score_id = new_id()
    evidence = PromotionEvidence(
        metrics=done.metrics,
        quality_status=quality,
        proof_reasons=None if snapshot is None else _doubts(lab, snapshot, target),
        reproducible=done.reproducible,
        simulated=None if snapshot is None else snapshot.simulated,
        environment=lab.settings.env,
        configured_brokers=configured_brokers(lab.settings),
        from_stage=stage,
        to_stage=target,
        capital_cents=done.bot.capital_cents,
        post_reset=done.started_at >= done.bot.reset_at,
        snapshot_current=None if snapshot is None else _is_current(lab, done.bot, snapshot),
        ids=EvidenceIds(
            bot_id=str(done.bot.id),
            session_id=str(done.session_id),
            trace_id=done.trace_id,
            snapshot_id=None if snapshot is None else snapshot.snapshot_id,
            verdict_id=None if verdict is None else str(verdict.id),
            strategy_hash=done.strategy_hash,
            params_hash=done.bot.params_hash,
            result_hash=done.result_hash,
            request_ids=[str(request_id) for request_id in request_ids],
            score_id=str(score_id),
        ),
        refusal=done.refusal,
    )
    return Judgement(score_id, made, decide(evidence, lab.policy), request_ids)


def _doubts(lab: LabContext, snapshot: Snapshot, target: Stage) -> list[Reason]:
    """Why nothing may rest on the bars now: where they came from, what was found of them since, what they stand for."""
    reasons = check_snapshot_proof(lab.store, snapshot)
    try:
        require_reconciled(lab.store, snapshot, lab.policy.hash, lab.policy.reconciliation)
        require_no_stand_in(lab, target, snapshot)
    except Refused as error:
        reasons += error.reasons
    return reasons


def _is_current(lab: LabContext, bot: Bot, snapshot: Snapshot) -> bool:
    """Whether the bot would read this snapshot without being told to: nobody promotes a bot on bars of their choice."""
    try:
        return resolve_snapshot(lab.store, bot.instrument, bot.symbol, bot.schema).snapshot_id == snapshot.snapshot_id
    except Refused:
        return False


def _next_stage(stage: Stage) -> Stage:
    position = STAGE_LADDER.index(stage)
    return STAGE_LADDER[min(position + 1, len(STAGE_LADDER) - 1)]


def _outcomes(lab: LabContext, snapshot: Snapshot, request_ids: Sequence[UUID]) -> RequestOutcomes | None:
    """How the calls went that brought the bars: every attempt of their traces, failed ones too.

    Bars from files took no call; None where a snapshot from elsewhere cites none.
    """
    if not request_ids:
        return RequestOutcomes(0, 0, 0) if snapshot.provenance.get("source") == "file" else None
    traces = select(ProviderRequest.trace_id).where(ProviderRequest.id.in_(request_ids))
    with lab.store.session() as session:
        rows = session.execute(
            select(ProviderRequest.success, func.count())
            .where(ProviderRequest.trace_id.in_(traces))
            .group_by(ProviderRequest.success)
        ).all()
    counts: dict[bool | None, int] = {row.success: row[1] for row in rows}
    return RequestOutcomes(total=sum(counts.values()), failed=counts.get(False, 0), unknown=counts.get(None, 0))
