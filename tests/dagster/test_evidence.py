"""What the cohort's blocking checks refuse: proof that does not add up, decisions without their evidence."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from blaid_pipelines.ids import new_id
from blaid_pipelines.jobs.machine import JobType, create_job
from blaid_pipelines.lab.evidence import check_evidence, check_evidence_in, check_proof, check_proof_in
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import BacktestSession, PromotionDecision, ProviderRequest
from tests.analysts.world import populate

NOW = datetime(2024, 7, 1, tzinfo=UTC)
TRACE = "c" * 32


def add_request(store: Store, success: bool | None) -> UUID:
    """One row of the request log under the run's trace."""
    row = ProviderRequest(
        id=new_id(),
        trace_id=TRACE,
        category="market_data",
        provider="databento",
        endpoint="timeseries.get_range",
        request_fingerprint="f" * 64,
        params={},
        simulated=True,
        success=success,
        completed_at=None if success is None else NOW,
    )
    with store.session() as session:
        session.add(row)
    return row.id


def add_job(store: Store) -> None:
    with store.session() as session:
        create_job(session, JobType.DATA_PULL, trace_id=TRACE)


@pytest.mark.parametrize(
    ("logged", "cited", "codes"),
    [
        ([True, True], [0, 1], []),
        ([], [], []),
        ([False, True], [1], []),  # a failed attempt gave nothing that could be used
        ([True, True], [0], ["PROOF_MISMATCH"]),  # used, not cited
        ([None], [], ["PROOF_UNKNOWN"]),  # nobody knows whether it was used
        ([None], [0], ["PROOF_UNKNOWN"]),
        ([False], [0], ["PROOF_MISMATCH"]),  # cited, but failed
        ([], ["nowhere"], ["PROOF_MISMATCH"]),  # cited, no row
    ],
)
def test_proof_is_checked_both_ways(
    store: Store, logged: list[bool | None], cited: list[Any], codes: list[str]
) -> None:
    add_job(store)
    ids = [add_request(store, success) for success in logged]
    named = [new_id() if place == "nowhere" else ids[place] for place in cited]
    assert [reason.code.value for reason in check_proof(store, [TRACE], named)] == codes


def test_rows_of_an_open_transaction_are_proof_before_they_are_committed(store: Store) -> None:
    request = ProviderRequest(
        id=new_id(),
        trace_id=TRACE,
        category="market_data",
        provider="databento",
        endpoint="timeseries.get_range",
        request_fingerprint="f" * 64,
        params={},
        simulated=True,
        success=True,
        completed_at=NOW,
    )
    with store.session() as session:
        create_job(session, JobType.DATA_PULL, trace_id=TRACE)
        session.add(request)
        assert check_proof_in(session, [TRACE], [request.id]) == []
        outside = check_proof(store, [TRACE], [request.id])
    assert [reason.code.value for reason in outside] == ["PROOF_MISMATCH", "PROOF_MISMATCH"]


def test_a_decision_that_is_not_committed_yet_is_evidence(store: Store, outcome: dict[str, dict[str, Any]]) -> None:
    session_id = UUID(outcome["backtest"]["session_id"])
    with store.session() as session:
        old = session.get_one(BacktestSession, session_id)
        copied = {column.key: getattr(old, column.key) for column in BacktestSession.__table__.columns}
        run = BacktestSession(**{**copied, "id": new_id()})
        decided = session.scalars(select(PromotionDecision).where(PromotionDecision.session_id == session_id)).one()
        copied = {column.key: getattr(decided, column.key) for column in PromotionDecision.__table__.columns}
        session.add(run)
        session.flush()
        metadata = {asset: {**values, "session_id": str(run.id)} for asset, values in outcome.items()}
        (reason,) = check_evidence_in(session, [metadata])
        assert reason.code.value == "EVIDENCE_MISSING"
        session.add(PromotionDecision(**{**copied, "id": new_id(), "session_id": run.id}))
        assert check_evidence_in(session, [metadata]) == []


def test_a_trace_without_a_job_is_no_proof(store: Store) -> None:
    (reason,) = check_proof(store, [TRACE], [])
    assert reason.code.value == "PROOF_MISMATCH"
    assert reason.numbers["trace_ids"] == [TRACE]


@pytest.fixture
def outcome(settings: Any, store: Store) -> dict[str, dict[str, Any]]:
    """The metadata of the bot ``earner``, as its rows say."""
    session_id = populate(store, settings.lake)["earner"]
    with store.session() as session:
        run = session.get_one(BacktestSession, session_id)
        row = session.scalars(select(PromotionDecision).where(PromotionDecision.session_id == session_id)).one()
        proof = {
            "trace_id": row.trace_id,
            "session_id": str(session_id),
            "strategy_hash": row.strategy_hash,
            "policy_hash": row.policy_hash,
            "snapshot_id": row.snapshot_id,
            "content_hash": run.content_hash,
            "request_ids": row.request_ids,
        }
        decided = {"decision": row.decision, "decision_hash": row.decision_hash, "gates": row.gates}
        return {
            "backtest": {**proof, "status": run.status, "metrics": run.metrics, "result_hash": run.result_hash},
            "diagnostics": proof,
            "autonomy_score": proof,
            "promotion_decision": {**proof, **decided},
        }


def test_complete_evidence_passes(store: Store, outcome: dict[str, dict[str, Any]]) -> None:
    assert check_evidence(store, [outcome]) == []


PROMOTED = {"decision": "PROMOTE"}


@pytest.mark.parametrize(
    ("asset", "changes", "code"),
    [
        ("backtest", {"result_hash": None}, "EVIDENCE_MISSING"),
        ("backtest", {"snapshot_id": None}, "EVIDENCE_MISSING"),
        ("backtest", {"metrics": None}, "EVIDENCE_MISSING"),
        ("backtest", {"status": "REFUSED", "reason": None}, "EVIDENCE_MISSING"),
        ("backtest", {"session_id": str(UUID(int=7))}, "EVIDENCE_MISSING"),
        ("diagnostics", None, "EVIDENCE_MISSING"),
        ("autonomy_score", None, "EVIDENCE_MISSING"),
        ("promotion_decision", None, "EVIDENCE_MISSING"),
        ("promotion_decision", {"gates": []}, "EVIDENCE_MISSING"),
        ("promotion_decision", {"policy_hash": "other"}, "PROOF_MISMATCH"),
        ("promotion_decision", {"decision_hash": "other"}, "PROOF_MISMATCH"),
        ("promotion_decision", {"request_ids": []}, "PROOF_MISMATCH"),
        ("promotion_decision", PROMOTED, "PROOF_MISMATCH"),  # its row says REFUSE
        ("promotion_decision", PROMOTED, "EVIDENCE_MISSING"),  # and a gate did not pass
    ],
)
def test_evidence_that_is_missing_or_differs_is_named(
    store: Store, outcome: dict[str, dict[str, Any]], asset: str, changes: dict[str, Any] | None, code: str
) -> None:
    changed = deepcopy(outcome)
    if changes is None:
        del changed[asset]
    else:
        changed[asset].update(changes)
    reasons = check_evidence(store, [changed])
    assert code in {reason.code.value for reason in reasons}
    assert all(reason.numbers["session_id"] for reason in reasons)
