"""A decision from a trade ledger to its stored row."""

from __future__ import annotations

import pytest

from blaid_pipelines.backtest.metrics import from_trades
from blaid_pipelines.policy.promotion import HASHED_COLUMNS, decision_hash_of
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import PromotionDecision
from tests.policy.rows import add_bot, add_cycle, deep_ledger, good_ledger


def test_a_ledger_with_a_drawdown_of_21_0081_per_cent_is_refused_by_that_gate_alone(store: Store) -> None:
    ledger = deep_ledger()
    assert from_trades(*ledger).max_drawdown_pct == 21.0081
    cycle = add_cycle(store, add_bot(store, "deep"), ledger, brokers=["ironbeam"])
    with store.session() as session:
        row = session.get_one(PromotionDecision, cycle.decision_id)
    assert row.decision == "REFUSE"
    assert row.failing_gates == ["max_drawdown"]
    gate = next(gate for gate in row.gates if gate["name"] == "max_drawdown")
    assert (gate["status"], gate["input"], gate["threshold"]) == ("FAIL", 21.0081, 20)
    assert gate["code"] == "MAX_DRAWDOWN_EXCEEDED"
    assert gate["reason"]["message"] == "the drawdown is 21.0081 % of the capital, at most 20 % is allowed"
    assert gate["reason"]["suggested_fix"]


def test_a_good_ledger_is_promoted_with_a_broker_and_waits_without_one(store: Store) -> None:
    with_broker = add_cycle(store, add_bot(store, "ready"), good_ledger(), brokers=["ironbeam"])
    without = add_cycle(store, add_bot(store, "waits"), good_ledger(), brokers=[])
    with store.session() as session:
        assert session.get_one(PromotionDecision, with_broker.decision_id).decision == "PROMOTE"
        waits = session.get_one(PromotionDecision, without.decision_id)
    assert (waits.decision, waits.failing_gates) == ("REFUSE", ["broker_for_paper"])
    assert waits.gates[-1]["code"] == "BROKER_REQUIRED_FOR_PAPER"


@pytest.mark.parametrize("ledger", [good_ledger(), deep_ledger()], ids=["good", "deep"])
def test_a_stored_decision_still_matches_its_hash_and_an_altered_one_does_not(store: Store, ledger: object) -> None:
    cycle = add_cycle(store, add_bot(store, "bot"), ledger, brokers=[])  # type: ignore[arg-type]
    with store.session() as session:
        row = session.get_one(PromotionDecision, cycle.decision_id)
    columns = {name: getattr(row, name) for name in HASHED_COLUMNS}
    assert decision_hash_of(columns) == row.decision_hash
    assert decision_hash_of({**columns, "decision": "PROMOTE"}) != row.decision_hash
    assert decision_hash_of({**columns, "gates": columns["gates"][:-1]}) != row.decision_hash
    assert decision_hash_of({**columns, "snapshot_id": "other"}) != row.decision_hash
