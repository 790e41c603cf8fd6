"""Typed reasons: why something was refused, failed or is unknown.

A reason is a code from one closed list, a sentence, the numbers behind it and what to do next. Every refusal in
Blaid, whether it ends in an exit code, a quarantined snapshot, a gate row or a Dagster check, carries one. Exceptions
are named by what the operator must do. No thresholds live here; they are in policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ReasonCode(StrEnum):
    """Every reason Blaid can give. The value is what users, logs, tables and replies show."""

    # usage and configuration
    INVALID_REQUEST = "INVALID_REQUEST"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    SETTINGS_INVALID = "SETTINGS_INVALID"
    POLICY_INVALID = "POLICY_INVALID"
    INTEGRATION_KEY_MISSING = "INTEGRATION_KEY_MISSING"
    # installation and lifecycle
    ENVIRONMENT_MISMATCH = "ENVIRONMENT_MISMATCH"
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"
    SCHEMA_OUT_OF_DATE = "SCHEMA_OUT_OF_DATE"
    ALREADY_RUNNING = "ALREADY_RUNNING"
    PROCESS_FAILED = "PROCESS_FAILED"
    INSTALLATION_BROKEN = "INSTALLATION_BROKEN"
    # proof
    LEDGER_UNAVAILABLE = "LEDGER_UNAVAILABLE"
    PROOF_MISMATCH = "PROOF_MISMATCH"
    PROOF_UNKNOWN = "PROOF_UNKNOWN"
    # providers
    AUTH_FAILED = "AUTH_FAILED"
    ENTITLEMENT_MISSING = "ENTITLEMENT_MISSING"
    RATE_LIMITED = "RATE_LIMITED"
    BAD_REQUEST = "BAD_REQUEST"
    UPSTREAM_5XX = "UPSTREAM_5XX"
    TIMEOUT = "TIMEOUT"
    BAD_RESPONSE = "BAD_RESPONSE"
    PROVIDER_UNREACHABLE = "PROVIDER_UNREACHABLE"
    CONNECTION_BROKEN = "CONNECTION_BROKEN"
    SYMBOL_NOT_FOUND = "SYMBOL_NOT_FOUND"
    PARTIAL_RESOLUTION = "PARTIAL_RESOLUTION"
    RANGE_UNAVAILABLE = "RANGE_UNAVAILABLE"
    COST_BUDGET_EXCEEDED = "COST_BUDGET_EXCEEDED"
    COST_UNKNOWN = "COST_UNKNOWN"
    SIMULATED_SOURCE_REFUSED = "SIMULATED_SOURCE_REFUSED"
    STAND_IN_REFUSED = "STAND_IN_REFUSED"
    # market data
    FILE_UNREADABLE = "FILE_UNREADABLE"
    FORMAT_UNSUPPORTED = "FORMAT_UNSUPPORTED"
    TIME_INVALID = "TIME_INVALID"
    INSTRUMENT_UNKNOWN = "INSTRUMENT_UNKNOWN"
    INSTRUMENT_MISMATCH = "INSTRUMENT_MISMATCH"
    DATA_UNAVAILABLE = "DATA_UNAVAILABLE"
    SNAPSHOT_MISSING = "SNAPSHOT_MISSING"
    SNAPSHOT_AMBIGUOUS = "SNAPSHOT_AMBIGUOUS"
    SNAPSHOT_CORRUPT = "SNAPSHOT_CORRUPT"
    SNAPSHOT_REMOVED = "SNAPSHOT_REMOVED"
    LAKE_MISMATCH = "LAKE_MISMATCH"
    PULL_INCOMPLETE = "PULL_INCOMPLETE"
    DATA_QUALITY_FAILED = "DATA_QUALITY_FAILED"
    DATA_QUALITY_UNKNOWN = "DATA_QUALITY_UNKNOWN"
    BAR_COUNT_TOO_LOW = "BAR_COUNT_TOO_LOW"
    FIELD_MISSING = "FIELD_MISSING"
    VALUE_NOT_FINITE = "VALUE_NOT_FINITE"
    PRICE_NOT_POSITIVE = "PRICE_NOT_POSITIVE"
    OHLC_ORDER = "OHLC_ORDER"
    OFF_TICK_GRID = "OFF_TICK_GRID"
    PRICE_SCALE = "PRICE_SCALE"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    SESSION_GAP = "SESSION_GAP"
    OUTSIDE_SESSION = "OUTSIDE_SESSION"
    HOURS_UNKNOWN = "HOURS_UNKNOWN"
    STALE_DATA = "STALE_DATA"
    TOO_MUCH_MISSING = "TOO_MUCH_MISSING"
    OFF_TIME_GRID = "OFF_TIME_GRID"
    VOLUME_INVALID = "VOLUME_INVALID"
    COPIED_SESSION = "COPIED_SESSION"
    RECONCILIATION_FAILED = "RECONCILIATION_FAILED"
    RECONCILIATION_MISSING = "RECONCILIATION_MISSING"
    RECONCILIATION_UNKNOWN = "RECONCILIATION_UNKNOWN"
    BARS_DIFFER = "BARS_DIFFER"
    BARS_MISSING = "BARS_MISSING"
    VOLUME_DIFFERS = "VOLUME_DIFFERS"
    RANGE_DIFFERS = "RANGE_DIFFERS"
    ROLL_RULE_UNAVAILABLE = "ROLL_RULE_UNAVAILABLE"
    PLACEHOLDER_PRICE = "PLACEHOLDER_PRICE"
    PRICE_SPIKE = "PRICE_SPIKE"
    OPEN_CLOSE_SWAPPED = "OPEN_CLOSE_SWAPPED"
    FROZEN_FEED = "FROZEN_FEED"
    ROLL_BACKWARD = "ROLL_BACKWARD"
    ROLL_STEP_TOO_LARGE = "ROLL_STEP_TOO_LARGE"
    CONTRACT_EXPIRED = "CONTRACT_EXPIRED"
    NO_SESSION_DATE = "NO_SESSION_DATE"
    BAR_NOT_ENDED = "BAR_NOT_ENDED"
    # backtest
    STRATEGY_UNKNOWN = "STRATEGY_UNKNOWN"
    PARAMETER_INVALID = "PARAMETER_INVALID"
    BARS_UNSUITED = "BARS_UNSUITED"
    NOT_ENOUGH_BARS = "NOT_ENOUGH_BARS"
    MARGIN_EXCEEDS_CAPITAL = "MARGIN_EXCEEDS_CAPITAL"
    COSTS_CHANGE_IN_RANGE = "COSTS_CHANGE_IN_RANGE"
    NOT_REPRODUCIBLE = "NOT_REPRODUCIBLE"
    SESSION_INCOMPLETE = "SESSION_INCOMPLETE"
    METRICS_INCOMPLETE = "METRICS_INCOMPLETE"
    # gates
    TOO_FEW_SESSIONS = "TOO_FEW_SESSIONS"
    TOO_FEW_TRADES = "TOO_FEW_TRADES"
    TOO_FEW_LOSERS = "TOO_FEW_LOSERS"
    WIN_RATE_TOO_LOW = "WIN_RATE_TOO_LOW"
    PROFIT_FACTOR_TOO_LOW = "PROFIT_FACTOR_TOO_LOW"
    MAX_DRAWDOWN_EXCEEDED = "MAX_DRAWDOWN_EXCEEDED"
    DAILY_LOSS_EXCEEDED = "DAILY_LOSS_EXCEEDED"
    PSR_TOO_LOW = "PSR_TOO_LOW"
    BROKER_REQUIRED_FOR_PAPER = "BROKER_REQUIRED_FOR_PAPER"
    EVIDENCE_MISSING = "EVIDENCE_MISSING"
    STAGE_NOT_ELIGIBLE = "STAGE_NOT_ELIGIBLE"
    SNAPSHOT_NOT_CURRENT = "SNAPSHOT_NOT_CURRENT"
    BOT_CHANGED = "BOT_CHANGED"
    AUTONOMY_BLOCKED = "AUTONOMY_BLOCKED"
    # jobs
    HEARTBEAT_TIMEOUT = "HEARTBEAT_TIMEOUT"
    TRANSITION_NOT_ALLOWED = "TRANSITION_NOT_ALLOWED"
    JOB_FAILED = "JOB_FAILED"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason: code, sentence, the numbers it rests on, and the next step.

    ``numbers`` holds JSON values only (the limit, the value, the account): it is stored and shown as it is.
    """

    code: ReasonCode
    message: str
    suggested_fix: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The reason as JSON-ready values, in a fixed order."""
        return {
            "code": self.code.value,
            "message": self.message,
            "suggested_fix": self.suggested_fix,
            "numbers": dict(self.numbers),
        }

    def __str__(self) -> str:
        return f"{self.code.value}: {self.message}"


class BlaidError(Exception):
    """Base of every error Blaid raises on purpose; carries its reasons. ``exit_code`` is the command's exit status."""

    exit_code = 1

    def __init__(self, reason: Reason, *more: Reason) -> None:
        super().__init__(str(reason))
        self.reasons: tuple[Reason, ...] = (reason, *more)

    @property
    def reason(self) -> Reason:
        """The first, deciding reason."""
        return self.reasons[0]


class InvalidRequest(BlaidError):
    """The caller asked for something that makes no sense: correct the call."""

    exit_code = 2


class Refused(BlaidError):
    """A gate said no: read the reason, mend its cause, ask again."""

    exit_code = 3


class StopAndFix(BlaidError):
    """Something on our side is wrong (settings, policy, key, file): mend it before trying again."""


class RetryLater(BlaidError):
    """A passing condition (rate limit, time-out, 5xx): try again later, after ``retry_after_s`` where it is known."""

    def __init__(self, reason: Reason, *more: Reason, retry_after_s: float | None = None) -> None:
        super().__init__(reason, *more)
        self.retry_after_s = retry_after_s


class DependencyDown(BlaidError):
    """A dependency (database, gateway) does not answer: check it."""
