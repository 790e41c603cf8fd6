"""Bars for market tests: a clean MES series on the exchange's own minutes, and the thresholds they are held against."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np

from blaid_pipelines.market.bars import MINUTE_NS, Bars, to_ns
from blaid_pipelines.market.gate.thresholds import QualityThresholds
from blaid_pipelines.market.instruments import InstrumentSpec
from blaid_pipelines.market.sessions import load_sessions

TICK = 250_000_000
START = datetime(2024, 2, 4, 23, 0, tzinfo=UTC)
END = datetime(2024, 2, 7, 22, 0, tzinfo=UTC)
"""Three whole sessions: Monday 5 to Wednesday 7 February 2024."""

THRESHOLDS = QualityThresholds(
    min_bars=1000,
    max_gap_minutes=30,
    max_missing_pct=20.0,
    max_staleness_minutes=30,
    max_zero_volume_pct=1.0,
    max_outside_session_pct=0.0,
    max_price_jump_ratio=1.5,
    max_spike_pct=2.0,
    max_spike_ranges=20.0,
    max_identical_bars=20,
    max_unchanged_bars=60,
    max_open_close_gap_ratio=1.0,
    max_range_jump_pct=15.0,
    max_roll_step_pct=25.0,
)

MES = InstrumentSpec(
    symbol="MES",
    name="Micro E-mini S&P 500",
    exchange="CME",
    mic="XCME",
    tick_size=Decimal("0.25"),
    tick_nanos=TICK,
    point_value=Decimal(5),
    tick_value_microusd=1_250_000,
    currency="USD",
    min_qty=1,
    max_qty=100,
    session="CME Globex Equity",
    contract_months="HMUZ",
    price_low=Decimal(300),
    price_high=Decimal(30000),
    may_be_negative=False,
)

EURO_CSV = "eurofx_6E/6EH4.XCME_1min_bars_20240101_20240131.csv.gz"
EURO_BARS = 29_996


def clean_bars(start: datetime = START, end: datetime = END, contract: str = "MESH4", seed: int = 7) -> Bars:
    """A random walk on the tick grid, one bar for every minute of open market."""
    sessions = load_sessions("CME Globex Equity", to_ns(start), to_ns(end))
    slots, _, _ = sessions.expected_slots(to_ns(start), to_ns(end), MINUTE_NS)
    chance = random.Random(seed)
    close = 20_000
    rows = []
    for _ in slots:
        open_ = close + chance.randint(-1, 1)
        close = open_ + chance.randint(-4, 4)
        high, low = max(open_, close) + chance.randint(0, 2), min(open_, close) - chance.randint(0, 2)
        rows.append((open_ * TICK, high * TICK, low * TICK, close * TICK, chance.randint(1, 500)))
    columns = np.array(rows, np.int64).reshape(-1, 5).T
    return Bars.build(slots, *columns, contract)


def changed(bars: Bars, row: int | slice, **values: int) -> Bars:
    """The bars with some values replaced in some rows."""
    columns = {name: getattr(bars, name).copy() for name in ("ts_open", "open", "high", "low", "close", "volume")}
    for name, value in values.items():
        columns[name][row] = value
    return Bars(**columns, contract=bars.contract, contracts=bars.contracts)


def write_csv(path: Path, bars: Bars, *, stamp_shift_ns: int = 0, contract_column: bool = False) -> Path:
    """The bars as a CSV file with naive UTC stamps and decimal prices."""
    lines = ["timestamp,open,high,low,close,volume" + (",contract" if contract_column else "")]
    for row in range(len(bars)):
        stamp = np.datetime64(int(bars.ts_open[row]) + stamp_shift_ns, "ns").astype("datetime64[s]")
        prices = [str(Decimal(int(column[row])).scaleb(-9)) for column in (bars.open, bars.high, bars.low, bars.close)]
        tail = [bars.contracts[bars.contract[row]]] if contract_column else []
        lines.append(",".join([str(stamp).replace("T", " "), *prices, str(int(bars.volume[row])), *tail]))
    path.write_text("\n".join(lines) + "\n")
    return path
