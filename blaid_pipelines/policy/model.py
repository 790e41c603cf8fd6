"""The shape of a policy: five stages, gates-v1, quality thresholds, budgets, autonomy weights, LAB settings.

Every field is required and says which way is looser (``looser`` in its metadata), so that a policy can be compared
with the built-in bounds. Rules that no reason can loosen are validators here. Values live in ``default.toml``, bounds
in ``bounds.toml``; reading and comparing is ``policy.load``. Percentages are of the bot's capital unless they say else.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from blaid_pipelines.ids import fingerprint
from blaid_pipelines.market.gate.thresholds import QualityThresholds
from blaid_pipelines.market.purchase.limits import PullLimits
from blaid_pipelines.market.reconcile.thresholds import ReconciliationThresholds
from blaid_pipelines.providers.budget import DataBudget
from blaid_pipelines.settings import Environment

GATE_SET = "gates-v1"

Looser = Literal["higher", "lower", "true", "false", "change", "none"]
Fallback = Literal["none", "alt_provider", "sim"]  # from strict to loose
FALLBACK_ORDER: tuple[Fallback, ...] = ("none", "alt_provider", "sim")


class Stage(StrEnum):
    """The ladder of a bot, lowest first."""

    LAB = "LAB"
    PAPER = "PAPER"
    SHADOW = "SHADOW"
    CANARY = "CANARY"
    LIVE = "LIVE"


STAGE_LADDER: tuple[Stage, ...] = tuple(Stage)


def limit(looser: Looser | list[str], doc: str, **rules: Any) -> Any:
    """A field that is a limit: ``looser`` says which values are looser than another.

    ``higher``/``lower`` for numbers, ``true``/``false`` for switches, a list from strict to loose for words, ``change``
    where no side is the strict one and any other value needs a reason, ``none`` for a field that limits nothing.
    """
    return Field(description=doc, json_schema_extra={"looser": looser}, **rules)  # type: ignore[dict-item]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class RequiredSources(_Part):
    """Sources without which the stage does not run."""

    market_data: bool = limit("false", "Bars from the configured provider.")
    broker: bool = limit("false", "A configured broker.")
    macro: bool = limit("false", "Macro series.")
    options_flow: bool = limit("false", "Options flow.")
    news: bool = limit("false", "News.")
    calendar: bool = limit("false", "Economic calendar.")
    ai: bool = limit("false", "An AI provider.")


class AllowedFallbacks(_Part):
    """What may stand in when a source fails: ``none``, ``alt_provider`` or ``sim``."""

    market_data: Fallback = limit(list(FALLBACK_ORDER), "sim counts in LAB only, see effective_fallback.")
    broker: Fallback = limit(list(FALLBACK_ORDER), "Never sim: no fill is invented.")
    macro: Fallback = limit(list(FALLBACK_ORDER), "Macro series.")
    options_flow: Fallback = limit(list(FALLBACK_ORDER), "Options flow.")
    news: Fallback = limit(list(FALLBACK_ORDER), "News.")
    calendar: Fallback = limit(list(FALLBACK_ORDER), "Economic calendar.")
    ai: Fallback = limit(list(FALLBACK_ORDER), "AI provider.")


class MaxLatency(_Part):
    """Milliseconds after which an answer of a source counts as late, and late counts as missing."""

    market_data: int = limit("higher", "Bars, or a live bar after its close.", gt=0)
    broker: int = limit("higher", "An acknowledgement.", gt=0)
    macro: int = limit("higher", "Macro series.", gt=0)
    options_flow: int = limit("higher", "Options flow.", gt=0)
    news: int = limit("higher", "News.", gt=0)
    calendar: int = limit("higher", "Economic calendar.", gt=0)
    ai: int = limit("higher", "AI provider.", gt=0)


class Cooldowns(_Part):
    """Seconds of rest after something went wrong."""

    after_failed_job_s: int = limit("lower", "Before a failed job of a bot is tried again.", ge=0)
    after_loss_s: int = limit("lower", "No entry after a losing trade.", ge=0)
    after_reject_s: int = limit("lower", "No order after a rejected one.", ge=0)
    after_restart_s: int = limit("lower", "No entry after a runner restart.", ge=0)


class RetryLimits(_Part):
    """How often something may be tried again."""

    provider_attempts: int = limit("higher", "Attempts at one provider call, the first included.", ge=1)
    job_retries: int = limit("higher", "Retries of a failed job.", ge=0)
    order_resends: int = limit("higher", "Resends of an order without an answer; its fate is asked instead.", ge=0)
    restarts: int = limit("higher", "Runner restarts within the window before the breaker opens.", ge=0)
    restart_window_min: int = limit("lower", "Length of that window in minutes.", gt=0)


class Cadence(_Part):
    """How often a job of one type is due for one bot, and from when on it is late."""

    every_s: int = limit("none", "Seconds between two starts.", gt=0)
    late_after_s: int = limit("higher", "Seconds after the last start from which the job is reported late.", gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Cadence:
        if self.late_after_s < self.every_s:
            raise ValueError("late_after_s must be at least every_s")
        return self


class LabCadence(_Part):
    """Research jobs of one bot."""

    BACKTEST: Cadence
    IMPROVE: Cadence
    EVOLVE: Cadence


class TradingCadence(_Part):
    """Execution jobs of one bot. EXECUTE is PAPER_EXECUTE in PAPER and LIVE_EXECUTE above it."""

    RUNNER_HEALTHCHECK: Cadence
    SCAN: Cadence
    SIGNAL_FUSION: Cadence
    EXECUTE: Cadence
    POST_TRADE_AUDIT: Cadence
    RECONCILE: Cadence


class RiskBudget(_Part):
    """What one bot may risk in the stage."""

    max_drawdown_pct: float = limit("higher", "Drawdown from the peak.", gt=0, le=100)
    max_risk_per_trade_pct: float = limit("higher", "Loss of one trade at its stop.", gt=0, le=100)
    max_contracts: int = limit("higher", "Contracts held at once.", ge=1)


class Fusion(_Part):
    """When fused signals may become a trade."""

    min_confidence: float = limit("lower", "Fused confidence below which nothing is traded.", ge=0, le=1)
    min_sources: int = limit("lower", "Sources that must have answered.", ge=1)
    regime_must_agree: bool = limit("false", "The regime must agree with the signal.")


class StagePolicy(_Part):
    """What holds in one stage; the research and the trading stages add their cadence."""

    required: RequiredSources
    allowed_fallbacks: AllowedFallbacks
    ai_allowed: bool = limit("true", "AI may advise (it never decides); each call is logged.")
    max_latency_ms: MaxLatency
    cooldowns: Cooldowns
    retry_limits: RetryLimits
    risk_budget: RiskBudget
    max_daily_loss_pct: float = limit("higher", "Loss on one exchange day, realised and open.", gt=0, le=100)
    fusion: Fusion

    def daily_loss_limit_cents(self, capital_cents: int) -> int:
        """The stage's daily loss limit for a bot with this capital, in whole cents rounded down."""
        return int(Decimal(capital_cents) * Decimal(str(self.max_daily_loss_pct)) / 100)


