"""What the quality gate looks at: bars turned into measured columns, with numpy, before any expectation is asked.

Three frames: one row a bar, one row an exchange session, one row for the series. Each measure says what it leaves
out, so that one defect shows in one place: a bar without a price is not also counted as off the tick grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from blaid_pipelines.market.bars import DAY_NS, MINUTE_NS, MISSING, MISSING_VOLUME, NOT_FINITE, PRICES, Bars
from blaid_pipelines.market.instruments import NANOS, InstrumentSpec
from blaid_pipelines.market.sessions import Sessions, load_sessions

Columns = dict[str, npt.NDArray[Any]]
Bools = npt.NDArray[np.bool_]

COPY_MIN_BARS = 30
"""Sessions shorter than this are not compared with their predecessor: a handful of equal bars is no copy."""


@dataclass(frozen=True)
class Measures:
    """The three frames, by name (``bars``, ``sessions``, ``series``): columns of equal length."""

    frames: dict[str, Columns]

    def rows(self, frame: str) -> int:
        """Rows in a frame."""
        return len(next(iter(self.frames[frame].values())))


def measure(bars: Bars, spec: InstrumentSpec, duration_ns: int, start_ns: int, end_ns: int, as_of_ns: int) -> Measures:
    """Measure ``bars`` of ``[start_ns, end_ns)`` as known at ``as_of_ns``: later slots are not expected yet."""
    bars = bars.ordered()
    known_end = max(start_ns, min(end_ns, as_of_ns))
    sessions = load_sessions(spec.session, _low(bars, start_ns), max(end_ns, _high(bars, end_ns) + duration_ns))
    sessions_frame, series_frame = _coverage(bars, sessions, duration_ns, start_ns, known_end)
    return Measures(
        {"bars": _bar_columns(bars, spec, sessions, duration_ns), "sessions": sessions_frame, "series": series_frame}
    )


def _low(bars: Bars, default: int) -> int:
    return min(default, int(bars.ts_open[0])) if len(bars) else default


def _high(bars: Bars, default: int) -> int:
    return max(default, int(bars.ts_open[-1])) if len(bars) else default


def _bar_columns(bars: Bars, spec: InstrumentSpec, sessions: Sessions, duration_ns: int) -> Columns:
    prices = np.stack([getattr(bars, name) for name in PRICES]) if len(bars) else np.empty((4, 0), np.int64)
    missing = (prices == MISSING).any(axis=0)
    finite = (prices != NOT_FINITE).all(axis=0)
    whole = ~missing & finite
    opens, highs, lows, closes = prices
    scale = ((prices >= int(spec.price_low * NANOS)) & (prices <= int(spec.price_high * NANOS))).all(axis=0)
    negative = (prices <= 0).any(axis=0) & (not spec.may_be_negative)
    ordered = (lows <= np.minimum(opens, closes)) & (highs >= np.maximum(opens, closes))
    return {
        "ts_open": bars.ts_open,
        "contract": bars.contract,
        "complete": ~missing & (bars.volume != MISSING_VOLUME),
        "finite": finite,
        "positive": ~whole | ~negative,
        "ohlc_ordered": ~whole | ordered,
        "on_tick_grid": ~whole | (prices % spec.tick_nanos == 0).all(axis=0),
        # A price at or below zero where none may be is the sign check's finding.
        "plausible_scale": ~whole | scale | negative,
        "jump_ratio": _jumps(bars, whole & ~negative, spec),
        "volume_valid": (bars.volume >= 0) | (bars.volume == MISSING_VOLUME),
        "traded": bars.volume != 0,
        "on_time_grid": bars.ts_open % duration_ns == 0,
        "in_session": sessions.is_open(bars.ts_open, duration_ns),
        "copied": _copied(bars, sessions, duration_ns),
    }


def _jumps(bars: Bars, usable: Bools, spec: InstrumentSpec) -> npt.NDArray[np.float64]:
    """Ratio of a bar's open to the close before it in the same contract, or its inverse, whichever is above 1.

    1.0 for the first bar of a contract, for bars without usable prices, and for an instrument that may trade below
    zero, where ratios mean nothing.
    """
    ratio = np.ones(len(bars), np.float64)
    if spec.may_be_negative:
        return ratio
    for code in range(len(bars.contracts)):
        rows = np.flatnonzero((bars.contract == code) & usable)
        before, after = bars.close[rows[:-1]].astype(np.float64), bars.open[rows[1:]].astype(np.float64)
        quotient = after / before
        ratio[rows[1:]] = np.maximum(quotient, 1.0 / quotient)
    return ratio


def _copied(bars: Bars, sessions: Sessions, duration_ns: int) -> Bools:
    """True for bars of a session (or a UTC day, for daily bars none) whose prices and volumes repeat the one before."""
    flags = np.zeros(len(bars), np.bool_)
    if duration_ns >= DAY_NS:
        return flags
    owner = sessions.session_of(bars.ts_open)
    previous: slice | None = None
    edges = [0, *(np.flatnonzero(owner[1:] != owner[:-1]) + 1).tolist(), len(bars)] if len(bars) else [0]
    for left, right in pairwise(edges):
        now = slice(left, right)
        if right - left >= COPY_MIN_BARS:
            if previous is not None and _same(bars, previous, now):
                flags[now] = True
            previous = now
    return flags


def _same(bars: Bars, left: slice, right: slice) -> bool:
    columns = (*PRICES, "volume")
    return all(np.array_equal(getattr(bars, name)[left], getattr(bars, name)[right]) for name in columns)


def _coverage(
    bars: Bars, sessions: Sessions, duration_ns: int, start_ns: int, known_end: int
) -> tuple[Columns, Columns]:
    """Per session the longest run of open market without a bar up to the last bar; for the series what is missing.

    After the last bar, missing time counts as staleness and not as a gap. Daily bars belong to UTC days: there each
    day is a session of its own.
    """
    slots, owner, market_ns = sessions.expected_slots(start_ns, known_end, duration_ns)
    if duration_ns >= DAY_NS:
        owner = np.arange(len(slots), dtype=np.int32)
    present = np.isin(slots, bars.ts_open // duration_ns * duration_ns)
    last = int(bars.ts_open[-1]) if len(bars) else start_ns - 1
    inner = slots <= last
    lost = np.where(present, 0, market_ns)
    ids = np.unique(owner)
    position = np.searchsorted(ids, owner)
    longest, expected, found = (np.zeros(len(ids), np.int64) for _ in range(3))
    np.add.at(expected, position, market_ns)
    np.add.at(found, position, np.where(present, market_ns, 0))
    if len(slots):
        # A run ends at a bar, at the end of a session, and where staleness takes over.
        breaks = np.concatenate([[True], present[1:] | present[:-1] | (owner[1:] != owner[:-1]) | ~inner[1:]])
        starts = np.flatnonzero(breaks)
        runs = np.add.reduceat(np.where(inner, lost, 0), starts)
        np.maximum.at(longest, position[starts], runs)
    dates = sessions.session_date[ids] if duration_ns < DAY_NS and len(ids) else _dates(slots)
    sessions_frame: Columns = {
        "session_date": dates,
        "expected_minutes": expected / MINUTE_NS,
        "present_minutes": found / MINUTE_NS,
        "longest_gap_minutes": longest / MINUTE_NS,
    }
    total = int(market_ns.sum())
    series_frame: Columns = {
        "bars": np.array([len(bars)], np.int64),
        "missing_pct": np.array([100.0 * int(lost.sum()) / total if total else np.nan]),
        "stale_minutes": np.array([int(np.where(inner, 0, market_ns).sum()) / MINUTE_NS if len(bars) else np.nan]),
    }
    return sessions_frame, series_frame


def _dates(slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    days = slots.astype("datetime64[ns]").astype("datetime64[D]")
    text = np.datetime_as_string(days, unit="D") if len(days) else np.empty(0, "U10")
    return np.array([int(day.replace("-", "")) for day in text], np.int32)
