"""The gates of LAB to PAPER (gates-v1): evidence in, one result per gate out.

A gate returns PASS, FAIL or UNKNOWN and only PASS passes. An input that is absent, not a number, not finite, or
impossible for what it measures (a negative drawdown, a win rate of 140 %) is UNKNOWN with the input spelt out; it is
never read as zero. A value exactly on a threshold passes. No thresholds live here: they come from the policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from blaid_pipelines.policy.model import Policy, Stage
from blaid_pipelines.reasons import Reason, ReasonCode
from blaid_pipelines.settings import Environment

# Cents against per cent of capital: how far the two statements of one drawdown may lie apart (rounding of the pct).
_DRAWDOWN_TOLERANCE_PCT = 0.01
_LARGEST_INT = 2**63 - 1  # what the database and the kernel can hold


class GateStatus(StrEnum):
    """What a gate says. Only PASS passes."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class GateResult:
    """One gate: what it read, what it compared with, what came out, and why where it did not pass.

    ``input`` and ``threshold`` are JSON values; an input that JSON cannot hold (nan) is None, and the reason's numbers
    spell it out. ``note`` says what a pass rests on where that is not plain.
    """

    name: str
    status: GateStatus
    input: Any
    threshold: Any
    comparison: str
    reason: Reason | None = None
    note: str | None = None

    @property
    def passed(self) -> bool:
        """True for PASS alone."""
        return self.status is GateStatus.PASS

    def as_json(self) -> dict[str, Any]:
        """The result as it is stored: ``code`` is the reason's code, or None."""
        return {
            "name": self.name,
            "status": self.status.value,
            "input": self.input,
            "comparison": self.comparison,
            "threshold": self.threshold,
            "code": None if self.reason is None else self.reason.code.value,
            "reason": None if self.reason is None else self.reason.as_dict(),
            "note": self.note,
        }


@dataclass(frozen=True)
class PromotionEvidence:
    """All that a promotion is judged on. None always means "not known".

    ``metrics`` is the stored metrics document of the session; ``proof_reasons`` is empty when every external call was
    proven, and holds the reasons where not; ``ids`` names the rows and hashes that were read; ``refusal`` is why the
    backtest did not complete.
    """

    metrics: Mapping[str, Any] | None
    quality_status: str | None
    proof_reasons: Sequence[Reason] | None
    reproducible: bool | None
    simulated: bool | None
    environment: Environment | None
    configured_brokers: Sequence[str] | None
    from_stage: Stage
    to_stage: Stage
    capital_cents: int | None
    post_reset: bool | None
    snapshot_current: bool | None
    ids: EvidenceIds
    refusal: Reason | None = None


@dataclass(frozen=True)
class EvidenceIds:
    """Names of the evidence, as text. All but ``score_id`` and ``request_ids`` must be there for a promotion.

    ``request_ids`` may be empty (bars from files) but not None.
    """

    bot_id: str | None
    session_id: str | None
    trace_id: str | None
    snapshot_id: str | None
    verdict_id: str | None
    strategy_hash: str | None
    params_hash: str | None
    result_hash: str | None
    request_ids: Sequence[str] | None = None
    score_id: str | None = None


