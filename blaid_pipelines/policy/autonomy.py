"""The autonomy score: five sub-scores from stated evidence, a total from 0 to 100, a tier, and what blocks autonomy.

A sub-score is a number from 0 to 1 by the formula beside it, or UNKNOWN where its evidence is missing; UNKNOWN counts
0 and caps the tier at SUPERVISED, whatever the total. Weights and tiers come from the policy. A formula that changes
gets a new :data:`FORMULA_VERSION`, because stored scores name it.

In the LAB no order is sent and no runner lives: execution_health and supervisor_trust are UNKNOWN there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from blaid_pipelines.policy.gates import Reading, check_number
from blaid_pipelines.policy.model import Policy, Stage
from blaid_pipelines.reasons import Reason, ReasonCode

FORMULA_VERSION = "autonomy-v1"

# What earns a part of decision_quality in full; half-way earns half. Part of the formula, hence of its version.
FULL_PROFIT_FACTOR = 2.0
FULL_WIN_RATE_PCT = 60.0
FULL_TRADES = 500
FULL_SESSIONS = 250
# Parts of decision_quality; together 1.
QUALITY_PARTS = {"psr0": 0.4, "profit_factor": 0.3, "win_rate": 0.1, "sample": 0.2}


class Tier(StrEnum):
    """How far a bot may go without a person."""

    LOCKED = "LOCKED"
    SUPERVISED = "SUPERVISED"
    LIMITED_AUTONOMY = "LIMITED_AUTONOMY"
    FULL_AUTONOMY = "FULL_AUTONOMY"


@dataclass(frozen=True)
class RequestOutcomes:
    """The external calls that brought the bars. ``unknown``: sent, and no outcome was recorded."""

    total: int
    failed: int
    unknown: int


@dataclass(frozen=True)
class ExecutionEvidence:
    """Orders of the period. ``unresolved``: their fate is not known; ``differences``: positions off the broker's."""

    orders: int
    rejected: int
    unresolved: int
    differences: int


@dataclass(frozen=True)
class SupervisionEvidence:
    """Heartbeats that were due and that came, and how often breaker or kill engine had to step in."""

    heartbeats_due: int
    heartbeats_seen: int
    interventions: int


@dataclass(frozen=True)
class AutonomyEvidence:
    """What a score is made from; None means that there is no such evidence."""

    stage: Stage
    quality_status: str | None
    requests: RequestOutcomes | None
    metrics: Mapping[str, Any] | None
    capital_cents: int | None
    execution: ExecutionEvidence | None = None
    supervision: SupervisionEvidence | None = None