class LabStage(StagePolicy):
    """The research stage."""

    cadence: LabCadence


class TradingStage(StagePolicy):
    """A stage that sends orders. Its broker and its bars cannot be waived, and nothing in it is simulated."""

    cadence: TradingCadence

    @model_validator(mode="after")
    def _nothing_simulated(self) -> TradingStage:
        if not self.required.market_data or not self.required.broker:
            raise ValueError("market_data and broker are required above LAB; no reason loosens that")
        simulated = [name for name, value in self.allowed_fallbacks if value == "sim"]
        if simulated:
            raise ValueError(f"allowed_fallbacks of {', '.join(simulated)} cannot be sim above LAB")
        return self


class Stages(_Part):
    """The five stages; ``policy.stages[Stage.LAB]`` or ``policy.stages.LAB``."""

    LAB: LabStage
    PAPER: TradingStage
    SHADOW: TradingStage
    CANARY: TradingStage
    LIVE: TradingStage

    def __getitem__(self, stage: Stage | str) -> StagePolicy:
        part = getattr(self, Stage(stage).value)
        assert isinstance(part, StagePolicy)
        return part

    def ladder(self) -> Iterator[tuple[Stage, StagePolicy]]:
        """Each stage with its policy, lowest first."""
        return ((stage, self[stage]) for stage in STAGE_LADDER)


class GatesV1(_Part):
    """Thresholds of LAB to PAPER. The daily loss limit is the stage's; quality, proof and reproducible have none."""

    min_sessions: int = limit("lower", "Exchange sessions in the backtest.", ge=1)
    min_trades: int = limit("lower", "Closed trades.", ge=1)
    min_losers: int = limit("lower", "Losing trades: without losses nothing is known about them.", ge=1)
    min_win_rate_pct: float = limit("lower", "Winning trades, per cent of all trades.", ge=0, le=100)
    min_profit_factor: float = limit("lower", "Gross profit over gross loss, after costs.", ge=0)
    max_drawdown_pct: float = limit("higher", "Largest fall of equity from its peak.", gt=0, le=100)
    min_psr0: float = limit("lower", "Probability that the true Sharpe ratio is over 0.", gt=0, le=1)


