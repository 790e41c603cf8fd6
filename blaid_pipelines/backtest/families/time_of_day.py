"""Time of day: one side between two times in Chicago on chosen weekdays, whatever the price does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.families import clock, intraday, within_session
from blaid_pipelines.backtest.families.base import MINUTE_NS, Parameter, Params, Signals, constant_signals
from blaid_pipelines.reasons import Reason, ReasonCode

# Bars that show how long a bar lasts: no series that passes the quality gate has as many, all too far apart.
_WARMUP_BARS = 60


class TimeOfDay(intraday.ClockFamily):
    """One side from ``enter_at`` to ``exit_at``; a window may go over midnight and over a session's end."""

    name = "time_of_day"
    title = "Time of day (seasonal drift inside a day)"
    doc = (
        "Filled at the open of the first bar at or after enter_at, ended at the first at or after exit_at, both "
        "Chicago time; long with side=1, short with side=-1. A window over the end of a session is two trades, and "
        "the second one begins at the new session's third bar."
    )
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "enter_at": Parameter("int", 840, 0, 1439, 1, "Entry: minutes after midnight in Chicago (840 is 14:00)."),
        "exit_at": Parameter("int", 895, 0, 1439, 1, "Exit: minutes after midnight in Chicago; the next such time."),
        "side": Parameter("int", 1, -1, 1, 1, "1: long; -1: short."),
        "weekdays": Parameter(
            "int",
            31,
            1,
            127,
            1,
            "Sum of weekdays of session dates: Mon 1, Tue 2, Wed 4, Thu 8, Fri 16, Sat 32, Sun 64.",
        ),
        "stop_ticks": Parameter("int", 0, 0, 10_000, 1, "Stop distance from the entry fill in ticks; 0: no stop."),
        "target_ticks": Parameter("int", 0, 0, 10_000, 1, "Target distance from the entry fill in ticks; 0: none."),
    }
    on_grid = ("enter_at", "exit_at")
    uses = (clock, intraday, within_session)

    def warmup_for(self, params: Params, bar_ns: int) -> int:
        return _WARMUP_BARS

    def signals(self, arrays: BarArrays, params: Params) -> Signals:
        bar_ns = self.require_suited(arrays, params)
        # what a close decides is filled when the next bar opens: the time that counts is the bar's end
        closes = clock.minute_of_day(arrays.ts_open) + bar_ns // MINUTE_NS
        enter_at, exit_at = int(params["enter_at"]), int(params["exit_at"])
        inside = (closes - enter_at) % clock.DAY_MINUTES < (exit_at - enter_at) % clock.DAY_MINUTES
        index = within_session.session_index(arrays.session_date)
        dates = arrays.session_date[index.starts]
        inside &= index.spread((int(params["weekdays"]) >> clock.weekday(dates)) & 1 == 1)
        side = within_session.begun_anew(inside * np.int8(params["side"]), index)
        side[: _WARMUP_BARS - 1] = 0
        return constant_signals(side, int(params["stop_ticks"]), int(params["target_ticks"]))

    def check(self, params: Params) -> list[Reason]:
        reasons = []
        if params["side"] == 0:
            reasons.append(_invalid("side", params, "is neither long nor short", "Choose 1 or -1."))
        if params["enter_at"] == params["exit_at"]:
            reasons.append(_invalid("exit_at", params, "is also enter_at", "Choose two times."))
        return reasons


def _invalid(name: str, params: Params, what: str, fix: str) -> Reason:
    return Reason(
        ReasonCode.PARAMETER_INVALID,
        f"time_of_day: {name}={params[name]} {what}.",
        fix,
        {"parameter": name, "value": params[name]},
    )