@dataclass(frozen=True)
class SubScore:
    """One sub-score. ``value`` is None when it is UNKNOWN, and ``problem`` then says what is missing."""

    name: str
    weight: float
    value: float | None
    formula: str
    evidence: Mapping[str, Any]
    problem: str | None = None

    @property
    def points(self) -> float:
        """What it adds to the total."""
        return 0.0 if self.value is None else self.weight * self.value

    def as_json(self) -> dict[str, Any]:
        """The sub-score as it is stored."""
        return {
            "name": self.name,
            "status": "UNKNOWN" if self.value is None else "KNOWN",
            "value": self.value,
            "weight": self.weight,
            "points": round(self.points, 4),
            "formula": self.formula,
            "formula_version": FORMULA_VERSION,
            "evidence": dict(self.evidence),
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Score:
    """A total from 0 to 100 with its tier, its parts, and what keeps the bot from the highest tier."""

    score: float
    tier: Tier
    subscores: tuple[SubScore, ...]
    blockers: tuple[Reason, ...]
    formula_version: str = FORMULA_VERSION

    def as_json(self) -> dict[str, Any]:
        """The score as JSON values; ``subscores`` and ``blockers`` are the columns of ``autonomy_scores``."""
        return {
            "score": self.score,
            "tier": self.tier.value,
            "formula_version": self.formula_version,
            "subscores": [part.as_json() for part in self.subscores],
            "blockers": [reason.as_dict() for reason in self.blockers],
        }


def score(evidence: AutonomyEvidence, policy: Policy) -> Score:
    """Score ``evidence``: pure, the same evidence and policy give the same score."""
    weights = policy.autonomy.weights
    parts = (
        _data_reliability(evidence, weights.data_reliability),
        _decision_quality(evidence, weights.decision_quality),
        _risk_discipline(evidence, policy, weights.risk_discipline),
        _execution_health(evidence.execution, weights.execution_health),
        _supervisor_trust(evidence.supervision, weights.supervisor_trust),
    )
    total = round(sum(part.points for part in parts), 4)
    earned = tier_of(total, policy)
    unknown = [part.name for part in parts if part.value is None]
    tier = Tier.SUPERVISED if unknown and earned not in {Tier.LOCKED, Tier.SUPERVISED} else earned
    return Score(total, tier, parts, tuple(_blockers(parts, total, earned, policy)))


def tier_of(total: float, policy: Policy) -> Tier:
    """The tier that a total earns, before any cap. A total exactly on a threshold earns the higher tier."""
    tiers = policy.autonomy.tiers
    if not total >= tiers.supervised_at:  # also for nan
        return Tier.LOCKED
    if total < tiers.limited_autonomy_at:
        return Tier.SUPERVISED
    return Tier.LIMITED_AUTONOMY if total < tiers.full_autonomy_at else Tier.FULL_AUTONOMY


# --- sub-scores -------------------------------------------------------------------------------------------------------
def _data_reliability(evidence: AutonomyEvidence, weight: float) -> SubScore:
    formula = "0 if quality is FAIL; else 1 - (failed + unknown) / total calls, or 1 where bars came from files alone"
    requests = evidence.requests
    counts = (
        None if requests is None else {"total": requests.total, "failed": requests.failed, "unknown": requests.unknown}
    )
    stated = {"quality_status": evidence.quality_status, "requests": counts}
    if evidence.quality_status not in {"PASS", "FAIL"}:
        return SubScore("data_reliability", weight, None, formula, stated, "there is no quality verdict on the bars")
    if requests is None or not _counts_fit(requests.total, requests.failed + requests.unknown, requests.failed):
        problem = "the outcomes of the calls that brought the bars are not known"
        return SubScore("data_reliability", weight, None, formula, stated, problem)
    good = 1.0 if requests.total == 0 else 1 - (requests.failed + requests.unknown) / requests.total
    value = good if evidence.quality_status == "PASS" else 0.0
    return SubScore("data_reliability", weight, _unit(value), formula, stated)


def _decision_quality(evidence: AutonomyEvidence, weight: float) -> SubScore:
    formula = (
        f"{QUALITY_PARTS['psr0']} (psr0 - 0.5) / 0.5"
        f" + {QUALITY_PARTS['profit_factor']} (profit_factor - 1) / {FULL_PROFIT_FACTOR - 1:g}"
        f" + {QUALITY_PARTS['win_rate']} win_rate_pct / {FULL_WIN_RATE_PCT:g}"
        f" + {QUALITY_PARTS['sample']} min(trades / {FULL_TRADES}, sessions / {FULL_SESSIONS}); each part in 0..1"
    )
    read, stated, problem = _numbers(evidence.metrics, ("psr0", "profit_factor", "win_rate_pct", "trades", "sessions"))
    if problem is not None:
        return SubScore("decision_quality", weight, None, formula, stated, problem)
    parts = {
        "psr0": _unit((read["psr0"] - 0.5) / 0.5),
        "profit_factor": _unit((read["profit_factor"] - 1) / (FULL_PROFIT_FACTOR - 1)),
        "win_rate": _unit(read["win_rate_pct"] / FULL_WIN_RATE_PCT),
        "sample": _unit(min(read["trades"] / FULL_TRADES, read["sessions"] / FULL_SESSIONS)),
    }
    value = sum(QUALITY_PARTS[name] * part for name, part in parts.items())
    return SubScore("decision_quality", weight, _unit(value), formula, {**stated, "parts": parts})


def _risk_discipline(evidence: AutonomyEvidence, policy: Policy, weight: float) -> SubScore:
    formula = "min(1 - max_drawdown_pct / limit, 1 - loss of the worst day / limit), within 0 and 1"
    read, stated, problem = _numbers(evidence.metrics, ("max_drawdown_pct", "worst_day_cents"))
    capital = check_number("capital_cents", evidence.capital_cents)
    if problem is None and (capital.value is None or capital.value <= 0):
        problem = capital.problem or f"capital_cents is {capital.value}, which is impossible"
    if problem is None and read["max_drawdown_pct"] < 0:
        problem = "max_drawdown_pct is negative, which is impossible"
    if problem is not None or capital.value is None:
        return SubScore("risk_discipline", weight, None, formula, stated, problem)
    stage = policy.stages[evidence.stage]
    limits = {
        "max_drawdown_pct_limit": stage.risk_budget.max_drawdown_pct,
        "daily_loss_limit_cents": stage.daily_loss_limit_cents(int(capital.value)),
    }
    stated = {**stated, **limits, "capital_cents": capital.value}
    day_limit, loss = limits["daily_loss_limit_cents"], max(0.0, -read["worst_day_cents"])
    day = 1 - loss / day_limit if day_limit > 0 else float(loss == 0)
    value = min(1 - read["max_drawdown_pct"] / limits["max_drawdown_pct_limit"], day)
    return SubScore("risk_discipline", weight, _unit(value), formula, stated)


def _execution_health(execution: ExecutionEvidence | None, weight: float) -> SubScore:
    formula = "0 with a position difference; else 1 - (rejected + unresolved) / orders"
    if execution is None or execution.orders == 0:
        problem = "no order was sent, so nothing is known about execution"
        return SubScore("execution_health", weight, None, formula, {"orders": 0}, problem)
    stated = {
        "orders": execution.orders,
        "rejected": execution.rejected,
        "unresolved": execution.unresolved,
        "differences": execution.differences,
    }
    bad = execution.rejected + execution.unresolved
    if not _counts_fit(execution.orders, bad, execution.rejected) or execution.differences < 0:
        return SubScore("execution_health", weight, None, formula, stated, "the order counts contradict each other")
    value = 0.0 if execution.differences else 1 - bad / execution.orders
    return SubScore("execution_health", weight, _unit(value), formula, stated)


def _supervisor_trust(supervision: SupervisionEvidence | None, weight: float) -> SubScore:
    formula = "heartbeats seen / due, divided by 1 + interventions"
    if supervision is None or supervision.heartbeats_due == 0:
        problem = "no runner of this bot was ever supervised"
        return SubScore("supervisor_trust", weight, None, formula, {"heartbeats_due": 0}, problem)
    stated = {
        "heartbeats_due": supervision.heartbeats_due,
        "heartbeats_seen": supervision.heartbeats_seen,
        "interventions": supervision.interventions,
    }
    fits = _counts_fit(supervision.heartbeats_due, supervision.heartbeats_seen, supervision.heartbeats_seen)
    if not fits or supervision.interventions < 0:
        return SubScore("supervisor_trust", weight, None, formula, stated, "the heartbeat counts contradict each other")
    value = supervision.heartbeats_seen / supervision.heartbeats_due / (1 + supervision.interventions)
    return SubScore("supervisor_trust", weight, _unit(value), formula, stated)


# --- helpers ----------------------------------------------------------------------------------------------------------
def _numbers(
    metrics: Mapping[str, Any] | None, names: tuple[str, ...]
) -> tuple[dict[str, float], dict[str, Any], str | None]:
    """Finite numbers by name, the same as JSON (None where there is none), and the first problem."""
    read: Callable[[str], Reading] = lambda name: check_number(name, (metrics or {}).get(name))  # noqa: E731
    readings = {name: read(name) for name in names}
    problem = next((reading.problem for reading in readings.values() if reading.value is None), None)
    if metrics is None:
        problem = "there is no completed backtest"
    values = {name: float(reading.value) for name, reading in readings.items() if reading.value is not None}
    return values, {name: reading.value for name, reading in readings.items()}, problem


def _counts_fit(total: int, part: int, smaller: int) -> bool:
    return total >= 0 and 0 <= smaller <= part <= total


def _unit(value: float) -> float:
    return round(min(1.0, max(0.0, value)), 6)


def _blockers(parts: tuple[SubScore, ...], total: float, earned: Tier, policy: Policy) -> list[Reason]:
    """What keeps the bot from FULL_AUTONOMY, most telling first: missing evidence, weak parts, the total itself."""
    found = [
        Reason(
            ReasonCode.AUTONOMY_BLOCKED,
            f"{part.name} is UNKNOWN: {part.problem}; it counts 0 and caps the tier at {Tier.SUPERVISED.value}",
            "Gather this evidence: backtest for the research parts, PAPER for execution and supervision.",
            {"subscore": part.name, "weight": part.weight},
        )
        for part in parts
        if part.value is None
    ]
    found += [
        Reason(
            ReasonCode.AUTONOMY_BLOCKED,
            f"{part.name} is {part.value:g} of 1",
            "See the sub-score's evidence for the number that pulls it down.",
            {"subscore": part.name, "weight": part.weight, "value": part.value},
        )
        for part in parts
        if part.value is not None and part.weight > 0 and part.value < 0.5
    ]
    if earned is not Tier.FULL_AUTONOMY:
        needed = policy.autonomy.tiers.full_autonomy_at
        found.append(
            Reason(
                ReasonCode.AUTONOMY_BLOCKED,
                f"the score is {total:g}, {Tier.FULL_AUTONOMY.value} begins at {needed:g}",
                "Raise the weakest sub-scores.",
                {"score": total, "threshold": needed},
            )
        )
    return found
