"""Where everything stands: one row per bot with its latest session, score and decision, and the proof of use.

Derived when asked, never stored. ``proof`` compares three independent counts: calls that left (the wire log), request
rows in the database, and requests that the sandbox gateway says it received.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.proof.usage import proof_counts
from blaid_pipelines.store.tables import AutonomyScore, BacktestSession, Bot, PromotionDecision


@dataclass(frozen=True)
class BotStatus:
    """One bot's line. Money in dollars; None where there is nothing yet."""

    name: str
    stage: str
    instrument: str
    symbol: str | None
    strategy: str
    session_id: UUID | None
    session_status: str | None
    snapshot: str | None
    trades: int | None
    net_pnl: float | None
    max_drawdown_pct: float | None
    score: float | None
    tier: str | None
    decision: str | None
    failing_gates: list[str]
    first_failing_gate: str | None
    reason: str | None
    trace_id: str | None

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        values = asdict(self)
        values["session_id"] = None if self.session_id is None else str(self.session_id)
        return values


def bot_statuses(lab: LabContext) -> list[BotStatus]:
    """One line per bot, by name, with its latest session since its last reset."""
    with lab.store.session() as session:
        return [
            _bot_status(session, bot, _latest(session, bot)) for bot in session.scalars(select(Bot).order_by(Bot.name))
        ]


def session_status(lab: LabContext, session_id: UUID) -> BotStatus:
    """The line of one session's bot as of that session."""
    with lab.store.session() as session:
        row = session.get_one(BacktestSession, session_id)
        return _bot_status(session, session.get_one(Bot, row.bot_id), row)


def _latest(session: Session, bot: Bot) -> BacktestSession | None:
    return session.scalar(
        select(BacktestSession)
        .where(BacktestSession.bot_id == bot.id, BacktestSession.created_at >= bot.reset_at)
        .order_by(BacktestSession.created_at.desc(), BacktestSession.id.desc())
        .limit(1)
    )


def _bot_status(session: Session, bot: Bot, latest: BacktestSession | None) -> BotStatus:
    score = decision = None
    if latest is not None:
        score = session.scalar(select(AutonomyScore).where(AutonomyScore.session_id == latest.id))
        decision = session.scalar(select(PromotionDecision).where(PromotionDecision.session_id == latest.id))
    failing = [] if decision is None else [str(name) for name in decision.failing_gates]
    first, code = deciding_gate([] if decision is None else decision.gates)
    return BotStatus(
        name=bot.name,
        stage=bot.stage,
        instrument=bot.instrument,
        symbol=bot.symbol if latest is None else latest.symbol,
        strategy=bot.strategy_family,
        session_id=None if latest is None else latest.id,
        session_status=None if latest is None else latest.status,
        snapshot=None if latest is None else latest.snapshot_id,
        trades=None if latest is None else latest.trades,
        net_pnl=None if latest is None or latest.net_pnl_cents is None else latest.net_pnl_cents / 100,
        max_drawdown_pct=None if latest is None else latest.max_drawdown_pct,
        score=None if score is None else score.score,
        tier=None if score is None else score.tier,
        decision=None if decision is None else decision.decision,
        failing_gates=failing,
        first_failing_gate=first,
        reason=code,
        trace_id=None if latest is None else latest.trace_id,
    )


def deciding_gate(gates: list[dict[str, Any]]) -> tuple[str | None, str | None]:
    """Name and reason code of the gate to show first: the first that FAILED, else the first that is UNKNOWN."""
    for status in ("FAIL", "UNKNOWN"):
        for gate in gates:
            if gate["status"] == status:
                return str(gate["name"]), gate["code"]
    return None, None


def status_report(lab: LabContext) -> dict[str, Any]:
    """The whole report, JSON-ready: ``bots`` and ``proof``."""
    counts = proof_counts(lab.store, lab.settings)
    return {
        "environment": lab.settings.env.value,
        "policy_hash": lab.policy.hash,
        "bots": [status.as_json() for status in bot_statuses(lab)],
        "proof": counts.as_json(),
    }
