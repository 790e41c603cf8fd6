"""What one bar says about the bar before it in the same contract: jumps, spikes, frozen prices, open against close.

Bars are walked contract by contract, in time order. Two bars are linked when they are neighbours in that walk and less
than a year apart: a contract's one-digit year comes round again, and its next life is another contract. Everything is
numpy over whole columns; what is tolerated is policy and not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from blaid_pipelines.market.bars import DAY_NS, MINUTE_NS, PRICES, Bars, from_ns
from blaid_pipelines.market.instruments import NANOS, InstrumentSpec
from blaid_pipelines.market.sessions import Sessions

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

SAME_LIFE_NS = 300 * DAY_NS
"""Bars of one contract name further apart than this are of two contracts, ten years from each other."""
SPIKE_NEIGHBOURS = 30
"""Bars before and after a spike whose median true range it is measured against."""
SWAP_MIN_PAIRS = 100
"""A session with fewer pairs of consecutive bars says nothing about open and close being swapped."""
SWAP_FALSE_ALARMS = 1e-4
"""Share of sound series, of any length, in which chance alone may look like open and close being swapped."""
LOW_PRICE_SHARE = 0.1
"""Prices that may be zero or below are measured against at least this share of the instrument's plausible range."""


@dataclass(frozen=True, eq=False)
class Chain:
    """The bars in walking order. ``linked[i]`` is true where bar ``i`` follows bar ``i - 1`` in the same contract.

    ``order`` are the bars' positions in the list they came from, ``usable`` the bars with four sound prices.
    """

    bars: Bars
    order: Int64
    linked: Bools
    usable: Bools

    @staticmethod
    def of(bars: Bars, usable: Bools) -> Chain:
        """The walk over the ``usable`` bars of a time-ordered list."""
        rows = np.flatnonzero(usable)
        order = rows[np.argsort(bars.contract[rows], kind="stable")] if len(bars.contracts) > 1 else rows
        walked = bars.take(order)
        linked = np.zeros(len(walked), np.bool_)
        linked[1:] = (np.diff(walked.contract) == 0) & (np.diff(walked.ts_open) < SAME_LIFE_NS)
        return Chain(walked, order, linked, usable)

    def spread(self, values: npt.NDArray[Any], default: Any) -> npt.NDArray[Any]:
        """``values`` of the walk back in the order of the list; bars outside the walk get ``default``."""
        column = np.full(len(self.usable), default, values.dtype)
        column[self.order] = values
        return column

    def at(self, position: int) -> str:
        """The time of a bar of the walk, for people."""
        return from_ns(int(self.bars.ts_open[position])).isoformat()


def price_base(prices: Floats, spec: InstrumentSpec) -> Floats:
    """What a price difference is a share of (nanos): the price, or near and below zero a share of the range."""
    if not spec.may_be_negative:
        return np.maximum(np.abs(prices), 1.0)
    width = float((spec.price_high - spec.price_low) * NANOS)
    return np.maximum(np.abs(prices), LOW_PRICE_SHARE * width)


def jumps(chain: Chain, spec: InstrumentSpec) -> tuple[Floats, Floats]:
    """Per bar of the walk: ratio of its open to the close before (or its inverse), and the difference in per cent of
    the plausible range.

    Ratios are 1.0 for the first bar of a contract and, in an instrument that may trade below zero, where either price
    is low (see ``LOW_PRICE_SHARE``): near zero a ratio means nothing. The share is 0.0 in other instruments.
    """
    before, after = chain.bars.close[:-1].astype(np.float64), chain.bars.open[1:].astype(np.float64)
    width = float((spec.price_high - spec.price_low) * NANOS)
    floor = LOW_PRICE_SHARE * width if spec.may_be_negative else 0.0
    counts = chain.linked[1:] & (before > floor) & (after > floor)
    ratio = np.ones(len(chain.bars))
    share = np.zeros(len(chain.bars))
    quotient = np.divide(after, before, out=np.ones(len(after)), where=counts)
    ratio[1:] = np.maximum(quotient, 1.0 / quotient)
    if spec.may_be_negative:
        share[1:] = np.where(chain.linked[1:], 100.0 * np.abs(after - before) / width, 0.0)
    return ratio, share


def spikes(chain: Chain, spec: InstrumentSpec, min_pct: float, min_ranges: float) -> tuple[Floats, dict[str, Any]]:
    """Per bar of the walk: how far its high or low stands beyond both neighbours, in per cent of the price.

    0.0 where that is no more than ``min_pct``, or no more than ``min_ranges`` times the median true range of the bars
    around. Beside it the largest distance that was seen. A contract's first and last bar have one neighbour: there
    the bar's own open and close count as the other, so that a one-way move is no spike and a wick is one.
    """
    bars, size = chain.bars, len(chain.bars)
    if not size:
        return np.zeros(0), {}
    opens, highs, lows, closes = (getattr(bars, name).astype(np.float64) for name in PRICES)
    followed = np.append(chain.linked[1:], False)
    own_high, own_low = np.maximum(opens, closes), np.minimum(opens, closes)
    upper = np.maximum(
        np.where(chain.linked, np.roll(highs, 1), own_high), np.where(followed, np.roll(highs, -1), own_high)
    )
    lower = np.minimum(
        np.where(chain.linked, np.roll(lows, 1), own_low), np.where(followed, np.roll(lows, -1), own_low)
    )
    beyond = np.maximum(np.maximum(highs - upper, lower - lows), 0.0)
    pct = 100.0 * beyond / price_base((upper + lower) / 2.0, spec)
    earlier = np.where(chain.linked, np.roll(closes, 1), opens)
    true_range = np.maximum(highs, earlier) - np.minimum(lows, earlier)
    # The median is asked of few bars: over a window for every bar it would cost more than all other measures.
    asked = np.flatnonzero(pct > min_pct)
    ranges = beyond[asked] / _local_median(true_range, asked, spec.tick_nanos)
    found = asked[ranges > min_ranges]
    column = np.zeros(size)
    column[found] = pct[found]
    worst = int(np.argmax(pct))
    facts = {
        "largest_wick_pct": round(float(pct[worst]), 4),
        "largest_wick_at": chain.at(worst),
        "largest_wick_local_ranges": round(
            float(beyond[worst] / _local_median(true_range, np.array([worst]), spec.tick_nanos)[0]), 1
        ),
    }
    return column, facts