def evaluate_promotion(evidence: PromotionEvidence, policy: Policy) -> list[GateResult]:
    """Every gate of gates-v1 in its fixed order; pure, reads no clock and no database.

    Order: whether there is a completed backtest at all, the thresholds of the gate set, quality, proof, reproducible,
    what the evidence is, and last whether the target stage has its broker.
    """
    gates = policy.gates_v1
    read = _Metrics(evidence.metrics)
    return [
        _backtest(evidence),
        _at_least("min_sessions", read.count("sessions"), gates.min_sessions, _TOO_FEW_SESSIONS),
        _at_least("min_trades", read.count("trades"), gates.min_trades, _TOO_FEW_TRADES),
        _at_least("min_losers", read.count("losers"), gates.min_losers, _TOO_FEW_LOSERS),
        _at_least("min_win_rate", read.between("win_rate_pct", 0, 100), gates.min_win_rate_pct, _WIN_RATE),
        _at_least("min_profit_factor", read.between("profit_factor", 0), gates.min_profit_factor, _PROFIT_FACTOR),
        _max_drawdown(read, evidence.capital_cents, gates.max_drawdown_pct),
        _worst_day(read, evidence, policy),
        _at_least("min_psr0", read.between("psr0", 0, 1), gates.min_psr0, _PSR),
        _quality(evidence.quality_status),
        _proof(evidence.proof_reasons),
        _is_true("reproducible", evidence.reproducible, _NOT_REPRODUCIBLE),
        _is_true("post_reset", evidence.post_reset, _BEFORE_RESET),
        _is_true("snapshot_current", evidence.snapshot_current, _OTHER_SNAPSHOT),
        _evidence_named(evidence.ids),
        _stage_eligible(evidence.from_stage, evidence.to_stage),
        _source_not_simulated(evidence.simulated, evidence.environment),
        _broker_for_paper(evidence, policy),
    ]


# --- words of the reasons: code, what is wrong, what to do ------------------------------------------------------------
_Words = tuple[ReasonCode, str, str]
_TOO_FEW_SESSIONS: _Words = (
    ReasonCode.TOO_FEW_SESSIONS,
    "the backtest spans {input:g} sessions, at least {threshold:g} are needed",
    "Pull or ingest a longer range of bars and backtest again.",
)
_TOO_FEW_TRADES: _Words = (
    ReasonCode.TOO_FEW_TRADES,
    "the bot made {input:g} trades, at least {threshold:g} are needed",
    "Backtest over a longer range; too few trades prove nothing.",
)
_TOO_FEW_LOSERS: _Words = (
    ReasonCode.TOO_FEW_LOSERS,
    "only {input:g} trades lost, at least {threshold:g} are needed to know what losing looks like",
    "Backtest over a longer range, and look for fills that are too good.",
)
_WIN_RATE: _Words = (
    ReasonCode.WIN_RATE_TOO_LOW,
    "{input:g} % of the trades won, at least {threshold:g} % are needed",
    "Change the strategy's parameters; the diagnostics show where it loses.",
)
_PROFIT_FACTOR: _Words = (
    ReasonCode.PROFIT_FACTOR_TOO_LOW,
    "the profit factor is {input:g}, at least {threshold:g} is needed",
    "Change the strategy's parameters; the diagnostics show where it loses.",
)
_DRAWDOWN: _Words = (
    ReasonCode.MAX_DRAWDOWN_EXCEEDED,
    "the drawdown is {input:g} % of the capital, at most {threshold:g} % is allowed",
    "Trade fewer contracts, use tighter stops, or give the bot more capital.",
)
_DAILY_LOSS: _Words = (
    ReasonCode.DAILY_LOSS_EXCEEDED,
    "the worst day lost {input:g} cents, the stage's daily limit is {threshold:g} cents",
    "Trade fewer contracts, use tighter stops, or give the bot more capital.",
)
_PSR: _Words = (
    ReasonCode.PSR_TOO_LOW,
    "the probability that the Sharpe ratio is over 0 is {input:g}, at least {threshold:g} is needed",
    "Backtest over a longer range, or find a stronger edge: this one may be luck.",
)
_NOT_REPRODUCIBLE: _Words = (
    ReasonCode.NOT_REPRODUCIBLE,
    "running the session again gave another result",
    "Find what the strategy reads beside bars and parameters (`blaid reproduce SESSION` lists the differences).",
)
_BEFORE_RESET: _Words = (
    ReasonCode.STAGE_NOT_ELIGIBLE,
    "the session is from before the bot's last reset",
    "Backtest the bot again; metrics from before a reset do not count.",
)

