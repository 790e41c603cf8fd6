"""The autonomy score: each sub-score against its stated formula, unknown evidence, tiers and their edges."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blaid_pipelines.policy.autonomy import (
    FORMULA_VERSION,
    AutonomyEvidence,
    ExecutionEvidence,
    RequestOutcomes,
    Score,
    SubScore,
    SupervisionEvidence,
    Tier,
    score,
    tier_of,
)
from blaid_pipelines.policy.load import load_policy
from blaid_pipelines.policy.model import Stage
from blaid_pipelines.reasons import ReasonCode
from tests.policy.evidence import CAPITAL_CENTS, GOOD_METRICS

POLICY = load_policy()
LAB = AutonomyEvidence(
    stage=Stage.LAB,
    quality_status="PASS",
    requests=RequestOutcomes(total=10, failed=0, unknown=0),
    metrics=GOOD_METRICS,
    capital_cents=CAPITAL_CENTS,
)
FLAWLESS = replace(
    LAB,
    metrics={**GOOD_METRICS, "psr0": 1.0, "profit_factor": 3.0, "win_rate_pct": 70.0, "trades": 900, "sessions": 500,
             "max_drawdown_pct": 0.0, "worst_day_cents": 100},
    execution=ExecutionEvidence(orders=100, rejected=0, unresolved=0, differences=0),
    supervision=SupervisionEvidence(heartbeats_due=1000, heartbeats_seen=1000, interventions=0),
)  # fmt: skip


def part(result: Score, name: str) -> SubScore:
    return next(each for each in result.subscores if each.name == name)


def value(evidence: AutonomyEvidence, name: str) -> float | None:
    return part(score(evidence, POLICY), name).value


def test_the_mission_weights_and_a_flawless_bot() -> None:
    result = score(FLAWLESS, POLICY)
    assert {each.name: each.weight for each in result.subscores} == {
        "data_reliability": 20,
        "decision_quality": 30,
        "risk_discipline": 20,
        "execution_health": 15,
        "supervisor_trust": 15,
    }
    assert (result.score, result.tier, result.blockers) == (100.0, Tier.FULL_AUTONOMY, ())


def test_in_the_lab_execution_and_supervision_are_unknown_and_cap_the_tier() -> None:
    result = score(replace(FLAWLESS, execution=None, supervision=None), POLICY)
    assert result.score == 70.0
    assert result.tier is Tier.SUPERVISED
    unknown = [each for each in result.subscores if each.value is None]
    assert [each.name for each in unknown] == ["execution_health", "supervisor_trust"]
    assert all(each.points == 0 and each.problem for each in unknown)
    blockers = [reason.numbers.get("subscore") for reason in result.blockers]
    assert blockers == ["execution_health", "supervisor_trust", None]
    assert all(reason.code is ReasonCode.AUTONOMY_BLOCKED and reason.suggested_fix for reason in result.blockers)


@pytest.mark.parametrize(
    ("quality", "requests", "expected"),
    [
        ("PASS", RequestOutcomes(10, 0, 0), 1.0),
        ("PASS", RequestOutcomes(10, 1, 1), 0.8),
        ("PASS", RequestOutcomes(0, 0, 0), 1.0),
        ("FAIL", RequestOutcomes(10, 0, 0), 0.0),
        ("FAIL", RequestOutcomes(0, 0, 0), 0.0),
        (None, RequestOutcomes(10, 0, 0), None),
        ("maybe", RequestOutcomes(10, 0, 0), None),
        ("PASS", None, None),
        ("PASS", RequestOutcomes(2, 3, 0), None),
        ("PASS", RequestOutcomes(-1, 0, 0), None),
        ("PASS", RequestOutcomes(5, 2, -1), None),
    ],
)
def test_data_reliability(quality: str | None, requests: RequestOutcomes | None, expected: float | None) -> None:
    assert value(replace(LAB, quality_status=quality, requests=requests), "data_reliability") == expected


@pytest.mark.parametrize(
    ("psr0", "profit_factor", "win_rate", "trades", "sessions", "expected"),
    [
        (1.0, 2.0, 60.0, 500, 250, 1.0),
        (0.5, 1.0, 0.0, 0, 0, 0.0),
        (0.1, 0.4, 0.0, 0, 0, 0.0),
        (0.75, 1.5, 30.0, 250, 125, 0.5),
        (1.0, 1.0, 0.0, 0, 0, 0.4),
        (0.5, 9.0, 0.0, 0, 0, 0.3),
        (0.5, 1.0, 90.0, 0, 0, 0.1),
        (0.5, 1.0, 0.0, 9_000, 50, 0.04),
    ],
)
def test_decision_quality(
    psr0: float, profit_factor: float, win_rate: float, trades: int, sessions: int, expected: float
) -> None:
    metrics = {
        "psr0": psr0,
        "profit_factor": profit_factor,
        "win_rate_pct": win_rate,
        "trades": trades,
        "sessions": sessions,
    }
    assert value(replace(LAB, metrics=metrics), "decision_quality") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("drawdown", "worst_day", "expected"),
    [
        (0.0, 0, 1.0),
        (0.0, 5_000, 1.0),
        (10.0, 0, 0.5),
        (0.0, -15_000, 0.5),
        (5.0, -15_000, 0.5),
        (20.0, 0, 0.0),
        (35.0, -90_000, 0.0),
        (-1.0, 0, None),
    ],
)
def test_risk_discipline_is_the_nearer_of_two_limits(drawdown: float, worst_day: int, expected: float | None) -> None:
    metrics = {**GOOD_METRICS, "max_drawdown_pct": drawdown, "worst_day_cents": worst_day}
    assert value(replace(LAB, metrics=metrics), "risk_discipline") == expected


@pytest.mark.parametrize(
    ("execution", "expected"),
    [
        (ExecutionEvidence(100, 0, 0, 0), 1.0),
        (ExecutionEvidence(100, 5, 5, 0), 0.9),
        (ExecutionEvidence(100, 0, 0, 1), 0.0),
        (ExecutionEvidence(0, 0, 0, 0), None),
        (ExecutionEvidence(10, 8, 8, 0), None),
        (ExecutionEvidence(10, 0, 0, -1), None),
        (None, None),
    ],
)
def test_execution_health(execution: ExecutionEvidence | None, expected: float | None) -> None:
    assert value(replace(LAB, execution=execution), "execution_health") == expected


@pytest.mark.parametrize(
    ("supervision", "expected"),
    [
        (SupervisionEvidence(100, 100, 0), 1.0),
        (SupervisionEvidence(100, 50, 0), 0.5),
        (SupervisionEvidence(100, 100, 1), 0.5),
        (SupervisionEvidence(100, 101, 0), None),
        (SupervisionEvidence(100, 100, -1), None),
        (SupervisionEvidence(0, 0, 0), None),
        (None, None),
    ],
)
def test_supervisor_trust(supervision: SupervisionEvidence | None, expected: float | None) -> None:
    assert value(replace(LAB, supervision=supervision), "supervisor_trust") == expected


@pytest.mark.parametrize("bad", [None, float("nan"), math.inf, "1", True, ...], ids=repr)
@pytest.mark.parametrize(
    ("metric", "subscore"),
    [
        ("psr0", "decision_quality"),
        ("profit_factor", "decision_quality"),
        ("win_rate_pct", "decision_quality"),
        ("trades", "decision_quality"),
        ("sessions", "decision_quality"),
        ("max_drawdown_pct", "risk_discipline"),
        ("worst_day_cents", "risk_discipline"),
    ],
)
def test_a_metric_that_is_no_number_makes_its_subscore_unknown(metric: str, subscore: str, bad: Any) -> None:
    metrics = {name: number for name, number in {**GOOD_METRICS, metric: bad}.items() if number is not ...}
    result = score(replace(FLAWLESS, metrics=metrics), POLICY)
    unknown = part(result, subscore)
    assert unknown.value is None
    assert unknown.problem is not None
    assert metric in unknown.problem
    assert result.tier in {Tier.LOCKED, Tier.SUPERVISED}
    json.dumps(result.as_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("total", "tier"),
    [
        (0.0, Tier.LOCKED),
        (39.99, Tier.LOCKED),
        (40.0, Tier.SUPERVISED),
        (59.99, Tier.SUPERVISED),
        (60.0, Tier.LIMITED_AUTONOMY),
        (79.99, Tier.LIMITED_AUTONOMY),
        (80.0, Tier.FULL_AUTONOMY),
        (100.0, Tier.FULL_AUTONOMY),
        (float("nan"), Tier.LOCKED),
    ],
)
def test_tiers_and_their_edges(total: float, tier: Tier) -> None:
    assert tier_of(total, POLICY) is tier


def test_without_any_evidence_a_bot_is_locked_at_zero() -> None:
    result = score(AutonomyEvidence(Stage.LAB, None, None, None, None), POLICY)
    assert (result.score, result.tier) == (0.0, Tier.LOCKED)
    assert all(each.value is None for each in result.subscores)


def test_what_is_stored_names_evidence_formula_and_version() -> None:
    stored = score(LAB, POLICY).as_json()
    assert stored["formula_version"] == FORMULA_VERSION
    for each in stored["subscores"]:
        assert each["formula"]
        assert each["formula_version"] == FORMULA_VERSION
        assert each["points"] == pytest.approx((each["value"] or 0) * each["weight"])
    risk = next(each for each in stored["subscores"] if each["name"] == "risk_discipline")
    assert risk["evidence"] == {
        "max_drawdown_pct": 8.0,
        "worst_day_cents": -12_000,
        "max_drawdown_pct_limit": 20.0,
        "daily_loss_limit_cents": 30_000,
        "capital_cents": CAPITAL_CENTS,
    }


NUMBERS = st.one_of(st.none(), st.floats(), st.integers(), st.text(max_size=3))


@given(metrics=st.dictionaries(st.sampled_from(sorted(GOOD_METRICS)), NUMBERS), capital=NUMBERS)
@settings(max_examples=200, deadline=None)
def test_the_score_stays_within_bounds_whatever_comes_in(metrics: dict[str, Any], capital: Any) -> None:
    result = score(replace(FLAWLESS, metrics=metrics, capital_cents=capital), POLICY)
    assert 0 <= result.score <= 100
    assert all(each.value is None or 0 <= each.value <= 1 for each in result.subscores)
    if any(each.value is None for each in result.subscores):
        assert result.tier in {Tier.LOCKED, Tier.SUPERVISED}
    json.dumps(result.as_json(), allow_nan=False)
