"""From a backtest to a judgement: collects the evidence that gates and score read, and asks ``policy`` for both.

Nothing is decided here. Evidence that cannot be had is handed on as missing, and missing does not pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from blaid_pipelines.ids import new_id
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.lab.inputs import snapshot_request_ids
from blaid_pipelines.market.snapshots import resolve_snapshot, verdict_of
from blaid_pipelines.policy.autonomy import AutonomyEvidence, RequestOutcomes, Score, score
from blaid_pipelines.policy.gates import EvidenceIds, PromotionEvidence
from blaid_pipelines.policy.model import STAGE_LADDER, Stage
from blaid_pipelines.policy.promotion import PromotionVerdict, decide
from blaid_pipelines.proof.usage import check_requests
from blaid_pipelines.providers.registry import configured_brokers
from blaid_pipelines.reasons import Reason, ReasonCode, Refused
from blaid_pipelines.store.tables import Bot, ProviderRequest, QualityVerdict, Snapshot


@dataclass(frozen=True)
class JudgedSession:
    """What the judgement reads of a backtest session; metrics, result and snapshot are None where there are none."""

    session_id: UUID
    trace_id: str
    bot: Bot
    metrics: dict[str, Any] | None
    result_hash: str | None
    snapshot: Snapshot | None
    verdict: QualityVerdict | None
    reproducible: bool | None
    strategy_hash: str
    refusal: Reason | None  # why a refused or failed session has no result


@dataclass(frozen=True)
class Judgement:
    """The score and the verdict on one bot's move to the next stage."""

    score_id: UUID
    score: Score
    verdict: PromotionVerdict
    request_ids: list[UUID]


def judge_bot(lab: LabContext, done: JudgedSession) -> Judgement:
    """Score one session's bot and decide whether it may go up; reads request rows, writes nothing."""
    snapshot, verdict = done.snapshot, done.verdict
    if snapshot is None:
        # A refused session has no snapshot of its own; the one that refused it is still evidence of why.
        snapshot, verdict = _refusing_snapshot(lab, done.bot)
    request_ids = [] if snapshot is None else snapshot_request_ids(snapshot)
    stage, target = Stage(done.bot.stage), _next_stage(Stage(done.bot.stage))
    quality = None if verdict is None else verdict.status
    made = score(
        AutonomyEvidence(
            stage=stage,
            quality_status=quality,
            requests=None if snapshot is None else _outcomes(lab, request_ids),
            metrics=done.metrics,
            capital_cents=done.bot.capital_cents,
        ),
        lab.policy,
    )
    score_id = new_id()
    evidence = PromotionEvidence(
        metrics=done.metrics,
        quality_status=quality,
        proof_reasons=None if snapshot is None else _proof(lab, snapshot, request_ids),
        reproducible=done.reproducible,
        simulated=None if snapshot is None else snapshot.simulated,
        environment=lab.settings.env,
        configured_brokers=configured_brokers(lab.settings),
        from_stage=stage,
        to_stage=target,
        capital_cents=done.bot.capital_cents,
        # A session that this cycle just made is younger than any reset that came before it.
        post_reset=done.bot.reset_at <= lab.clock(),
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


def _next_stage(stage: Stage) -> Stage:
    position = STAGE_LADDER.index(stage)
    return STAGE_LADDER[min(position + 1, len(STAGE_LADDER) - 1)]


def _refusing_snapshot(lab: LabContext, bot: Bot) -> tuple[Snapshot | None, QualityVerdict | None]:
    try:
        snapshot = resolve_snapshot(lab.store, bot.instrument, bot.symbol, bot.schema)
    except Refused:
        return None, None
    return snapshot, verdict_of(lab.store, snapshot.snapshot_id)


def _outcomes(lab: LabContext, request_ids: Sequence[UUID]) -> RequestOutcomes:
    with lab.store.session() as session:
        rows = session.execute(
            select(ProviderRequest.success, func.count())
            .where(ProviderRequest.id.in_(request_ids))
            .group_by(ProviderRequest.success)
        ).all()
    counts: dict[bool | None, int] = {row.success: row[1] for row in rows}
    found = sum(counts.values())
    return RequestOutcomes(
        total=len(request_ids),
        failed=counts.get(False, 0),
        unknown=counts.get(None, 0) + len(request_ids) - found,
    )


def _proof(lab: LabContext, snapshot: Snapshot, request_ids: Sequence[UUID]) -> list[Reason]:
    """Reasons why the use of the source is not proven: none for files, whose hashes are the provenance."""
    if request_ids:
        return check_requests(lab.store, request_ids)
    if snapshot.provenance.get("source") == "file" and snapshot.provenance.get("files"):
        return []
    return [
        Reason(
            ReasonCode.PROOF_UNKNOWN,
            "the snapshot cites neither provider requests nor files",
            "Pull or ingest the series again.",
            {"snapshot_id": snapshot.snapshot_id},
        )
    ]