class ResearchBudget(_Part):
    """How much research may run."""

    max_concurrent_backtests: int = limit("higher", "Backtests at one time on one host.", ge=1)
    max_improvements_per_hour: int = limit("higher", "IMPROVE jobs of all bots.", ge=0)
    max_evolutions_per_hour: int = limit("higher", "EVOLVE jobs of all bots.", ge=0)


class Budgets(_Part):
    """Money for data, room for research."""

    data: DataBudget
    research: ResearchBudget


class AutonomyWeights(_Part):
    """Points of each sub-score; together 100."""

    data_reliability: float = limit("change", "Bars and the calls that brought them.", ge=0, le=100)
    decision_quality: float = limit("change", "What the trades show.", ge=0, le=100)
    risk_discipline: float = limit("change", "Distance to the limits.", ge=0, le=100)
    execution_health: float = limit("change", "What became of orders.", ge=0, le=100)
    supervisor_trust: float = limit("change", "Heartbeats and interventions.", ge=0, le=100)

    @model_validator(mode="after")
    def _hundred(self) -> AutonomyWeights:
        total = sum(Decimal(str(value)) for _, value in self)
        if total != 100:
            raise ValueError(f"the weights must add up to 100, not {total}")
        return self


class AutonomyTiers(_Part):
    """Score from which a tier begins; below the first a bot is LOCKED."""

    supervised_at: float = limit("lower", "SUPERVISED.", gt=0, le=100)
    limited_autonomy_at: float = limit("lower", "LIMITED_AUTONOMY.", gt=0, le=100)
    full_autonomy_at: float = limit("lower", "FULL_AUTONOMY.", gt=0, le=100)

    @model_validator(mode="after")
    def _ascending(self) -> AutonomyTiers:
        if not self.supervised_at < self.limited_autonomy_at < self.full_autonomy_at:
            raise ValueError("the tiers must ascend")
        return self


class AutonomyPolicy(_Part):
    """Weights and tiers of the autonomy score; its formulas are versioned code."""

    weights: AutonomyWeights
    tiers: AutonomyTiers


class LabPolicy(_Part):
    """How the LAB sensor works; how often a bot is due is ``stages.LAB.cadence``."""

    sensor_interval_s: int = limit("none", "Seconds between two looks for due bots.", ge=10)
    cohort_max_bots: int = limit("none", "Bots that one run takes.", ge=1)


class Loosened(_Part):
    """One field that is looser than its bound, and why."""

    field: str = limit("none", "Dotted path, such as gates_v1.max_drawdown_pct.", min_length=1)
    reason: str = limit("none", "Why, for the person who reads the decision later; at least ten characters.")

    @model_validator(mode="after")
    def _says_why(self) -> Loosened:
        if len(self.reason.strip()) < 10:
            raise ValueError("the reason must say why, in at least ten characters")
        return self


class Policy(_Part):
    """A whole policy. Build it with :func:`blaid_pipelines.policy.load.load_policy`, which also checks the bounds."""

    version: str = limit("none", "The operator's own name for this policy.", min_length=1)
    stages: Stages
    gates_v1: GatesV1
    quality: QualityThresholds
    reconciliation: ReconciliationThresholds
    budgets: Budgets
    pulls: PullLimits
    autonomy: AutonomyPolicy
    lab: LabPolicy
    loosened: tuple[Loosened, ...] = Field(default=(), strict=False)

    @property
    def hash(self) -> str:
        """sha256 of the policy's content, loosened fields and their reasons included; comments do not count."""
        return fingerprint(self.model_dump(mode="json"))


def effective_fallback(
    policy: Policy, stage: Stage, source: str, environment: Environment, allow_sim_fallback: bool
) -> Fallback:
    """What may really stand in for ``source``: ``sim`` only in LAB, in dev, with ``ALLOW_SIM_FALLBACK=true``.

    The sandbox is a world of its own: there the local gateway is the provider, and nothing falls back to it.
    """
    allowed: Fallback = getattr(policy.stages[stage].allowed_fallbacks, source)
    if allowed == "sim" and not (stage is Stage.LAB and environment is Environment.DEV and allow_sim_fallback):
        return "none"
    return allowed
