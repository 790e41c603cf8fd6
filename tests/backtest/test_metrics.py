"""Metrics and statistics against hand calculations and published numbers."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaid_pipelines.backtest.metrics import Metrics, from_trades
from blaid_pipelines.backtest.statistics import (
    mean_interval,
    minimum_track_record,
    moments,
    psr,
    stationary_indices,
    wilson_interval,
)
from tests.backtest.ledgers import drawdown_ledger, make_ledger


def test_metrics_by_hand() -> None:
    # balance: 10,000 -> 10,300 -> 10,200 -> 9,900 -> 9,900 -> 10,500 -> 10,400 dollars
    ledger = make_ledger([[30_000, -10_000], [-30_000], [], [0, 60_000], [-10_000]], 1_000_000)
    metrics = from_trades(*ledger, bars=300)
    assert (metrics.sessions, metrics.trades, metrics.winners, metrics.losers) == (5, 6, 2, 3)
    assert metrics.win_rate_pct == pytest.approx(100 * 2 / 6)
    assert metrics.profit_factor == pytest.approx(90_000 / 50_000)
    assert metrics.payoff_ratio == pytest.approx((90_000 / 2) / (50_000 / 3))
    assert (metrics.net_pnl_cents, metrics.gross_pnl_cents) == (40_000, 40_000)
    assert metrics.expectancy_cents == pytest.approx(40_000 / 6)
    assert metrics.max_drawdown_cents == 40_000  # 10,300 to 9,900
    assert metrics.max_drawdown_pct == 4.0
    assert metrics.max_drawdown_intrabar_cents == 40_000
    assert metrics.max_drawdown_sessions == 2  # the ends of sessions two and three lie below 10,200
    assert not metrics.recovered
    assert (metrics.worst_day_cents, metrics.best_day_cents) == (-30_000, 60_000)
    assert (metrics.winning_days, metrics.losing_days, metrics.longest_losing_streak) == (2, 2, 2)
    daily = [0.02, -0.03, 0.0, 0.06, -0.01]
    deviation = math.sqrt(sum((x - 0.008) ** 2 for x in daily) / 4)
    assert metrics.sharpe_daily == pytest.approx(0.008 / deviation)
    assert metrics.exposure_pct == pytest.approx(100 * 60 / 300)
    assert (metrics.turnover_contracts, metrics.average_bars_held) == (12, 10.0)


def test_drawdown_starts_at_the_capital_and_is_per_cent_of_it() -> None:
    metrics = from_trades(*make_ledger([[-5_000], [-5_000], [100_000], [-20_000]], 100_000))
    assert metrics.max_drawdown_cents == 20_000
    assert metrics.max_drawdown_pct == 20.0  # of the capital, not of the peak of 1,900 dollars
    assert from_trades(*make_ledger([[-5_000], [-5_000]], 100_000)).max_drawdown_cents == 10_000


def test_drawdown_inside_bars_counts_the_worst_open_moment() -> None:
    metrics = from_trades(*make_ledger([[1_000, 1_000]], 100_000, mae_cents=7_000))
    assert (metrics.max_drawdown_cents, metrics.max_drawdown_intrabar_cents) == (0, 7_000)


def test_the_ledger_of_the_famous_drawdown() -> None:
    ledger = drawdown_ledger()
    metrics = from_trades(*ledger)
    assert round(metrics.max_drawdown_pct, 4) == 21.0081
    assert metrics.max_drawdown_cents == 525_203
    # nothing else is wrong with this bot
    assert metrics.sessions >= 60
    assert metrics.trades >= 100
    assert metrics.losers >= 5
    assert metrics.win_rate_pct is not None
    assert metrics.win_rate_pct >= 35
    assert metrics.profit_factor is not None
    assert metrics.profit_factor >= 1.15
    assert metrics.psr0 is not None
    assert metrics.psr0 >= 0.95
    assert metrics.worst_day_cents is not None
    assert metrics.worst_day_cents > -0.03 * ledger.capital_cents


@pytest.mark.parametrize(
    ("results", "undefined"),
    [
        ([], ["win_rate_pct", "profit_factor", "payoff_ratio", "expectancy_cents", "worst_day_cents", "psr0"]),
        ([[], []], ["win_rate_pct", "profit_factor", "expectancy_cents", "sharpe_daily", "psr0", "ambiguous_share"]),
        ([[100], [200]], ["profit_factor", "payoff_ratio"]),
        ([[100], [100]], ["profit_factor", "sharpe_daily", "psr0"]),  # no spread: no ratio
        ([[100]], ["sharpe_daily", "skewness_daily", "kurtosis_daily", "psr0"]),
        ([[-100], [-200]], ["payoff_ratio"]),
    ],
)
def test_what_is_undefined_is_none(results: list[list[int]], undefined: list[str]) -> None:
    values = from_trades(*make_ledger(results)).as_json()
    assert [name for name in undefined if values[name] is not None] == []
    assert json.loads(json.dumps(values, allow_nan=False)) == values


@given(st.lists(st.lists(st.integers(-50_000, 50_000), max_size=4), max_size=25))
def test_metrics_are_json_and_consistent(results: list[list[int]]) -> None:
    ledger = make_ledger(results)
    metrics = from_trades(*ledger)
    document = json.loads(json.dumps(metrics.as_json(), allow_nan=False))
    assert Metrics.from_json(document) == metrics
    flat = [net for nets in results for net in nets]
    assert metrics.net_pnl_cents == sum(flat)
    balance = peak = deepest = 0
    for net in flat:
        balance += net
        peak = max(peak, balance)
        deepest = max(deepest, peak - balance)
    assert metrics.max_drawdown_cents == deepest
    assert metrics.max_drawdown_intrabar_cents >= deepest
    assert asdict(metrics) == asdict(from_trades(*ledger))


def test_a_trade_of_another_session_is_not_swallowed() -> None:
    ledger = make_ledger([[100], [200]])
    with pytest.raises(ValueError, match="not in the list"):
        from_trades(ledger.trades, ledger.sessions[:1], ledger.capital_cents)
    with pytest.raises(ValueError, match="capital"):
        from_trades(ledger.trades, ledger.sessions, 0)


@pytest.mark.parametrize(
    ("sharpe", "periods", "skewness", "kurtosis", "expected"),
    [
        # Bailey and Lopez de Prado 2012, the two-year monthly track record of their example: normal, then true moments
        (0.458, 24, 0.0, 3.0, 0.982),
        (0.458, 24, -2.448, 10.164, 0.913),
    ],
)
def test_psr_of_the_paper(sharpe: float, periods: int, skewness: float, kurtosis: float, expected: float) -> None:
    value = psr(sharpe, periods, skewness, kurtosis)
    assert value is not None
    assert round(value, 3) == expected


def test_psr_by_formula_and_its_limits() -> None:
    z = (0.1 - 0.02) * math.sqrt(251) / math.sqrt(1 + 0.3 * 0.1 + (4.5 - 1) / 4 * 0.01)
    expected = 0.5 * (1 + math.erf(z / math.sqrt(2)))
    assert psr(0.1, 252, -0.3, 4.5, benchmark=0.02) == pytest.approx(expected, rel=1e-12)
    assert psr(0.0, 100) == 0.5
    assert psr(0.1, 1) is None
    assert psr(3.0, 100, skewness=4.0, kurtosis=1.0) is None  # the variance of the estimate is not positive


def test_minimum_track_record_is_where_psr_reaches_its_confidence() -> None:
    periods = minimum_track_record(0.1, -0.5, 5.0, 0.02, 0.95)
    assert periods is not None
    assert psr(0.1, math.ceil(periods), -0.5, 5.0, 0.02) >= 0.95  # type: ignore[operator]
    assert psr(0.1, math.floor(periods), -0.5, 5.0, 0.02) < 0.95  # type: ignore[operator]
    assert minimum_track_record(0.02, benchmark=0.02) is None


def test_moments_against_scipy() -> None:
    from scipy import stats

    values = np.random.default_rng(5).standard_t(4, 500).tolist()
    found = moments(values)
    assert found is not None
    assert found.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert found.deviation == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert found.skewness == pytest.approx(stats.skew(values), rel=1e-10)
    assert found.kurtosis == pytest.approx(stats.kurtosis(values, fisher=False), rel=1e-10)
    assert moments([1.0]) is None
    assert moments([0.1] * 7) is None


def test_intervals_against_scipy() -> None:
    from scipy import stats

    interval = wilson_interval(35, 120)
    expected = stats.binomtest(35, 120).proportion_ci(method="wilson")
    assert interval == pytest.approx((expected.low, expected.high))
    values = [3.0, 5.0, -1.0, 4.5, 2.0]
    assert mean_interval(values) == pytest.approx(stats.t.interval(0.95, 4, np.mean(values), stats.sem(values)))
    assert wilson_interval(0, 0) is None
    assert mean_interval([1.0]) is None


def test_stationary_bootstrap_resamples_blocks() -> None:
    picks = stationary_indices(125, 400, seed=7)
    assert np.array_equal(picks, stationary_indices(125, 400, seed=7))
    assert not np.array_equal(picks, stationary_indices(125, 400, seed=8))
    assert picks.min() >= 0
    assert picks.max() < 125
    # blocks of mean length 5: four of five steps go to the next value
    follows = ((picks[:, 1:] - picks[:, :-1]) % 125 == 1).mean()
    assert follows == pytest.approx(0.8, abs=0.02)
    assert np.bincount(picks.ravel(), minlength=125).std() / 400 < 0.1  # every value is as likely as another
