"""VWAP reversion: fade a close that lies far from the session's volume-weighted average price, until it is back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.families import clock, intraday, within_session
from blaid_pipelines.backtest.families.base import HOUR_NS, MINUTE_NS, Parameter, Params, Signals, constant_signals
from blaid_pipelines.reasons import Reason, ReasonCode, Refused

_SLACK_NS = HOUR_NS
_MOST = 2.0**62


class VwapReversion(intraday.ClockFamily):
    """Short far over the VWAP, long far under it, out at the VWAP; nothing outlives the session."""

    name = "vwap_reversion"
    title = "VWAP reversion (mean reversion inside a session)"
    doc = (
        "VWAP is the mean of typical prices (high + low + close) / 3 since the anchor, weighted by volume; its "
        "deviation is that of the same prices, weighted the same. Short from a close at least entry_sd deviations "
        "and entry_ticks over the VWAP, long mirrored, until a close is at or beyond the VWAP, the stop, the target, "
        "flat_at or the end of the session."
    )
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "anchor": Parameter(
            "int",
            intraday.OFF,
            intraday.OFF,
            1439,
            1,
            "Chicago time the VWAP begins, in minutes after midnight (510 is 08:30); -1: the session's first bar.",
        ),
        "settle_minutes": Parameter("int", 30, 1, 720, 1, "No entry until this many minutes after the anchor."),
        "entry_sd": Parameter("decimal", 2.0, 0.0, 6.0, 0.1, "Least distance in standard deviations; 0: any."),
        "entry_ticks": Parameter("int", 0, 0, 10_000, 1, "Least distance in ticks; 0: any."),
        "last_entry": intraday.LAST_ENTRY,
        "flat_at": intraday.FLAT_AT,
        "stop_ticks": Parameter("int", 40, 0, 10_000, 1, "Stop distance from the entry fill in ticks; 0: no stop."),
        "target_ticks": Parameter("int", 0, 0, 10_000, 1, "Target distance from the entry fill in ticks; 0: none."),
    }
    on_grid = ("anchor", "last_entry", "flat_at")
    uses = (clock, intraday, within_session)

    def signals(self, arrays: BarArrays, params: Params) -> Signals:
        bar_ns = self.require_suited(arrays, params)
        if not len(arrays):
            return constant_signals(np.zeros(0, dtype=np.int8), 0, 0)
        self._require_volume(arrays, bar_ns, params)
        day = intraday.day_of(arrays, bar_ns, int(params["anchor"]), _SLACK_NS, params)
        begin = _begin(arrays, day)
        distance, spread, volume = _distances(arrays, day, begin)
        known = day.known & (day.since_ns >= 0) & (volume > 0)
        # a bar without a trade has no price to fade; it may still end a position
        may_enter = known & day.may_enter & (arrays.volume > 0)
        may_enter &= day.since_ns + bar_ns >= int(params["settle_minutes"]) * MINUTE_NS
        far = may_enter & _far(distance, spread, volume, params)
        side = within_session.held(far & (distance < 0), ~known | (distance >= 0), begin).astype(np.int8)
        side -= within_session.held(far & (distance > 0), ~known | (distance <= 0), begin).astype(np.int8)
        side[~day.may_hold] = 0
        return constant_signals(side, int(params["stop_ticks"]), int(params["target_ticks"]))

    def check(self, params: Params) -> list[Reason]:
        reasons = intraday.too_early(self.name, params, "anchor", "settle_minutes")
        if not params["entry_sd"] and not params["entry_ticks"]:
            reasons.append(
                Reason(
                    ReasonCode.PARAMETER_INVALID,
                    "vwap_reversion: entry_sd and entry_ticks are both 0, so every close would be far enough.",
                    "Give a distance in standard deviations, in ticks, or in both.",
                    {"parameter": "entry_sd", "value": 0, "entry_ticks": 0},
                )
            )
        return reasons

    def _require_volume(self, arrays: BarArrays, bar_ns: int, params: Params) -> None:
        """No volume at all means no VWAP at all: said aloud instead of a backtest without a trade."""
        if len(arrays) > self.warmup_for(params, bar_ns) and not arrays.volume.any():
            raise Refused(
                Reason(
                    ReasonCode.BARS_UNSUITED,
                    f"None of {len(arrays)} bars has volume; there is no volume-weighted price.",
                    "Use bars with volume, or zscore_reversion, which needs none.",
                    {"strategy": self.name, "bars": len(arrays)},
                )
            )


def _begin(arrays: BarArrays, day: intraday.Day) -> NDArray[np.int64]:
    """For each bar the first bar of its session that opens at or after the anchor; beyond the bar itself before it."""
    anchors = arrays.ts_open[day.sessions.starts] - day.since_ns[day.sessions.starts]
    return day.sessions.spread(np.maximum(np.searchsorted(arrays.ts_open, anchors), day.sessions.starts))


def _distances(
    arrays: BarArrays, day: intraday.Day, begin: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """3 V (close - VWAP), (3 V)^2 times the variance, and V, the volume, all since ``begin``.

    Prices count from their session's first open in thirds of a tick, so that all sums are exact and small.
    """
    base = 3 * day.sessions.spread(arrays.signal_open[day.sessions.starts]).astype(np.int64)
    close = arrays.signal_close.astype(np.int64)
    price = close + arrays.signal_high + arrays.signal_low - base
    weighted = arrays.volume * price
    squares = weighted * price
    _require_range(arrays, price, day)
    volume, first, second = (_sum_since(column, begin) for column in (arrays.volume, weighted, squares))
    distance = (3 * close - base) * volume - first
    mean = first.astype(np.float64)
    # element by element from exact sums: the same wherever the series begins
    spread = second.astype(np.float64) * volume.astype(np.float64) - mean * mean
    return distance, np.maximum(spread, 0.0), volume


def _require_range(arrays: BarArrays, price: NDArray[np.int64], day: intraday.Day) -> None:
    """Refuse volumes and moves whose sums leave int64; the first test is cheap and all that real data meets."""
    widest = float(max(price.max(), -price.min()))
    sessions = np.append(day.sessions.starts, len(price))
    if float(arrays.volume.max()) * widest * widest * float(np.diff(sessions).max()) < _MOST:
        return
    terms = arrays.volume.astype(np.float64) * np.maximum(price.astype(np.float64) ** 2, 1.0)
    most = float(np.add.reduceat(terms, day.sessions.starts).max())
    if most >= _MOST:
        raise Refused(
            Reason(
                ReasonCode.VOLUME_INVALID,
                f"Volume times squared move adds up to {most:g} in one session: too large to be counted exactly.",
                "Look at the volumes and prices of the source; no market trades that much.",
                {"sum": most, "limit": _MOST},
            )
        )


def _sum_since(values: NDArray[np.int64], begin: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum from bar ``begin[i]`` to bar i; a running total may wrap around, the difference is exact all the same."""
    total = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=total[1:])
    return total[1:] - total[np.minimum(begin, len(values))]


def _far(
    distance: NDArray[np.int64], spread: NDArray[np.float64], volume: NDArray[np.int64], params: Params
) -> NDArray[np.bool_]:
    """At least ``entry_sd`` deviations and ``entry_ticks`` ticks from the VWAP; no deviation at all is never far."""
    far = np.abs(distance) >= 3 * int(params["entry_ticks"]) * volume
    if params["entry_sd"]:
        far &= (spread > 0) & (distance.astype(np.float64) ** 2 >= float(params["entry_sd"]) ** 2 * spread)
    return far