def _local_median(true_range: Floats, rows: Int64, tick_nanos: int) -> Floats:
    """Median true range of the bars around each row, the row included, at least one tick."""
    around = np.arange(-SPIKE_NEIGHBOURS, SPIKE_NEIGHBOURS + 1)
    medians = np.empty(len(rows))
    for first in range(0, len(rows), 20_000):
        some = rows[first : first + 20_000]
        window = np.clip(some[:, None] + around, 0, len(true_range) - 1)
        medians[first : first + 20_000] = np.median(true_range[window], axis=1)
    return np.maximum(medians, float(tick_nanos))


def repeats(chain: Chain) -> tuple[Int64, Int64]:
    """Per bar of the walk: how many bars in a row, this one included, had its four prices and its volume; and how many
    had its four prices."""
    same = chain.linked.copy()
    for name in PRICES:
        column = getattr(chain.bars, name)
        same[1:] &= column[1:] == column[:-1]
    identical = same.copy()
    identical[1:] &= chain.bars.volume[1:] == chain.bars.volume[:-1]
    return _run_lengths(identical), _run_lengths(same)


def _run_lengths(goes_on: Bools) -> Int64:
    position = np.arange(len(goes_on), dtype=np.int64)
    return position - np.maximum.accumulate(np.where(goes_on, 0, position)) + 1 if len(goes_on) else position


def open_close_gap(chain: Chain, sessions: Sessions, duration_ns: int) -> tuple[float, dict[str, Any]]:
    """How far opens lie from the close before, as a ratio to how far closes lie from the open before.

    A market opens a bar near the close of the bar before: the ratio is below 1, and it turns into its inverse where
    open and close are swapped. Where a price only bounces between bid and ask it is 1 give or take chance, and so it
    is with the columns swapped. Therefore each ratio counts less as many of its standard errors as chance reaches in
    ``SWAP_FALSE_ALARMS`` of all series with as many ratios. The largest of the whole series and of each session of
    minute bars with at least ``SWAP_MIN_PAIRS`` pairs of consecutive bars that moved; 0.0 where nothing has so many.
    """
    bars = chain.bars
    if len(bars) < 2:
        return 0.0, {"pairs": 0}
    owner = sessions.session_of(bars.ts_open)
    follows = chain.linked[1:]
    if duration_ns < DAY_NS:
        follows = follows & (np.diff(bars.ts_open) == duration_ns) & (owner[1:] == owner[:-1])
    gap = np.abs(bars.open[1:] - bars.close[:-1]).astype(np.float64)
    crossed = np.abs(bars.close[1:] - bars.open[:-1]).astype(np.float64)
    moved = follows & ((gap > 0) | (crossed > 0))
    gap, crossed, owner = gap[moved], crossed[moved], owner[1:][moved]
    facts: dict[str, Any] = {"pairs": len(gap)}
    if len(gap) < SWAP_MIN_PAIRS:
        return 0.0, facts
    per_session: list[tuple[int, float, float]] = []
    if duration_ns == MINUTE_NS:
        edges = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(owner)]
        for left, right in pairwise(edges):
            if owner[left] >= 0 and right - left >= SWAP_MIN_PAIRS:
                date = int(sessions.session_date[owner[left]])
                per_session.append((date, *_ratio(gap[left:right], crossed[left:right])))
        facts["sessions_looked_at"] = len(per_session)
    errors = NormalDist().inv_cdf(1.0 - SWAP_FALSE_ALARMS / (1 + len(per_session)))
    ratio, error = _ratio(gap, crossed)
    facts |= {"whole_series": round(ratio, 4), "standard_errors": round(errors, 2)}
    least = ratio - errors * error
    if per_session:
        date, ratio, error = max(per_session, key=lambda each: each[1] - errors * each[2])
        facts |= {"worst_session": date, "worst_session_ratio": round(ratio, 4)}
        least = max(least, ratio - errors * error)
    return max(least, 0.0), facts


def _ratio(above: Floats, below: Floats) -> tuple[float, float]:
    """The ratio of two sums and its standard error; 10 stands for everything beyond it, so that it stays a number."""
    total = float(below.sum())
    if total == 0 or float(above.sum()) > 10.0 * total:
        return 10.0, 0.0
    ratio = float(above.sum()) / total
    return ratio, float(np.sqrt(np.square(above - ratio * below).sum())) / total
