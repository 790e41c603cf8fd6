"""Gates-v1, a table per gate: passes, exactly on the threshold, fails, and every way an input can be missing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blaid_pipelines.policy.gates import GateResult, GateStatus, PromotionEvidence, evaluate_promotion
from blaid_pipelines.policy.load import load_policy
from blaid_pipelines.policy.model import Stage
from blaid_pipelines.policy.promotion import PROMOTE, REFUSE, decide, decision_hash_of
from blaid_pipelines.reasons import Reason, ReasonCode
from blaid_pipelines.settings import Environment
from tests.policy.evidence import CAPITAL_CENTS, GOOD, GOOD_METRICS, IDS, with_metrics

POLICY = load_policy()
NAN = float("nan")
ORDER = [
    "backtest",
    "min_sessions",
    "min_trades",
    "min_losers",
    "min_win_rate",
    "min_profit_factor",
    "max_drawdown",
    "worst_day",
    "min_psr0",
    "quality",
    "proof",
    "reproducible",
    "post_reset",
    "snapshot_current",
    "evidence",
    "stage",
    "source_not_simulated",
    "broker_for_paper",
]
NOT_NUMBERS = [None, NAN, math.inf, -math.inf, "400", True, [], ..., 10**400]


def gate(evidence: PromotionEvidence, name: str) -> GateResult:
    return next(result for result in evaluate_promotion(evidence, POLICY) if result.name == name)


def test_the_gates_come_in_the_order_of_the_gate_set() -> None:
    assert [result.name for result in evaluate_promotion(GOOD, POLICY)] == ORDER


def test_a_bot_that_passes_every_gate_is_promoted() -> None:
    verdict = decide(GOOD, POLICY)
    assert verdict.decision == PROMOTE
    assert verdict.failing_gates == ()
    assert verdict.first_reason is None
    assert verdict.gate_set == "gates-v1"


# gate, metric, passing, exactly on the threshold, failing, code
THRESHOLDS = [
    ("min_sessions", "sessions", 61, 60, 59, ReasonCode.TOO_FEW_SESSIONS),
    ("min_trades", "trades", 101, 100, 99, ReasonCode.TOO_FEW_TRADES),
    ("min_losers", "losers", 6, 5, 4, ReasonCode.TOO_FEW_LOSERS),
    ("min_win_rate", "win_rate_pct", 35.01, 35.0, 34.99, ReasonCode.WIN_RATE_TOO_LOW),
    ("min_profit_factor", "profit_factor", 1.16, 1.15, 1.149, ReasonCode.PROFIT_FACTOR_TOO_LOW),
    ("min_psr0", "psr0", 0.951, 0.95, 0.9499, ReasonCode.PSR_TOO_LOW),
    ("worst_day", "worst_day_cents", 5_000, -30_000, -30_001, ReasonCode.DAILY_LOSS_EXCEEDED),
]


@pytest.mark.parametrize(("name", "metric", "good", "edge", "bad", "code"), THRESHOLDS)
def test_a_threshold_holds_on_its_edge_and_fails_beyond(
    name: str, metric: str, good: float, edge: float, bad: float, code: ReasonCode
) -> None:
    assert gate(with_metrics(**{metric: good}), name).status is GateStatus.PASS
    on_edge = gate(with_metrics(**{metric: edge}), name)
    assert on_edge.status is GateStatus.PASS
    assert abs(edge) == on_edge.input == on_edge.threshold
    failed = gate(with_metrics(**{metric: bad}), name)
    assert failed.status is GateStatus.FAIL
    assert failed.reason is not None
    assert failed.reason.code is code
    assert failed.reason.numbers == {"input": abs(bad), "threshold": abs(edge)}
    assert failed.reason.suggested_fix
    assert decide(with_metrics(**{metric: bad}), POLICY).failing_gates == (name,)


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
@pytest.mark.parametrize(
    ("name", "metric"), [row[:2] for row in THRESHOLDS] + [("max_drawdown", "max_drawdown_pct")], ids=str
)
def test_an_input_that_is_no_number_is_unknown_and_does_not_pass(name: str, metric: str, value: Any) -> None:
    result = gate(with_metrics(**{metric: value}), name)
    assert result.status is GateStatus.UNKNOWN
    assert result.input is None
    assert result.reason is not None
    assert result.reason.code is ReasonCode.EVIDENCE_MISSING
    assert metric in result.reason.message
    assert decide(with_metrics(**{metric: value}), POLICY).decision == REFUSE
    json.dumps(result.as_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "metric", "impossible"),
    [
        ("max_drawdown", "max_drawdown_pct", -21.0),
        ("min_win_rate", "win_rate_pct", 140.0),
        ("min_psr0", "psr0", 1.5),
        ("min_sessions", "sessions", 60.5),
        ("min_losers", "losers", -1),
        ("min_profit_factor", "profit_factor", -2.0),
    ],
)
def test_an_impossible_input_is_unknown(name: str, metric: str, impossible: float) -> None:
    assert gate(with_metrics(**{metric: impossible}), name).status is GateStatus.UNKNOWN


@pytest.mark.parametrize(
    ("cents", "status"), [(199_999, GateStatus.PASS), (200_000, GateStatus.PASS), (200_001, GateStatus.FAIL)]
)
def test_the_drawdown_may_reach_a_fifth_of_the_capital_and_no_cent_more(cents: int, status: GateStatus) -> None:
    evidence = with_metrics(max_drawdown_cents=cents, max_drawdown_pct=100 * cents / CAPITAL_CENTS)
    assert gate(evidence, "max_drawdown").status is status


@pytest.mark.parametrize("capital", [None, 0, -5, NAN])
def test_without_a_capital_neither_drawdown_nor_worst_day_is_known(capital: Any) -> None:
    evidence = replace(GOOD, capital_cents=capital)
    assert gate(evidence, "max_drawdown").status is GateStatus.UNKNOWN
    assert gate(evidence, "worst_day").status is GateStatus.UNKNOWN


def test_a_drawdown_of_another_capital_is_not_believed() -> None:
    result = gate(replace(GOOD, capital_cents=CAPITAL_CENTS // 4), "max_drawdown")
    assert result.status is GateStatus.UNKNOWN
    assert result.reason is not None
    assert "32.0000 %" in result.reason.message


MISMATCH = Reason(ReasonCode.PROOF_MISMATCH, "a call has no row", "look", {})
UNPROVEN = Reason(ReasonCode.PROOF_UNKNOWN, "a call has no outcome", "look", {})
REFUSAL = Reason(ReasonCode.DATA_QUALITY_FAILED, "the bars failed", "get others", {})


@pytest.mark.parametrize(
    ("name", "change", "status", "code"),
    [
        ("backtest", {"refusal": REFUSAL}, GateStatus.FAIL, ReasonCode.DATA_QUALITY_FAILED),
        ("backtest", {"metrics": None}, GateStatus.UNKNOWN, ReasonCode.EVIDENCE_MISSING),
        ("quality", {"quality_status": "FAIL"}, GateStatus.FAIL, ReasonCode.DATA_QUALITY_FAILED),
        ("quality", {"quality_status": None}, GateStatus.UNKNOWN, ReasonCode.DATA_QUALITY_UNKNOWN),
        ("quality", {"quality_status": "pass"}, GateStatus.UNKNOWN, ReasonCode.DATA_QUALITY_UNKNOWN),
        ("proof", {"proof_reasons": [MISMATCH, UNPROVEN]}, GateStatus.FAIL, ReasonCode.PROOF_MISMATCH),
        ("proof", {"proof_reasons": [UNPROVEN]}, GateStatus.UNKNOWN, ReasonCode.PROOF_UNKNOWN),
        ("proof", {"proof_reasons": None}, GateStatus.UNKNOWN, ReasonCode.EVIDENCE_MISSING),
        ("reproducible", {"reproducible": False}, GateStatus.FAIL, ReasonCode.NOT_REPRODUCIBLE),
        ("reproducible", {"reproducible": None}, GateStatus.UNKNOWN, ReasonCode.EVIDENCE_MISSING),
        ("post_reset", {"post_reset": False}, GateStatus.FAIL, ReasonCode.STAGE_NOT_ELIGIBLE),
        ("post_reset", {"post_reset": None}, GateStatus.UNKNOWN, ReasonCode.EVIDENCE_MISSING),
        ("snapshot_current", {"snapshot_current": False}, GateStatus.FAIL, ReasonCode.SNAPSHOT_NOT_CURRENT),
        ("snapshot_current", {"snapshot_current": None}, GateStatus.UNKNOWN, ReasonCode.EVIDENCE_MISSING),
        ("evidence", {"ids": replace(IDS, result_hash=None)}, GateStatus.UNKNOWN, ReasonCode.EVIDENCE_MISSING),
        ("evidence", {"ids": replace(IDS, snapshot_id="")}, GateStatus.UNKNOWN, ReasonCode.EVIDENCE_MISSING),
        ("evidence", {"ids": replace(IDS, request_ids=None)}, GateStatus.UNKNOWN, ReasonCode.EVIDENCE_MISSING),
        ("source_not_simulated", {"simulated": True}, GateStatus.FAIL, ReasonCode.SIMULATED_SOURCE_REFUSED),
        ("source_not_simulated", {"simulated": None}, GateStatus.UNKNOWN, ReasonCode.EVIDENCE_MISSING),
        ("source_not_simulated", {"environment": None}, GateStatus.UNKNOWN, ReasonCode.EVIDENCE_MISSING),
        ("broker_for_paper", {"configured_brokers": []}, GateStatus.FAIL, ReasonCode.BROKER_REQUIRED_FOR_PAPER),
        ("broker_for_paper", {"configured_brokers": None}, GateStatus.UNKNOWN, ReasonCode.EVIDENCE_MISSING),
    ],
)
def test_evidence_that_is_not_a_number(name: str, change: dict[str, Any], status: GateStatus, code: ReasonCode) -> None:
    evidence = replace(GOOD, **change)
    result = gate(evidence, name)
    assert result.status is status
    assert result.reason is not None
    assert result.reason.code is code
    verdict = decide(evidence, POLICY)
    assert verdict.decision == REFUSE
    assert name in verdict.failing_gates


@pytest.mark.parametrize(
    ("environment", "simulated", "passes"),
    [
        (Environment.SANDBOX, True, True),
        (Environment.SANDBOX, False, True),
        (Environment.SANDBOX, None, False),
        (Environment.DEV, True, False),
        (Environment.DEV, False, True),
        (Environment.PRODUCTION, True, False),
        (Environment.PRODUCTION, False, True),
    ],
)
def test_simulated_bars_count_in_the_sandbox_alone(
    environment: Environment, simulated: bool | None, passes: bool
) -> None:
    result = gate(replace(GOOD, environment=environment, simulated=simulated), "source_not_simulated")
    assert result.passed is passes
    if environment is Environment.SANDBOX and simulated:
        assert result.note is not None
        assert "sandbox" in result.note


@pytest.mark.parametrize("from_stage", list(Stage))
@pytest.mark.parametrize("to_stage", list(Stage))
def test_only_lab_to_paper_is_judged_by_this_gate_set(from_stage: Stage, to_stage: Stage) -> None:
    verdict = decide(replace(GOOD, from_stage=from_stage, to_stage=to_stage), POLICY)
    assert verdict.promoted is ((from_stage, to_stage) == (Stage.LAB, Stage.PAPER))


def test_a_bot_that_lacks_a_broker_alone_fails_that_gate_alone() -> None:
    verdict = decide(replace(GOOD, configured_brokers=[]), POLICY)
    assert verdict.failing_gates == ("broker_for_paper",)
    assert verdict.first_reason is not None
    assert verdict.first_reason.code is ReasonCode.BROKER_REQUIRED_FOR_PAPER


def test_a_refused_backtest_shows_its_own_reason_first() -> None:
    verdict = decide(replace(GOOD, metrics=None, refusal=REFUSAL, quality_status="FAIL"), POLICY)
    assert verdict.failing_gates[0] == "backtest"
    assert verdict.first_reason == REFUSAL


def test_the_hash_covers_every_gate_and_every_piece_of_evidence() -> None:
    base = decide(GOOD, POLICY)
    assert decide(GOOD, POLICY).decision_hash == base.decision_hash
    assert decision_hash_of(base.as_json()) == base.decision_hash
    others = [
        with_metrics(trades=401),
        replace(GOOD, ids=replace(IDS, result_hash="other")),
        replace(GOOD, ids=replace(IDS, request_ids=[])),
        replace(GOOD, ids=replace(IDS, score_id=None)),
        replace(GOOD, configured_brokers=["tradovate"]),
    ]
    assert len({base.decision_hash, *(decide(other, POLICY).decision_hash for other in others)}) == len(others) + 1


def test_the_hash_survives_the_way_a_database_writes_numbers() -> None:
    row = decide(with_metrics(max_drawdown_pct=8, profit_factor=2.0, psr0=1), POLICY).as_json()
    assert decision_hash_of(json.loads(json.dumps(row))) == row["decision_hash"]
    row["gates"][1]["input"] = float(row["gates"][1]["input"])
    assert decision_hash_of(row) == row["decision_hash"]


# --- no combination of missing inputs promotes --------------------------------------------------------------------
MISSING = st.sampled_from([None, NAN, math.inf, -math.inf, "PASS", ..., -1.5])
EVIDENCE_FIELDS = [
    "quality_status",
    "proof_reasons",
    "reproducible",
    "simulated",
    "environment",
    "configured_brokers",
    "capital_cents",
    "post_reset",
    "metrics",
]


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_no_combination_of_missing_inputs_promotes(data: st.DataObject) -> None:
    metrics = data.draw(st.sets(st.sampled_from(sorted(GOOD_METRICS))), label="metrics spoilt")
    fields = data.draw(st.sets(st.sampled_from(EVIDENCE_FIELDS)), label="fields missing")
    ids = data.draw(st.sets(st.sampled_from([f for f in vars(IDS) if f != "score_id"])), label="ids missing")
    spoilt = {name: data.draw(MISSING, label=name) for name in sorted(metrics)}
    spoilt = {name: (NAN if name == "worst_day_cents" and value == -1.5 else value) for name, value in spoilt.items()}
    evidence = replace(with_metrics(**spoilt), ids=replace(IDS, **dict.fromkeys(sorted(ids))))
    evidence = replace(evidence, **dict.fromkeys(sorted(fields)))
    verdict = decide(evidence, POLICY)
    assert verdict.promoted is not bool(metrics or fields or ids)
    assert all(result.reason is not None for result in verdict.gates if not result.passed)
    json.dumps(verdict.as_json(), allow_nan=False)
