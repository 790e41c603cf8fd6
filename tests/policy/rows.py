"""Rows as a LAB cycle leaves them, made with the real metrics, gates and score functions on a hand-made ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from blaid_pipelines.backtest.metrics import from_trades
from blaid_pipelines.ids import fingerprint, new_id, new_trace_id
from blaid_pipelines.policy.autonomy import AutonomyEvidence, RequestOutcomes, score
from blaid_pipelines.policy.gates import EvidenceIds, PromotionEvidence
from blaid_pipelines.policy.load import load_policy
from blaid_pipelines.policy.model import STAGE_LADDER, Stage
from blaid_pipelines.policy.promotion import HASHED_COLUMNS, decide, decision_hash_of
from blaid_pipelines.policy.stages import move_stage
from blaid_pipelines.reasons import Reason
from blaid_pipelines.settings import Environment
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import (
    AutonomyScore,
    BacktestDiagnostics,
    BacktestSession,
    Bot,
    PromotionDecision,
    ProviderRequest,
    QualityVerdict,
    Snapshot,
)
from tests.backtest.ledgers import Ledger, make_ledger

POLICY = load_policy()
START, END = datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 6, 28, tzinfo=UTC)


def good_ledger() -> Ledger:
    """A profitable bot with 10,000 dollars over 120 sessions: two trades a session, every tenth session loses."""
    return make_ledger([[-3_000, -2_000] if day % 10 == 4 else [2_500, 1_500] for day in range(120)], 1_000_000)


def deep_ledger() -> Ledger:
    """The same bot with eight bad sessions in a row that lose 2,100.81 of its 10,000 dollars: 21.0081 per cent."""
    results = [[9_000 + 500 * (day % 7), 8_000 - 300 * (day % 5)] for day in range(120)]
    results[50:58] = [[-13_130, -13_130]] * 7 + [[-13_130, -13_131]]
    return make_ledger(results, 1_000_000)


def _session_row(bot: Bot, ids: EvidenceIds, metrics: dict[str, Any] | None, refusal: Reason | None) -> BacktestSession:
    assert ids.session_id is not None
    row = BacktestSession(
        id=UUID(ids.session_id),
        bot_id=bot.id,
        trace_id=ids.trace_id,
        status="REFUSED" if refusal else "COMPLETED",
        instrument="MES",
        symbol="MES.c.0",
        request_ids=[],
        strategy_family="ma_cross",
        strategy_hash="strategy",
        params={},
        params_hash="params",
        engine_version="1",
        policy_hash=POLICY.hash,
        spec={},
        capital_cents=bot.capital_cents,
    )
    if refusal is not None:
        row.reason = refusal.as_dict()
    if metrics is not None and ids.verdict_id is not None:
        row.snapshot_id, row.verdict_id = ids.snapshot_id, UUID(ids.verdict_id)
        row.request_ids = list(ids.request_ids or [])
        row.trades, row.net_pnl_cents = metrics["trades"], metrics["net_pnl_cents"]
        row.max_drawdown_pct, row.metrics, row.result_hash = metrics["max_drawdown_pct"], metrics, "result"
    return row


@dataclass(frozen=True)
class Cycle:
    """Ids of the rows of one finished cycle."""

    bot_id: UUID
    session_id: UUID
    decision_id: UUID
    score_id: UUID
    trace_id: str
    snapshot_id: str
    request_id: UUID


def add_bot(store: Store, name: str, stage: Stage = Stage.LAB, capital_cents: int = 1_000_000) -> UUID:
    """A bot that climbed to ``stage`` step by step, each on a decision of its own and with its event.

    No gate set judges moves above PAPER yet: those decisions are copies of the real one for LAB to PAPER.
    """
    with store.session() as session:
        bot = Bot(
            id=new_id(),
            name=name,
            instrument="MES",
            symbol="MES.c.0",
            schema="ohlcv-1m",
            strategy_family="ma_cross",
            params={"fast": "5"},
            params_hash="params",
            capital_cents=capital_cents,
            contracts=1,
        )
        session.add(bot)
    if stage is not Stage.LAB:
        cycle = add_cycle(store, bot.id, good_ledger(), brokers=["ironbeam"])
        for begin, end in pairwise(STAGE_LADDER[: STAGE_LADDER.index(stage) + 1]):
            with store.session() as session:
                decision_id = _decision_like(session, cycle.decision_id, begin, end)
                move_stage(session, bot.id, end, actor="test", trace_id=cycle.trace_id, decision_id=decision_id)
    return bot.id


def _decision_like(session: Session, decision_id: UUID, begin: Stage, end: Stage) -> UUID:
    """The id of this decision or of a copy of it that promotes its bot from ``begin`` to ``end``."""
    known = session.get_one(PromotionDecision, decision_id)
    if (known.from_stage, known.to_stage) == (begin.value, end.value):
        return known.id
    columns = {name: getattr(known, name) for name in HASHED_COLUMNS}
    columns |= {"from_stage": begin.value, "to_stage": end.value}
    copy = PromotionDecision(id=new_id(), **columns, decision_hash=decision_hash_of(columns))
    session.add(copy)
    session.flush()
    return copy.id


def add_bars(store: Store, status: str | None = "PASS", reasons: list[Any] | None = None) -> tuple[str, UUID, UUID]:
    """Snapshot id, verdict id (unused when ``status`` is None) and the id of the request that brought the bars."""
    snapshot_id, verdict_id, trace_id = fingerprint(str(new_id())), new_id(), new_trace_id()
    with store.session() as session:
        request = ProviderRequest(
            id=new_id(),
            trace_id=trace_id,
            category="market_data",
            provider="databento",
            endpoint="timeseries.get_range",
            request_fingerprint="f",
            params={},
            simulated=True,
            symbol="MES.c.0",
            schema="ohlcv-1m",
            start_ts=START,
            end_ts=END,
            completed_at=END,
            success=True,
            latency_ms=12,
            bar_count=1000,
        )
        session.add(request)
        session.add(
            Snapshot(
                snapshot_id=snapshot_id,
                content_hash="content",
                dataset="GLBX.MDP3",
                schema="ohlcv-1m",
                symbol="MES.c.0",
                instrument="MES",
                range_start=START,
                range_end=END,
                bar_count=1000,
                first_ts=START,
                last_ts=END,
                files=[],
                contracts=["MESH4"],
                provenance={"source": "databento"},
                simulated=True,
                trace_id=trace_id,
            )
        )
        session.flush()
        if status is not None:
            session.add(
                QualityVerdict(
                    id=verdict_id,
                    snapshot_id=snapshot_id,
                    content_hash="content",
                    status=status,
                    policy_hash=POLICY.hash,
                    suite_version="1",
                    checks=[],
                    reasons=reasons or [],
                    trace_id=trace_id,
                )
            )
    return snapshot_id, verdict_id, request.id


def add_cycle(
    store: Store,
    bot_id: UUID,
    ledger: Ledger | None,
    *,
    brokers: list[str],
    refusal: Reason | None = None,
    bars: tuple[str, UUID, UUID] | None = None,
    stage: Stage = Stage.LAB,
) -> Cycle:
    """Write session, diagnostics, score and decision of one cycle; without a ledger the backtest was refused."""
    snapshot_id, verdict_id, request_id = bars or add_bars(store)
    session_id, score_id, decision_id, trace_id = new_id(), new_id(), new_id(), new_trace_id()
    with store.session() as session:
        bot = session.get_one(Bot, bot_id)
    metrics = None if ledger is None else from_trades(*ledger).as_json()
    quality = "FAIL" if refusal is not None else "PASS"
    made = score(AutonomyEvidence(stage, quality, RequestOutcomes(1, 0, 0), metrics, bot.capital_cents), POLICY)
    ids = EvidenceIds(
        bot_id=str(bot_id),
        session_id=str(session_id),
        trace_id=trace_id,
        snapshot_id=snapshot_id,
        verdict_id=str(verdict_id),
        strategy_hash="strategy",
        params_hash="params",
        result_hash=None if ledger is None else "result",
        request_ids=[str(request_id)],
        score_id=str(score_id),
    )
    verdict = decide(
        PromotionEvidence(
            metrics=metrics,
            quality_status=quality,
            proof_reasons=[],
            reproducible=None if ledger is None else True,
            simulated=True,
            environment=Environment.SANDBOX,
            configured_brokers=brokers,
            from_stage=Stage.LAB,
            to_stage=Stage.PAPER,
            capital_cents=bot.capital_cents,
            post_reset=True,
            snapshot_current=True,
            ids=ids,
            refusal=refusal,
        ),
        POLICY,
    )
    with store.session() as session:
        session.add(_session_row(bot, ids, metrics, refusal))
        session.flush()
        if metrics is not None:
            session.add(BacktestDiagnostics(session_id=session_id, payload={"by_hour": [{"hour": 9, "trades": 3}]}))
        stored = made.as_json()
        session.add(
            AutonomyScore(
                id=score_id,
                bot_id=bot_id,
                session_id=session_id,
                trace_id=trace_id,
                score=stored["score"],
                tier=stored["tier"],
                subscores=stored["subscores"],
                blockers=stored["blockers"],
                policy_hash=POLICY.hash,
            )
        )
        session.flush()
        columns = {**verdict.as_json(), "bot_id": bot_id, "session_id": session_id, "score_id": score_id}
        session.add(PromotionDecision(id=decision_id, **columns))
    return Cycle(bot_id, session_id, decision_id, score_id, trace_id, snapshot_id, request_id)