_OTHER_SNAPSHOT: _Words = (
    ReasonCode.SNAPSHOT_NOT_CURRENT,
    "the session read a snapshot that somebody named, not the current one of the bot's series",
    "Backtest it on the current snapshot: `blaid backtest NAME` without --snapshot.",
)


# --- reading ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reading:
    """One input: the number, or None with the words for what is wrong with it."""

    name: str
    value: float | int | None
    problem: str | None = None
    raw: Any = None


class _Metrics:
    """Reads numbers out of a stored metrics document, trusting nothing."""

    def __init__(self, metrics: Mapping[str, Any] | None) -> None:
        self._metrics = metrics

    def number(self, name: str) -> Reading:
        if self._metrics is None:
            return Reading(name, None, "there are no metrics")
        if name not in self._metrics:
            return Reading(name, None, f"{name} is absent from the metrics")
        return check_number(name, self._metrics[name])

    def between(self, name: str, low: float, high: float = math.inf) -> Reading:
        reading = self.number(name)
        if reading.value is None or low <= reading.value <= high:
            return reading
        return Reading(name, None, f"{name} is {reading.value}, which is impossible", reading.value)

    def count(self, name: str) -> Reading:
        reading = self.between(name, 0)
        if reading.value is None or float(reading.value).is_integer():
            return reading
        return Reading(name, None, f"{name} is {reading.value}, which is no count", reading.value)


def check_number(name: str, value: Any) -> Reading:
    """``value`` as a finite number, or what is wrong with it. Text, switches, nan and infinity are no numbers."""
    if value is None:
        return Reading(name, None, f"{name} is not defined for this session")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Reading(name, None, f"{name} is not a number", repr(value))
    if isinstance(value, int) and abs(value) > _LARGEST_INT:
        return Reading(name, None, f"{name} is too large to be true", str(value)[:40])
    if not math.isfinite(value):
        return Reading(name, None, f"{name} is {value}", repr(value))
    return Reading(name, value, None, value)


# --- gates ------------------------------------------------------------------------------------------------------------
def _unknown(gate: str, comparison: str, threshold: Any, problem: str, fix: str, raw: Any = None) -> GateResult:
    numbers = {} if raw is None else {"input": raw}
    reason = Reason(ReasonCode.EVIDENCE_MISSING, f"{gate} cannot be judged: {problem}", fix, numbers)
    return GateResult(gate, GateStatus.UNKNOWN, None, threshold, comparison, reason)


def _backtest(evidence: PromotionEvidence) -> GateResult:
    """Asked first, so that a refused or failed backtest shows its own reason and not the numbers it never made."""
    if evidence.refusal is not None:
        return GateResult("backtest", GateStatus.FAIL, "not completed", "COMPLETED", "==", evidence.refusal)
    if evidence.metrics is None:
        problem = "there is no completed backtest"
        return _unknown("backtest", "==", "COMPLETED", problem, "Backtest the bot: `blaid backtest NAME`.")
    return GateResult("backtest", GateStatus.PASS, "COMPLETED", "COMPLETED", "==")


def _compare(
    gate: str, reading: Reading, threshold: float, words: _Words, comparison: str, passes: Callable[[float], bool]
) -> GateResult:
    if reading.value is None:
        fix = "Backtest the bot again; if it stays so, the session's range or trades do not define this number."
        return _unknown(gate, comparison, threshold, reading.problem or "no input", fix, reading.raw)
    if passes(reading.value):
        return GateResult(gate, GateStatus.PASS, reading.value, threshold, comparison)
    code, message, fix = words
    reason = Reason(
        code,
        message.format(input=reading.value, threshold=threshold),
        fix,
        {"input": reading.value, "threshold": threshold},
    )
    return GateResult(gate, GateStatus.FAIL, reading.value, threshold, comparison, reason)


def _at_least(gate: str, reading: Reading, threshold: float, words: _Words) -> GateResult:
    return _compare(gate, reading, threshold, words, ">=", lambda value: value >= threshold)


