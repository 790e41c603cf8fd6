"""Moves of a bot between stages: the table of allowed moves and the one function that makes them.

Up goes one step at a time, on a decision that says PROMOTE for exactly this move, is the bot's newest, is younger than
its last reset, was not used before, and still matches its own hash. Down goes any number of steps and needs no
decision: taking rights away is never refused. Bot and event are written in the caller's transaction; the database's
trigger refuses other moves.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from blaid_pipelines.policy.model import STAGE_LADDER, Stage
from blaid_pipelines.policy.promotion import HASHED_COLUMNS, PROMOTE, decision_hash_of
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, Refused
from blaid_pipelines.store.tables import Bot, BotStageEvent, PromotionDecision

ALLOWED_MOVES: dict[Stage, frozenset[Stage]] = {
    stage: frozenset(STAGE_LADDER[:rank]) | frozenset(STAGE_LADDER[rank + 1 : rank + 2])
    for rank, stage in enumerate(STAGE_LADDER)
}


def move_stage(
    session: Session, bot_id: UUID, to: Stage, *, actor: str, trace_id: str, decision_id: UUID | None = None
) -> BotStageEvent:
    """Move a bot to ``to`` and write the event; the bot's row is locked until the transaction ends.

    Raises :class:`InvalidRequest` (NOT_FOUND) for an unknown bot and :class:`Refused` (TRANSITION_NOT_ALLOWED,
    EVIDENCE_MISSING, STAGE_NOT_ELIGIBLE) for a move that the table or the evidence does not allow.
    """
    # Read anew under the lock: what the session holds of the bot may be older than another process's move.
    locked = select(Bot).where(Bot.id == bot_id).with_for_update().execution_options(populate_existing=True)
    bot = session.execute(locked).scalar_one_or_none()
    if bot is None:
        raise InvalidRequest(
            Reason(ReasonCode.NOT_FOUND, f"there is no bot {bot_id}", "See `blaid bot list`.", {"bot_id": str(bot_id)})
        )
    current = Stage(bot.stage)
    numbers = {"bot": bot.name, "from": current.value, "to": to.value}
    if to not in ALLOWED_MOVES[current]:
        raise Refused(
            Reason(
                ReasonCode.TRANSITION_NOT_ALLOWED,
                f"a bot in {current.value} cannot move to {to.value}",
                "Up goes one stage at a time; down goes to any lower stage.",
                numbers,
            )
        )
    if STAGE_LADDER.index(to) > STAGE_LADDER.index(current):
        _require_decision(session, bot, current, to, decision_id, numbers)
    bot.stage = to.value
    event = BotStageEvent(
        bot_id=bot.id,
        from_stage=current.value,
        to_stage=to.value,
        decision_id=decision_id,
        actor=actor,
        trace_id=trace_id,
    )
    session.add(event)
    session.flush()
    return event


def _require_decision(
    session: Session, bot: Bot, current: Stage, to: Stage, decision_id: UUID | None, numbers: dict[str, Any]
) -> None:
    decision = None if decision_id is None else session.get(PromotionDecision, decision_id)
    if decision is None or decision.bot_id != bot.id:
        raise Refused(
            Reason(
                ReasonCode.EVIDENCE_MISSING,
                f"moving {bot.name} up to {to.value} needs a promotion decision of this bot",
                "Backtest the bot; a decision that promotes it is the evidence for the move.",
                numbers,
            )
        )
    newest = session.execute(
        select(PromotionDecision.id)
        .where(PromotionDecision.bot_id == bot.id)
        .order_by(PromotionDecision.created_at.desc(), PromotionDecision.id.desc())
        .limit(1)
    ).scalar_one()
    used = session.execute(select(BotStageEvent.id).where(BotStageEvent.decision_id == decision.id).limit(1)).first()
    stored = decision_hash_of({name: getattr(decision, name) for name in HASHED_COLUMNS})
    problems = {
        f"it says {decision.decision}": decision.decision != PROMOTE,
        f"it judges {decision.from_stage} to {decision.to_stage}": (decision.from_stage, decision.to_stage)
        != (current.value, to.value),
        "a newer decision exists": newest != decision.id,
        "it is from before the bot's last reset": decision.created_at < bot.reset_at,
        "it has been used": used is not None,
        "it does not match its own hash": stored != decision.decision_hash,
    }
    found = [words for words, is_so in problems.items() if is_so]
    if found:
        raise Refused(
            Reason(
                ReasonCode.STAGE_NOT_ELIGIBLE,
                f"the decision does not carry {bot.name} to {to.value}: {'; '.join(found)}",
                "Backtest the bot again and use the decision that comes out.",
                {**numbers, "decision_id": str(decision.id)},
            )
        )
