"""What is planted in the default catalog is there: a trend that pays after costs, noise that does not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from blaid_pipelines.backtest.arrays import build_arrays
from blaid_pipelines.backtest.engine import BacktestSpec, CostModel, run_backtest
from blaid_pipelines.backtest.strategy import get_family
from blaid_pipelines.market.bars import Bars
from blaid_pipelines.market.gate.quality import evaluate
from blaid_pipelines.market.instruments import costs_on, get_instrument, margins_on
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.policy.load import load_policy
from blaid_pipelines.reasons import ReasonCode
from blaid_pipelines.sandbox.catalog import END, RECIPES, START
from blaid_pipelines.sandbox.series import Series
from blaid_pipelines.sandbox.synthetic import synthesise
from blaid_pipelines.store.database import Store


def bars_of(series: Series) -> Bars:
    """A series as the product holds it once it is pulled."""
    names = {lead.instrument_id: lead.raw_symbol for lead in series.leads}
    contracts = [names[ident] for ident in series.instrument_id.tolist()]
    prices = (series.open, series.high, series.low, series.close)
    return Bars.build(series.ts_open, *prices, series.volume, contracts)


def backtest(store: Store, symbol: str, family: str, capital_cents: int, **params: int) -> Any:
    """Metrics of one contract on a series of the catalog, at the instrument's own costs."""
    (recipe,) = [item for item in RECIPES if item.symbol == symbol]
    series = synthesise(recipe)
    spec = get_instrument(store, symbol)
    sessions = load_sessions(spec.session, int(series.ts_open[0]), int(series.ts_open[-1]) + 1)
    costs = costs_on(store, symbol, START)
    defaults = {name: parameter.default for name, parameter in get_family(family).parameters.items()}
    model = CostModel(
        spec.tick_value_microusd,
        costs.commission_per_side_microusd,
        costs.fees_per_side_microusd,
        costs.slippage_ticks,
    )
    margin = margins_on(store, symbol, END)
    run = BacktestSpec(family, {**defaults, **params}, model, capital_cents, 1, int(margin.initial_cents))
    return run_backtest(run, build_arrays(bars_of(series), spec, sessions)).metrics


@pytest.mark.slow
def test_a_trend_follower_earns_on_the_planted_edge_and_nobody_on_noise(store: Store) -> None:
    good = backtest(store, "MES.c.0", "ma_cross", 2_500_000)
    assert good.sessions >= 120
    assert good.trades >= 150
    assert good.losers >= 5
    assert good.win_rate_pct >= 40
    assert good.profit_factor >= 1.3
    assert good.max_drawdown_pct < 15
    assert good.psr0 >= 0.99
    churn = backtest(store, "MNQ.c.0", "ma_cross", 500_000, fast=2, slow=5)
    assert churn.net_pnl_cents < -100_000
    assert churn.max_drawdown_pct > 20
    for symbol in ("MYM.c.0", "MGC.c.0"):
        noise = backtest(store, symbol, "ma_cross", 5_000_000)
        assert noise.profit_factor < 1.15


@pytest.mark.slow
@pytest.mark.parametrize("symbol", [recipe.symbol for recipe in RECIPES])
def test_the_quality_gate_passes_all_but_the_planted_defects(symbol: str, store: Store) -> None:
    (recipe,) = [item for item in RECIPES if item.symbol == symbol]
    covered = (datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 6, 29, tzinfo=UTC))
    report = evaluate(
        bars_of(synthesise(recipe)), get_instrument(store, symbol), load_policy(None).quality, covered[1], covered
    )
    failed = {check.reason.code for check in report.checks if check.reason is not None}
    if recipe.defects:
        assert {ReasonCode.SESSION_GAP, ReasonCode.OFF_TICK_GRID} <= failed
        assert report.status != "PASS"
    else:
        assert failed == set()
        assert report.status == "PASS"
