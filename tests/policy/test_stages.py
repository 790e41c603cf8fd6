"""Moves between stages: every pair of the table, and each way a decision can fail to carry a move up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from uuid import UUID

import pytest
from sqlalchemy import select, text

from blaid_pipelines.ids import new_id, new_trace_id
from blaid_pipelines.policy.model import STAGE_LADDER, Stage
from blaid_pipelines.policy.stages import ALLOWED_MOVES, move_stage
from blaid_pipelines.reasons import InvalidRequest, ReasonCode, Refused
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import Bot, BotStageEvent, PromotionDecision
from tests.policy.rows import Cycle, add_bot, add_cycle, deep_ledger, good_ledger

TRACE = new_trace_id()


def move(store: Store, bot_id: UUID, to: Stage, decision_id: UUID | None = None) -> BotStageEvent:
    with store.session() as session:
        return move_stage(session, bot_id, to, actor="test", trace_id=TRACE, decision_id=decision_id)


def stage_and_events(store: Store, bot_id: UUID) -> tuple[str, int]:
    with store.session() as session:
        events = session.scalars(select(BotStageEvent.id).where(BotStageEvent.bot_id == bot_id)).all()
        return session.get_one(Bot, bot_id).stage, len(events)


def promoted(store: Store, name: str = "ready") -> Cycle:
    return add_cycle(store, add_bot(store, name), good_ledger(), brokers=["ironbeam"])


def test_the_table_allows_one_step_up_and_any_step_down() -> None:
    for start, targets in ALLOWED_MOVES.items():
        rank = STAGE_LADDER.index(start)
        assert targets == {stage for stage in Stage if STAGE_LADDER.index(stage) < rank} | set(
            STAGE_LADDER[rank + 1 : rank + 2]
        )


def test_a_promoting_decision_carries_its_bot_one_stage_up_and_leaves_an_event(store: Store) -> None:
    cycle = promoted(store)
    event = move(store, cycle.bot_id, Stage.PAPER, cycle.decision_id)
    assert (event.from_stage, event.to_stage, event.decision_id) == ("LAB", "PAPER", cycle.decision_id)
    assert stage_and_events(store, cycle.bot_id) == ("PAPER", 1)


@pytest.mark.parametrize("start", list(Stage))
def test_without_a_decision_every_way_down_is_open_and_every_way_up_is_shut(store: Store, start: Stage) -> None:
    for to in Stage:
        bot_id = add_bot(store, f"{start}-to-{to}", stage=start)
        climbed = STAGE_LADDER.index(start)  # events of the way up to there
        if STAGE_LADDER.index(to) < STAGE_LADDER.index(start):
            move(store, bot_id, to)
            assert stage_and_events(store, bot_id) == (to.value, climbed + 1)
            continue
        with pytest.raises(Refused) as caught:
            move(store, bot_id, to)
        expected = ReasonCode.EVIDENCE_MISSING if to in ALLOWED_MOVES[start] else ReasonCode.TRANSITION_NOT_ALLOWED
        assert caught.value.reason.code is expected
        assert stage_and_events(store, bot_id) == (start.value, climbed)


def refused(store: Store, bot_id: UUID, decision_id: UUID | None, words: str) -> None:
    before = stage_and_events(store, bot_id)
    with pytest.raises(Refused) as caught:
        move(store, bot_id, STAGE_LADDER[STAGE_LADDER.index(Stage(before[0])) + 1], decision_id)
    assert words in caught.value.reason.message
    assert stage_and_events(store, bot_id) == before


def test_a_decision_that_refuses_carries_nothing(store: Store) -> None:
    cycle = add_cycle(store, add_bot(store, "deep"), deep_ledger(), brokers=["ironbeam"])
    refused(store, cycle.bot_id, cycle.decision_id, "it says REFUSE")


def test_a_decision_of_another_bot_carries_nothing(store: Store) -> None:
    cycle = promoted(store)
    refused(store, add_bot(store, "other"), cycle.decision_id, "of this bot")
    refused(store, cycle.bot_id, new_id(), "needs a promotion decision")


def test_a_decision_is_used_once(store: Store) -> None:
    cycle = promoted(store)
    move(store, cycle.bot_id, Stage.PAPER, cycle.decision_id)
    move(store, cycle.bot_id, Stage.LAB)
    refused(store, cycle.bot_id, cycle.decision_id, "it has been used")


def test_a_decision_for_a_lower_step_does_not_carry_a_higher_one(store: Store) -> None:
    cycle = promoted(store)
    move(store, cycle.bot_id, Stage.PAPER, cycle.decision_id)
    refused(store, cycle.bot_id, cycle.decision_id, "it judges LAB to PAPER")


def test_a_newer_decision_takes_the_place_of_an_older_one(store: Store) -> None:
    cycle = promoted(store)
    add_cycle(store, cycle.bot_id, deep_ledger(), brokers=["ironbeam"])
    refused(store, cycle.bot_id, cycle.decision_id, "a newer decision exists")


def test_a_decision_from_before_the_reset_carries_nothing(store: Store) -> None:
    cycle = promoted(store)
    with store.session() as session:
        made = session.get_one(PromotionDecision, cycle.decision_id).created_at
        session.get_one(Bot, cycle.bot_id).reset_at = made + timedelta(seconds=1)
    refused(store, cycle.bot_id, cycle.decision_id, "before the bot's last reset")


def test_a_decision_that_was_changed_behind_our_back_carries_nothing(store: Store) -> None:
    cycle = add_cycle(store, add_bot(store, "deep"), deep_ledger(), brokers=["ironbeam"])
    with store.session() as session:  # as someone with the owner's rights would
        session.execute(text("ALTER TABLE blaid.promotion_decisions DISABLE TRIGGER USER"))
        session.execute(text("UPDATE blaid.promotion_decisions SET decision = 'PROMOTE'"))
    refused(store, cycle.bot_id, cycle.decision_id, "does not match its own hash")


def test_two_processes_that_use_one_decision_at_once_make_one_move(store: Store) -> None:
    cycle = promoted(store)
    start = Barrier(4)

    def attempt(_number: int) -> str:
        with store.session() as session:
            session.get_one(Bot, cycle.bot_id)  # every one of them has seen the bot in LAB
            start.wait(timeout=30)
            try:
                move_stage(session, cycle.bot_id, Stage.PAPER, actor="t", trace_id=TRACE, decision_id=cycle.decision_id)
            except Refused as error:
                return error.reason.code.value
            return "moved"

    with ThreadPoolExecutor(4) as pool:
        outcomes = sorted(pool.map(attempt, range(4)))
    assert outcomes == ["TRANSITION_NOT_ALLOWED"] * 3 + ["moved"]
    assert stage_and_events(store, cycle.bot_id) == ("PAPER", 1)


def test_an_unknown_bot_is_named(store: Store) -> None:
    with pytest.raises(InvalidRequest) as caught:
        move(store, new_id(), Stage.PAPER)
    assert caught.value.reason.code is ReasonCode.NOT_FOUND
