"""Parity with backtesting.py, trade for trade: bars of entry and exit, prices, and net results in cents.

What it can express: flattening, daily limit and roll off, a target gapped through filled at the open, one contract.
Stops count from the entry fill, which it does not know when an order is given: the replay looks the next open up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.engine import CostModel, simulate
from blaid_pipelines.backtest.families.base import Signals
from blaid_pipelines.backtest.strategy import check_params, get_family
from tests.backtest.bars import FREE, MINUTE_NS, ledger_rows, make_signals, make_spec, random_market

oracle = pytest.importorskip("backtesting", reason="the oracle of the fill rules is in the extra `oracles`")

pytestmark = pytest.mark.filterwarnings("ignore:Some trades remain open", "ignore:DatetimeIndex.dayofweek")

CENTS_A_TICK = 125  # as the size of the oracle's position: its PnL in ticks times size is in cents


def oracle_trades(arrays: BarArrays, signals: Signals, warmup: int, costs: CostModel) -> list[tuple[int, ...]]:
    """(entry bar, exit bar, side, entry, exit, net cents) of each trade that backtesting.py closes."""
    import pandas as pd

    opens, side, slip = arrays.open.tolist(), signals.side.tolist(), costs.slippage_ticks

    class Replay(oracle.Strategy):  # type: ignore[misc, name-defined]
        def init(self) -> None:
            pass

        def next(self) -> None:
            bar = len(self.data) - 1
            if bar < warmup or side[bar] == side[bar - 1]:
                return
            if self.position:
                self.position.close()
            if side[bar] and bar + 1 < len(opens):
                fill = opens[bar + 1] + side[bar] * slip
                stop, target = int(signals.stop_ticks[bar]), int(signals.target_ticks[bar])
                order = self.buy if side[bar] > 0 else self.sell
                order(
                    size=CENTS_A_TICK,
                    sl=fill - side[bar] * stop if stop else None,
                    tp=fill + side[bar] * target if target else None,
                )

    frame = pd.DataFrame(
        {"Open": arrays.open, "High": arrays.high, "Low": arrays.low, "Close": arrays.close},
        index=pd.to_datetime(arrays.ts_open),
    ).astype(float)
    per_side = (costs.commission_per_side_microusd + costs.fees_per_side_microusd) / 10_000
    stats = oracle.Backtest(frame, Replay, cash=1e12, commission=lambda size, price: per_side).run()
    rows = []
    for trade in stats._trades.itertuples():
        direction = int(np.sign(trade.Size))
        signalled = trade.ExitBar > trade.EntryBar and side[trade.ExitBar - 1] != direction
        at_target = not signalled and pd.notna(trade.TP) and direction * (trade.ExitPrice - trade.TP) >= 0
        # it knows no slippage in ticks: taken off here, from the entry and from every exit but the target's
        exit_slip = 0 if at_target else slip
        entry, exit_ = trade.EntryPrice + direction * slip, trade.ExitPrice - direction * exit_slip
        net = trade.PnL - CENTS_A_TICK * (slip + exit_slip)
        rows.append(tuple(map(int, (trade.EntryBar, trade.ExitBar, direction, entry, exit_, net))))
    return rows


def our_trades(arrays: BarArrays, signals: Signals, warmup: int, costs: CostModel) -> list[tuple[int, ...]]:
    spec = make_spec(costs=costs, flatten_sessions=False, target_gap_at_open=True)
    return [
        (
            row["entry_ts"] // MINUTE_NS,
            row["exit_ts"] // MINUTE_NS,
            row["side"],
            row["entry_ticks"],
            row["exit_ticks"],
            row["net_pnl_cents"],
        )
        for row in ledger_rows(simulate(spec, arrays, signals, warmup))
        if row["exit_reason"] != "DATA_END"  # it leaves the last position open
    ]


def acceptable(arrays: BarArrays, signals: Signals) -> Signals:
    """The signals without entries that backtesting.py rejects: those whose gap to the fill is beyond stop or target."""
    side = signals.side.copy()
    for bar in range(1, len(side) - 1):
        gap = abs(int(arrays.open[bar + 1]) - int(arrays.close[bar])) + 3
        distances = [d for d in (int(signals.stop_ticks[bar]), int(signals.target_ticks[bar])) if d]
        if side[bar] != side[bar - 1] and side[bar] != 0 and any(gap >= d for d in distances):
            side[bar] = side[bar - 1]
    return Signals(side, signals.stop_ticks, signals.target_ticks)


def any_signals(seed: int, count: int) -> Signals:
    generator = np.random.default_rng(seed)
    held = np.repeat(generator.integers(-1, 2, count), generator.integers(1, 12, count))[:count]
    return make_signals(
        held.tolist(),
        generator.choice([0, 8, 12, 20], count).tolist(),
        generator.choice([0, 8, 12, 30], count).tolist(),
    )


PAID = CostModel(1_250_000, 390_000, 470_000, 0)
SLIPPED = CostModel(1_250_000, 390_000, 470_000, 2)


@pytest.mark.parametrize("costs", [FREE, PAID, SLIPPED], ids=["free", "commission", "commission and slippage"])
@pytest.mark.parametrize("seed", [1, 2])
def test_any_signals_make_the_same_trades(seed: int, costs: CostModel) -> None:
    arrays = random_market(seed, 4_000)
    signals = acceptable(arrays, any_signals(seed, len(arrays)))
    ours = our_trades(arrays, signals, 1, costs)
    assert len(ours) > 250
    assert ours == oracle_trades(arrays, signals, 1, costs)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("ma_cross", {"fast": 3, "slow": 12, "stop_ticks": 25, "target_ticks": 40}),
        ("zscore_reversion", {"window": 20, "entry_z": 1.5, "stop_ticks": 25}),
    ],
)
def test_families_make_the_same_trades(name: str, params: dict[str, Any]) -> None:
    arrays, family = random_market(3, 6_000), get_family(name)
    checked = check_params(family, params)
    signals = acceptable(arrays, family.signals(arrays, checked))
    warmup = family.warmup_bars(checked)
    ours = our_trades(arrays, signals, warmup, PAID)
    assert len(ours) > 100
    assert ours == oracle_trades(arrays, signals, warmup, PAID)