def _at_most(gate: str, reading: Reading, threshold: float, words: _Words) -> GateResult:
    return _compare(gate, reading, threshold, words, "<=", lambda value: value <= threshold)


def _capital(capital_cents: int | None) -> Reading:
    reading = check_number("capital_cents", capital_cents)
    if reading.value is not None and reading.value <= 0:
        return Reading("capital_cents", None, f"capital_cents is {reading.value}, which is impossible", reading.value)
    return reading


def _max_drawdown(read: _Metrics, capital_cents: int | None, threshold: float) -> GateResult:
    """Drawdown as per cent of the bot's own capital; the cents behind it must tell the same story."""
    reading = read.between("max_drawdown_pct", 0)
    cents, capital = read.between("max_drawdown_cents", 0), _capital(capital_cents)
    if reading.value is not None:
        for other in (cents, capital):
            if other.value is None:
                reading = Reading(reading.name, None, other.problem, other.raw)
                break
        else:
            assert cents.value is not None
            assert capital.value is not None
            of_capital = 100 * cents.value / capital.value
            if abs(of_capital - float(reading.value or 0)) > _DRAWDOWN_TOLERANCE_PCT:
                problem = (
                    f"max_drawdown_pct says {reading.value}, the cents say {of_capital:.4f} % of the bot's capital"
                )
                reading = Reading(reading.name, None, problem, reading.value)
    return _at_most("max_drawdown", reading, threshold, _DRAWDOWN)


def _worst_day(read: _Metrics, evidence: PromotionEvidence, policy: Policy) -> GateResult:
    """Loss of the worst exchange day, as positive cents, against the limit of the stage it was made in."""
    capital, worst = _capital(evidence.capital_cents), read.number("worst_day_cents")
    if capital.value is None:
        return _unknown("worst_day", "<=", None, capital.problem or "", "Give the bot a capital.", capital.raw)
    limit = policy.stages[evidence.from_stage].daily_loss_limit_cents(int(capital.value))
    if worst.value is not None:
        worst = Reading(worst.name, max(0, -worst.value), None, worst.raw)
    return _at_most("worst_day", worst, limit, _DAILY_LOSS)


def _quality(status: str | None) -> GateResult:
    if status == "PASS":
        return GateResult("quality", GateStatus.PASS, status, "PASS", "==")
    if status == "FAIL":
        reason = Reason(
            ReasonCode.DATA_QUALITY_FAILED,
            "the bars of this session failed the quality gate",
            "Pull or ingest other bars; the verdict lists what is wrong with these.",
        )
        return GateResult("quality", GateStatus.FAIL, status, "PASS", "==", reason)
    reason = Reason(
        ReasonCode.DATA_QUALITY_UNKNOWN,
        "there is no quality verdict on the bars of this session",
        "Have the bars judged (pull or ingest them again) and backtest again.",
    )
    return GateResult("quality", GateStatus.UNKNOWN, None, "PASS", "==", reason)


def _proof(reasons: Sequence[Reason] | None) -> GateResult:
    fix = "Backtest the bot again; `blaid status` compares calls and rows."
    if reasons is None:
        return _unknown("proof", "==", "PASS", "the external calls behind it were not checked", fix)
    if not reasons:
        return GateResult("proof", GateStatus.PASS, "PASS", "PASS", "==")
    first = reasons[0]
    unknown = all(reason.code is ReasonCode.PROOF_UNKNOWN for reason in reasons)
    status = GateStatus.UNKNOWN if unknown else GateStatus.FAIL
    numbers = {"input": status.value, "reasons": [reason.as_dict() for reason in reasons]}
    reason = Reason(first.code, first.message, first.suggested_fix or fix, numbers)
    return GateResult("proof", status, None if unknown else status.value, "PASS", "==", reason)


