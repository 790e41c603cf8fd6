"""Markets with a clock for tests of strategy families: sessions from 17:00 to 16:00 Chicago, gaps, rolls, volumes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.arrays import BarArrays, make_arrays

MINUTE_NS = 60_000_000_000
CHICAGO = ZoneInfo("America/Chicago")
# the second weekend of March 2024 and the first of November are those on which clocks change
SPRING, AUTUMN = date(2024, 3, 6), date(2024, 10, 30)


def chicago_ns(day: date, minute: int) -> int:
    """UTC nanoseconds of a minute of the day in Chicago."""
    wall = datetime.combine(day, time(minute // 60, minute % 60), CHICAGO)
    return int(wall.timestamp()) * 1_000_000_000


def as_number(day: date) -> int:
    """yyyymmdd."""
    return day.year * 10_000 + day.month * 100 + day.day


def trade_dates(first: date, count: int) -> list[date]:
    """``count`` weekdays from ``first`` on."""
    days = (first + timedelta(days=each) for each in range(2 * count + 7))
    return [day for day in days if day.weekday() < 5][:count]


def clock_market(
    seed: int,
    *,
    first: date = SPRING,
    sessions: int = 6,
    bar_minutes: int = 1,
    keep: float = 1.0,
    roll_session: int | None = None,
    roll_step: int = 0,
) -> BarArrays:
    """A seeded walk over whole Globex sessions; a share ``keep`` of the bars is there, one in twenty has no volume.

    From session ``roll_session`` on it is another contract, ``roll_step`` ticks dearer.
    """
    generator = np.random.default_rng(seed)
    stamps, dates, codes = [], [], []
    for number, day in enumerate(trade_dates(first, sessions)):
        opens = chicago_ns(day - timedelta(days=1), 17 * 60)
        slots = opens + np.arange(0, 23 * 60, bar_minutes, dtype=np.int64) * MINUTE_NS
        slots = slots[generator.random(len(slots)) < keep]
        stamps.append(slots)
        dates.append(np.full(len(slots), as_number(day), np.int32))
        codes.append(np.full(len(slots), int(roll_session is not None and number >= roll_session), np.int16))
    ts_open = np.concatenate(stamps)
    contract = np.concatenate(codes)
    ohlc = walk(generator, len(ts_open)) + roll_step * contract[:, None].astype(np.int32)
    volume = generator.integers(1, 3_000, len(ts_open)) * (generator.random(len(ts_open)) > 0.05)
    return arrays_of(ts_open, ohlc, volume, np.concatenate(dates), contract)


def walk(generator: np.random.Generator, count: int) -> NDArray[np.int32]:
    """Open, high, low, close in ticks, shape (count, 4): small gaps, a few wide ones, spells of more and less."""
    wild = 1 + 4 * (np.sin(np.arange(count) / 150 + generator.random() * 6) > 0.3)
    gaps = generator.integers(-1, 2, count)
    wide = generator.random(count) < 0.005
    gaps[wide] = generator.integers(-30, 31, int(wide.sum()))
    bodies = generator.integers(-3, 4, count) * wild
    close = 20_000 + np.cumsum(gaps + bodies)
    open_ = close - bodies
    high = np.maximum(open_, close) + generator.integers(0, 3, count) * wild
    low = np.minimum(open_, close) - generator.integers(0, 3, count) * wild
    return np.stack([open_, high, low, close], axis=1).astype(np.int32)


def arrays_of(
    ts_open: NDArray[np.int64],
    ohlc: NDArray[np.int32],
    volume: NDArray[np.int64],
    session_date: NDArray[np.int32],
    contract: NDArray[np.int16] | None = None,
) -> BarArrays:
    """Arrays of these columns; one contract unless told."""
    codes = np.zeros(len(ts_open), np.int16) if contract is None else contract
    return make_arrays(
        ts_open=ts_open,
        open_ticks=ohlc[:, 0].copy(),
        high_ticks=ohlc[:, 1].copy(),
        low_ticks=ohlc[:, 2].copy(),
        close_ticks=ohlc[:, 3].copy(),
        volume=volume,
        session_date=session_date,
        contract=codes,
        contracts=[f"C{code}" for code in range(int(codes.max(initial=0)) + 1)],
        tick_nanos=250_000_000,
        ends_session=True,
    )


def ohlc_of(arrays: BarArrays) -> NDArray[np.int32]:
    """True prices, shape (n, 4)."""
    return np.stack([arrays.open, arrays.high, arrays.low, arrays.close], axis=1)


def disturbed(arrays: BarArrays, cut: int, seed: int) -> BarArrays:
    """The same bars up to ``cut``; after it the same times with other prices and volumes."""
    generator = np.random.default_rng(seed)
    ohlc, volume = ohlc_of(arrays), arrays.volume.copy()
    other = walk(generator, len(arrays))
    ohlc[cut:] = other[cut:] + ohlc[cut - 1, 3] - other[cut - 1, 3]
    volume[cut:] = generator.integers(0, 50, len(arrays) - cut)
    return arrays_of(arrays.ts_open, ohlc, volume, arrays.session_date, arrays.contract)


def drawn(
    day: date,
    start_minute: int,
    closes: Sequence[int],
    *,
    bar_minutes: int = 1,
    volume: Sequence[int] | int = 1,
    evening: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Columns of bars without range (all four prices are the close) of the session ``day``, from a time in Chicago.

    ``evening``: the time is that of the evening before.
    """
    opens = chicago_ns(day - timedelta(days=int(evening)), start_minute)
    prices = np.repeat(np.array(closes, np.int32)[:, None], 4, axis=1)
    return (
        opens + np.arange(len(closes), dtype=np.int64) * bar_minutes * MINUTE_NS,
        prices,
        np.array(np.broadcast_to(np.asarray(volume, np.int64), len(closes))),
        np.full(len(closes), as_number(day), np.int32),
    )


def joined(*parts: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]) -> BarArrays:
    """Arrays from several :func:`drawn` stretches in time order."""
    return arrays_of(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
