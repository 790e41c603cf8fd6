"""Opening range: trade the break of the high or low that the first minutes of a session or of regular hours made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.families import clock, extremes, intraday, within_session
from blaid_pipelines.backtest.families.base import MINUTE_NS, Parameter, Params, Signals, constant_signals
from blaid_pipelines.reasons import Reason


class OpeningRange(intraday.ClockFamily):
    """Long after a close over the opening range's high, short after one under its low; nothing outlives the session."""

    name = "opening_range"
    title = "Opening-range breakout"
    doc = (
        "The range is high and low of the first range_minutes from range_start on. Long from a close more than "
        "buffer_ticks over its high, short from one more than buffer_ticks under its low, at most max_entries times "
        "a session. A position ends at its stop, its target, the opposite break, flat_at or the end of the session."
    )
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "range_start": Parameter(
            "int",
            510,
            intraday.OFF,
            1439,
            1,
            "Chicago time the range begins, in minutes after midnight (510 is 08:30); -1: the session's first bar.",
        ),
        "range_minutes": Parameter("int", 30, 1, 720, 1, "Length of the range in minutes."),
        "buffer_ticks": Parameter("int", 1, 0, 1_000, 1, "Ticks by which the close must be beyond the range."),
        "max_entries": Parameter("int", 1, 1, 20, 1, "Breaks that are taken in one session."),
        "exit_inside": Parameter("int", 0, 0, 1, 1, "1: leave when a close is back inside the range; 0: stay."),
        "last_entry": intraday.LAST_ENTRY,
        "flat_at": intraday.FLAT_AT,
        "stop_ticks": Parameter(
            "int", 0, 0, 10_000, 1, "Stop distance from the entry fill in ticks; 0: none. Of two, the nearer."
        ),
        "target_ticks": Parameter(
            "int", 0, 0, 10_000, 1, "Target distance from the entry fill in ticks; 0: none. Of two, the nearer."
        ),
        "stop_ranges": Parameter("decimal", 1.0, 0.0, 10.0, 0.1, "Stop distance in heights of the range; 0: none."),
        "target_ranges": Parameter("decimal", 0.0, 0.0, 10.0, 0.1, "Target distance in heights of the range; 0: none."),
    }
    on_grid = ("range_start", "range_minutes", "last_entry", "flat_at")
    uses = (clock, extremes, intraday, within_session)

    def signals(self, arrays: BarArrays, params: Params) -> Signals:
        bar_ns = self.require_suited(arrays, params)
        if not len(arrays):
            return constant_signals(np.zeros(0, dtype=np.int8), 0, 0)
        length = int(params["range_minutes"]) * MINUTE_NS
        # slack of the range's length: a session that begins inside the range still has what is left of it
        day = intraday.day_of(arrays, bar_ns, int(params["range_start"]), length, params)
        top, bottom, formed = _range(arrays, day, bar_ns, length)
        buffer = int(params["buffer_ticks"])
        close = arrays.signal_close
        broken = (close > top + buffer).astype(np.int8) - (close < bottom - buffer).astype(np.int8)
        broken[~formed] = 0
        decided = broken != 0
        if params["exit_inside"]:
            decided |= formed & (close <= top) & (close >= bottom)
        side = _taken(broken, decided, day, int(params["max_entries"]))
        height = np.where(side != 0, top.astype(np.int64) - bottom, 0)
        return Signals(side, _distance(side, height, params, "stop"), _distance(side, height, params, "target"))

    def check(self, params: Params) -> list[Reason]:
        return intraday.too_early(self.name, params, "range_start", "range_minutes")


def _range(
    arrays: BarArrays, day: intraday.Day, bar_ns: int, length_ns: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]:
    """High and low of the session's range for each bar, and from which bar on they are known."""
    starts, spread = day.sessions.starts, day.sessions.spread
    inside = day.known & (day.since_ns >= 0) & (day.since_ns + bar_ns <= length_ns)
    top = np.maximum.reduceat(np.where(inside, arrays.signal_high, -extremes.MOST_TICKS), starts)
    bottom = np.minimum.reduceat(np.where(inside, arrays.signal_low, extremes.MOST_TICKS), starts)
    seen = np.maximum.reduceat(inside, starts)
    return spread(top), spread(bottom), day.known & (day.since_ns >= length_ns) & spread(seen)


def _taken(
    broken: NDArray[np.int8], decided: NDArray[np.bool_], day: intraday.Day, max_entries: int
) -> NDArray[np.int8]:
    """The side that the breaks of a session give, without those that come too late or are too many.

    A break that is not taken still ends the position it is against.
    """
    first = day.sessions.first
    deciding = within_session.latest(decided)
    side = np.where(deciding >= first, broken[np.maximum(deciding, 0)], 0).astype(np.int8)
    changed = np.zeros(len(side), dtype=np.bool_)
    changed[1:] = side[1:] != side[:-1]
    entries = np.cumsum(changed & (side != 0))  # none on a session's first bar: its range is not there yet
    too_many = entries - day.sessions.spread(entries[day.sessions.starts]) > max_entries
    too_late = within_session.latest(changed & ~day.may_enter) >= first
    side[too_many | too_late | ~day.may_hold] = 0
    return side


def _distance(side: NDArray[np.int8], height: NDArray[np.int64], params: Params, which: str) -> NDArray[np.int32]:
    """The nearer of the distance in ticks and that in heights of the range; 0 where neither is given."""
    fixed = int(params[f"{which}_ticks"])
    ticks = extremes.in_ticks(height, 1, float(params[f"{which}_ranges"]))
    if fixed:
        ticks = np.minimum(np.where(ticks > 0, ticks, fixed), fixed).astype(np.int32)
    return np.where(side != 0, ticks, np.int32(0))
