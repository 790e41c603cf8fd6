"""Evidence for the tests of gates and score: a bot that passes everything, to be spoilt one field at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from blaid_pipelines.policy.gates import EvidenceIds, PromotionEvidence
from blaid_pipelines.policy.model import Stage
from blaid_pipelines.settings import Environment

CAPITAL_CENTS = 1_000_000

GOOD_METRICS: dict[str, Any] = {
    "sessions": 120,
    "trades": 400,
    "losers": 160,
    "win_rate_pct": 55.0,
    "profit_factor": 1.6,
    "max_drawdown_pct": 8.0,
    "max_drawdown_cents": 80_000,
    "worst_day_cents": -12_000,
    "psr0": 0.995,
}

IDS = EvidenceIds(
    bot_id="0190c000-0000-7000-8000-000000000001",
    session_id="0190c000-0000-7000-8000-000000000002",
    trace_id="a" * 32,
    snapshot_id="snapshot",
    verdict_id="0190c000-0000-7000-8000-000000000003",
    strategy_hash="strategy",
    params_hash="params",
    result_hash="result",
    request_ids=["0190c000-0000-7000-8000-000000000004"],
    score_id="0190c000-0000-7000-8000-000000000005",
)

GOOD = PromotionEvidence(
    metrics=GOOD_METRICS,
    quality_status="PASS",
    proof_reasons=[],
    reproducible=True,
    simulated=False,
    environment=Environment.PRODUCTION,
    configured_brokers=["ironbeam"],
    from_stage=Stage.LAB,
    to_stage=Stage.PAPER,
    capital_cents=CAPITAL_CENTS,
    post_reset=True,
    snapshot_current=True,
    ids=IDS,
)


def with_metrics(**changes: Any) -> PromotionEvidence:
    """Good evidence with some metrics replaced; ``...`` removes one."""
    metrics = {**GOOD_METRICS, **changes}
    return replace(GOOD, metrics={name: value for name, value in metrics.items() if value is not ...})