def _is_true(gate: str, value: bool | None, words: _Words) -> GateResult:
    code, message, fix = words
    if value is True:
        return GateResult(gate, GateStatus.PASS, True, True, "==")
    if value is False:
        return GateResult(gate, GateStatus.FAIL, False, True, "==", Reason(code, message, fix))
    return _unknown(gate, "==", True, "it was not established", "Backtest the bot again.")


def _evidence_named(ids: EvidenceIds) -> GateResult:
    """No decision without evidence: the rows and hashes that it rests on are named in the gate's own input."""
    needed = {
        "bot_id": ids.bot_id,
        "session_id": ids.session_id,
        "trace_id": ids.trace_id,
        "snapshot_id": ids.snapshot_id,
        "verdict_id": ids.verdict_id,
        "strategy_hash": ids.strategy_hash,
        "params_hash": ids.params_hash,
        "result_hash": ids.result_hash,
    }
    absent = [name for name, value in needed.items() if not value]
    if ids.request_ids is None:
        absent.append("request_ids")
    if absent:
        problem = f"the evidence lacks {', '.join(absent)}"
        return _unknown("evidence", "has", "every id", problem, "Backtest the bot again.", absent)
    return GateResult("evidence", GateStatus.PASS, needed, "every id", "has")


def _stage_eligible(from_stage: Stage, to_stage: Stage) -> GateResult:
    move, known = f"{from_stage.value}->{to_stage.value}", f"{Stage.LAB.value}->{Stage.PAPER.value}"
    if move == known:
        return GateResult("stage", GateStatus.PASS, move, known, "==")
    reason = Reason(
        ReasonCode.STAGE_NOT_ELIGIBLE,
        f"this gate set judges {known} only, not {move}",
        "Ask for the move that the bot's stage allows.",
        {"input": move, "threshold": known},
    )
    return GateResult("stage", GateStatus.FAIL, move, known, "==", reason)


def _source_not_simulated(simulated: bool | None, environment: Environment | None) -> GateResult:
    gate, fix = "source_not_simulated", "Backtest on bars from the real provider, or on files from the exchange."
    if simulated is None or environment is None:
        return _unknown(gate, "==", False, "it is not known whether the bars are simulated", fix)
    if simulated is False:
        return GateResult(gate, GateStatus.PASS, False, False, "==")
    if environment is Environment.SANDBOX:
        note = "the bars are simulated; allowed because this whole world is a sandbox"
        return GateResult(gate, GateStatus.PASS, True, "sandbox only", "==", note=note)
    reason = Reason(
        ReasonCode.SIMULATED_SOURCE_REFUSED,
        f"the bars are simulated, which {environment.value} does not accept above LAB",
        fix,
        {"input": True, "environment": environment.value},
    )
    return GateResult(gate, GateStatus.FAIL, True, False, "==", reason)


def _broker_for_paper(evidence: PromotionEvidence, policy: Policy) -> GateResult:
    """Asked last: a bot that fails here alone is ready, and waits for a broker."""
    gate, brokers = "broker_for_paper", evidence.configured_brokers
    if not policy.stages[evidence.to_stage].required.broker:
        return GateResult(gate, GateStatus.PASS, None, 0, ">=", note="the target stage needs no broker")
    fix = (
        "Set the variables of one broker: IRONBEAM_USERNAME and IRONBEAM_API_KEY, or TRADOVATE_NAME, "
        "TRADOVATE_PASSWORD, TRADOVATE_CID and TRADOVATE_SEC."
    )
    if brokers is None:
        return _unknown(gate, ">=", 1, "it is not known which brokers are configured", fix)
    if brokers:
        return GateResult(gate, GateStatus.PASS, len(brokers), 1, ">=", note=f"configured: {', '.join(brokers)}")
    reason = Reason(
        ReasonCode.BROKER_REQUIRED_FOR_PAPER,
        f"{evidence.to_stage.value} sends orders to a broker, and none is configured",
        fix,
        {"input": 0, "threshold": 1},
    )
    return GateResult(gate, GateStatus.FAIL, 0, 1, ">=", reason)
