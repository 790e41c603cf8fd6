"""What families of the clock share: bars they are suited to, and each bar's place after its session's anchor.

The anchor is a time of day in Chicago, or the session's first bar. A session counts when its beginning was seen: the
first one of a series is never traded, since nobody can tell whether its first bar is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.families import clock, within_session
from blaid_pipelines.backtest.families.base import DAY_NS, HOUR_NS, MINUTE_NS, Parameter, Params, StrategyFamily
from blaid_pipelines.reasons import Reason, ReasonCode

OFF = -1

LAST_ENTRY = Parameter(
    "int", OFF, OFF, 1439, 1, "No entry at or after this time of day (Chicago, minutes after midnight); -1: no limit."
)
FLAT_AT = Parameter(
    "int", OFF, OFF, 1439, 1, "Flat at this time of day (Chicago, minutes after midnight); -1: with the session's end."
)


class ClockFamily(StrategyFamily):
    """A family whose rule is one of the clock: bars of a minute or an hour, parameters that fall on their opens."""

    on_grid: ClassVar[Sequence[str]] = ()  # parameters in minutes that must be whole bars; below 0 they are off

    def warmup_bars(self, params: Params) -> int:
        return self.warmup_for(params, MINUTE_NS)

    def warmup_for(self, params: Params, bar_ns: int) -> int:
        # a session of at most a day, and one bar before it that shows where it began
        return DAY_NS // bar_ns + 1

    def unsuited(self, params: Params, bar_ns: int) -> list[Reason]:
        if bar_ns not in (MINUTE_NS, HOUR_NS):
            return [self._wrong_length(bar_ns)]
        minutes = bar_ns // MINUTE_NS
        return [
            Reason(
                ReasonCode.BARS_UNSUITED,
                f"{self.name}: {name}={params[name]} minutes do not fall on the opens of bars of {minutes} minutes.",
                f"Use bars of a minute, or a multiple of {minutes} for {name}.",
                {"parameter": name, "value": params[name], "bar_minutes": minutes},
            )
            for name in self.on_grid
            if params[name] >= 0 and params[name] % minutes
        ]

    def _wrong_length(self, bar_ns: int) -> Reason:
        return Reason(
            ReasonCode.BARS_UNSUITED,
            f"{self.name} follows the clock inside a session; it cannot on bars of {bar_ns / 1e9:g} seconds.",
            "Use bars of a minute (ohlcv-1m) or an hour (ohlcv-1h).",
            {"strategy": self.name, "bar_ns": bar_ns, "suited_ns": [MINUTE_NS, HOUR_NS]},
        )


def too_early(family: str, params: Params, anchor: str, length: str) -> list[Reason]:
    """Limits that come before the first entry could be filled, ``length`` minutes after the anchor: never a trade.

    Nothing is said where the anchor is the session's first bar, whose time the parameters do not tell.
    """
    start = int(params[anchor])
    return [
        Reason(
            ReasonCode.PARAMETER_INVALID,
            f"{family}: {name} ({params[name]}) leaves no time to trade: the first entry could be "
            f"{params[length]} minutes after {anchor} ({start}).",
            f"Choose a later {name}, or -1.",
            {"parameter": name, "value": params[name], anchor: start, length: params[length]},
        )
        for name in ("last_entry", "flat_at")
        if start >= 0 and params[name] >= 0 and (params[name] - start) % clock.DAY_MINUTES <= params[length]
    ]


@dataclass(frozen=True, eq=False)
class Day:
    """Bars and the anchors of their sessions. All arrays have shape (n,).

    ``since_ns``: from the anchor to the bar's open, negative before it. ``known``: the session's beginning was seen,
    less than a day ago. ``may_enter``, ``may_hold``: what the bar's close decides is filled before the last entry,
    before the time to be flat.
    """

    sessions: within_session.SessionIndex
    since_ns: NDArray[np.int64]
    known: NDArray[np.bool_]
    may_enter: NDArray[np.bool_]
    may_hold: NDArray[np.bool_]


def day_of(arrays: BarArrays, bar_ns: int, anchor: int, slack_ns: int, params: Mapping[str, int | float]) -> Day:
    """Each bar's place in its session's day.

    ``anchor``: a minute of the day, or below 0 for the session's first bar. It is the first such time after the
    session's first bar less ``slack_ns``: without slack, a first minute without a trade would move it by a day.
    """
    sessions = within_session.session_index(arrays.session_date)
    ts_open = arrays.ts_open
    first = ts_open[sessions.starts]
    anchors = first if anchor < 0 else clock.next_time(first - slack_ns, anchor)
    closes = ts_open + bar_ns

    def earlier(name: str) -> NDArray[np.bool_]:
        minute = int(params[name])
        if minute < 0:
            return np.ones(len(ts_open), dtype=np.bool_)
        return closes < sessions.spread(clock.next_time(anchors, minute))

    return Day(
        sessions=sessions,
        since_ns=ts_open - sessions.spread(anchors),
        known=(sessions.first > 0) & (ts_open - sessions.spread(first) < DAY_NS),
        may_enter=earlier("last_entry"),
        may_hold=earlier("flat_at"),
    )
