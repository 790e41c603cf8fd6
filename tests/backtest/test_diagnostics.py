"""Diagnostics: every view adds up to the whole, regimes look back only, numbers are JSON and repeat."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.diagnostics import diagnose
from blaid_pipelines.backtest.engine import BacktestResult, CostModel, run_backtest
from tests.backtest.bars import make_spec, random_market

SPEC = make_spec(
    params={"fast": 5, "slow": 20, "stop_ticks": 25, "target_ticks": 40},
    costs=CostModel(1_250_000, 390_000, 470_000, 1),
    daily_loss_limit_cents=20_000,
)
MARKET = random_market(31, 12_000, roll_at=6_000)


@pytest.fixture(scope="module")
def result() -> BacktestResult:
    return run_backtest(SPEC, MARKET)


@pytest.fixture(scope="module")
def payload(result: BacktestResult) -> dict[str, Any]:
    return diagnose(result, MARKET, SPEC)


def test_every_view_adds_up_to_the_whole(result: BacktestResult, payload: dict[str, Any]) -> None:
    assert sorted(payload["breakdown"]) == [
        "bars_held", "exit_reason", "hour", "month", "roll", "session_part", "side", "trend", "volatility", "weekday",
    ]  # fmt: skip
    for buckets in payload["breakdown"].values():
        assert sum(bucket["trades"] for bucket in buckets) == result.metrics.trades
        assert sum(bucket["net_pnl_cents"] for bucket in buckets) == result.metrics.net_pnl_cents
        for bucket in buckets:
            low, high = bucket["win_rate_interval_pct"]
            assert 0 <= low <= bucket["win_rate_pct"] <= high <= 100
            if bucket["trades"] > 1:
                low, high = bucket["expectancy_interval_cents"]
                assert low <= bucket["expectancy_cents"] <= high


def test_views_have_their_buckets(payload: dict[str, Any]) -> None:
    def names(view: str) -> list[str]:
        return [bucket["bucket"] for bucket in payload["breakdown"][view]]

    assert names("side") == ["LONG", "SHORT"]
    assert names("volatility") == ["LOW", "MIDDLE", "HIGH", "UNKNOWN"]
    assert set(names("trend")) <= {"UP", "RANGE", "DOWN", "UNKNOWN"}
    assert names("roll") == ["OTHER", "ROLL_WEEK"]
    assert "DAILY_LOSS" in names("exit_reason")
    assert names("weekday") == ["Mon", "Tue", "Wed", "Thu", "Fri"]


def test_regimes_do_not_look_ahead(payload: dict[str, Any]) -> None:
    """Trades that are over before a cut fall into the same regimes when the bars after it are not there."""
    cut = 9_000
    short = MARKET.slice(0, cut)
    shorter = diagnose(run_backtest(SPEC, short), short, SPEC)
    for view in ("volatility", "trend"):
        full = {bucket["bucket"]: bucket["trades"] for bucket in payload["breakdown"][view]}
        part = {bucket["bucket"]: bucket["trades"] for bucket in shorter["breakdown"][view]}
        assert all(part[name] <= full[name] for name in part)
    assert _labels(MARKET, cut) == _labels(short, cut)


def _labels(arrays: BarArrays, cut: int) -> list[str]:
    from blaid_pipelines.backtest.diagnostics import _trend, _volatility

    bars = np.arange(0, cut, 13)
    return _volatility(arrays, bars) + _trend(arrays, bars)


def test_intervals_hold_the_number_they_belong_to(result: BacktestResult, payload: dict[str, Any]) -> None:
    intervals, metrics = payload["intervals"], result.metrics
    assert intervals["sessions"] == metrics.sessions
    for name in ("profit_factor", "expectancy_cents"):
        low, high = intervals[name]
        value = getattr(metrics, name)
        assert low < value < high
    assert intervals["max_drawdown_cents"][0] > 0


def test_the_worst_day_is_set_against_the_limit(result: BacktestResult, payload: dict[str, Any]) -> None:
    worst = payload["worst_day"]
    assert worst["net_pnl_cents"] == result.metrics.worst_day_cents
    assert worst["daily_loss_limit_cents"] == 20_000
    daily = result.equity.column("net_pnl_cents").to_pylist()
    assert worst["sessions_beyond_limit"] == sum(cents < -20_000 for cents in daily)
    assert worst["sessions_with_daily_loss_exit"] > 0


def test_diagnostics_are_json_and_repeat(result: BacktestResult, payload: dict[str, Any]) -> None:
    text = json.dumps(payload, allow_nan=False, sort_keys=True)
    assert json.dumps(diagnose(result, MARKET, SPEC), allow_nan=False, sort_keys=True) == text
