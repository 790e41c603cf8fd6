"""Bars, signals and specifications in ticks for tests of the fill rules; nothing here is random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from blaid_pipelines.backtest.arrays import BarArrays, make_arrays
from blaid_pipelines.backtest.engine import BacktestSpec, CostModel, simulate
from blaid_pipelines.backtest.families.base import Signals
from blaid_pipelines.backtest.reference import reference_trades
from tests.backtest.ledgers import weekdays

MINUTE_NS = 60_000_000_000
FREE = CostModel(
    tick_value_microusd=1_250_000, commission_per_side_microusd=0, fees_per_side_microusd=0, slippage_ticks=0
)


def make_bars(
    ohlc: Sequence[tuple[int, int, int, int]],
    *,
    sessions: Sequence[int] | None = None,
    contracts: Sequence[int] | None = None,
    ends_session: bool = False,
    tick_nanos: int = 250_000_000,
) -> BarArrays:
    """One-minute bars; ``sessions`` (yyyymmdd) and ``contracts`` (0, 1, ...) per bar, one of each by default."""
    prices = np.array(ohlc, dtype=np.int32).reshape(-1, 4)
    count = len(prices)
    codes = np.array(contracts if contracts is not None else [0] * count, dtype=np.int16)
    return make_arrays(
        ts_open=np.arange(count, dtype=np.int64) * MINUTE_NS,
        open_ticks=prices[:, 0].copy(),
        high_ticks=prices[:, 1].copy(),
        low_ticks=prices[:, 2].copy(),
        close_ticks=prices[:, 3].copy(),
        volume=np.ones(count, dtype=np.int64),
        session_date=np.array(sessions if sessions is not None else [20240102] * count, dtype=np.int32),
        contract=codes,
        contracts=[f"C{code}" for code in range(int(codes.max(initial=0)) + 1)],
        tick_nanos=tick_nanos,
        ends_session=ends_session,
    )


def make_signals(side: Sequence[int], stop: int | Sequence[int] = 0, target: int | Sequence[int] = 0) -> Signals:
    """Signals from plain numbers; one distance for all bars or one per bar."""
    count = len(side)
    return Signals(
        side=np.array(side, dtype=np.int8),
        stop_ticks=np.array(np.broadcast_to(np.asarray(stop, dtype=np.int32), count)),
        target_ticks=np.array(np.broadcast_to(np.asarray(target, dtype=np.int32), count)),
    )


def make_spec(**changes: Any) -> BacktestSpec:
    """A specification without costs, limits or margin, one contract of 1.25 dollars a tick, 25,000 dollars."""
    values: dict[str, Any] = {
        "family": "ma_cross",
        "params": {},
        "costs": FREE,
        "capital_cents": 2_500_000,
        "contracts": 1,
        "margin_per_contract_cents": 0,
    }
    return BacktestSpec(**(values | changes))


def run(spec: BacktestSpec, arrays: BarArrays, signals: Signals, warmup_bars: int = 1) -> list[dict[str, Any]]:
    """The trades of the kernel as dicts, after checking that the plain reference makes the same ones."""
    trades = ledger_rows(simulate(spec, arrays, signals, warmup_bars))
    assert trades == reference_trades(spec, arrays, signals, warmup_bars)
    return trades


def ledger_rows(table: Any) -> list[dict[str, Any]]:
    """A ledger as dicts with times in ns and without the decimal prices (checked against the ticks elsewhere)."""
    import pyarrow as pa

    columns = {}
    for field in table.schema:
        if pa.types.is_decimal(field.type):
            continue
        column = table.column(field.name)
        columns[field.name] = (column.cast(pa.int64()) if pa.types.is_timestamp(field.type) else column).to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def random_market(seed: int, count: int, *, session_bars: int = 390, roll_at: int | None = None) -> BarArrays:
    """A seeded walk of ``count`` bars in ticks: small gaps, a few wide ones, sessions and at most one roll."""
    generator = np.random.default_rng(seed)
    gaps = generator.integers(-2, 3, count)
    wide = generator.random(count) < 0.01
    gaps[wide] = generator.integers(-30, 31, int(wide.sum()))
    bodies = generator.integers(-6, 7, count)
    if roll_at is not None:
        gaps[roll_at] += 200
    close = 20_000 + np.cumsum(gaps + bodies)
    open_ = close - bodies
    high = np.maximum(open_, close) + generator.integers(0, 4, count)
    low = np.minimum(open_, close) - generator.integers(0, 4, count)
    days = np.array(weekdays(count // session_bars + 1), dtype=np.int32)
    contracts = np.zeros(count, dtype=np.int16)
    if roll_at is not None:
        contracts[roll_at:] = 1
    return make_bars(
        np.stack([open_, high, low, close], axis=1).tolist(),
        sessions=days[np.arange(count) // session_bars].tolist(),
        contracts=contracts.tolist(),
    )
