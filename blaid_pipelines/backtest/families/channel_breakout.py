"""Channel breakout (Donchian): follow a close outside of the channel of past highs and lows, out at a shorter one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.families import extremes, within_session
from blaid_pipelines.backtest.families.base import Parameter, Params, Signals, StrategyFamily, constant_signals
from blaid_pipelines.reasons import Reason, ReasonCode


class ChannelBreakout(StrategyFamily):
    """Long after a close over the highest high of ``entry_bars`` bars, out under the lowest low of ``exit_bars``."""

    name = "channel_breakout"
    title = "Channel breakout (Donchian trend)"
    doc = (
        "Long from a close more than buffer_ticks over the highest high of the entry_bars bars before it, until a "
        "close under the lowest low of the exit_bars bars before it; short mirrored. A break that was not repeated "
        "for hold_bars bars is given up, which bounds the memory and with it the warm-up. With each_session a "
        "position needs a break in its own session."
    )
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "entry_bars": Parameter("int", 120, 2, 2000, 1, "Bars before the current one in the entry channel."),
        "exit_bars": Parameter("int", 60, 1, 2000, 1, "Bars in the exit channel; fewer than entry_bars."),
        "buffer_ticks": Parameter("int", 0, 0, 1_000, 1, "Ticks by which the close must be beyond the entry channel."),
        "hold_bars": Parameter("int", 240, 1, 5000, 1, "Bars after the latest break when a position is given up."),
        "each_session": within_session.EACH_SESSION,
        "stop_ticks": Parameter("int", 40, 0, 10_000, 1, "Stop distance from the entry fill in ticks; 0: no stop."),
        "target_ticks": Parameter("int", 0, 0, 10_000, 1, "Target distance from the entry fill in ticks; 0: none."),
    }
    uses = (extremes, within_session)

    def warmup_bars(self, params: Params) -> int:
        # a channel, the age of a break, a bar to see a new session by and one to see a change of side
        return int(params["entry_bars"]) + int(params["hold_bars"]) + 1

    def signals(self, arrays: BarArrays, params: Params) -> Signals:
        self.require_suited(arrays, params)
        up, down = _breaks(arrays, int(params["entry_bars"]), int(params["buffer_ticks"]))
        over, under = _breaks(arrays, int(params["exit_bars"]), 0)
        since = np.arange(len(arrays), dtype=np.int64) - int(params["hold_bars"]) + 1
        index = within_session.session_index(arrays.session_date)
        if params["each_session"]:
            since = np.maximum(since, index.first)
        side = within_session.held(up, under, since).astype(np.int8)
        side -= within_session.held(down, over, since).astype(np.int8)
        if params["each_session"]:
            side = within_session.begun_anew(side, index)
        return constant_signals(side, int(params["stop_ticks"]), int(params["target_ticks"]))

    def unsuited(self, params: Params, bar_ns: int) -> list[Reason]:
        return within_session.no_session_inside(self.name, params, bar_ns)

    def check(self, params: Params) -> list[Reason]:
        if params["exit_bars"] < params["entry_bars"]:
            return []
        return [
            Reason(
                ReasonCode.PARAMETER_INVALID,
                f"channel_breakout: exit_bars ({params['exit_bars']}) must be fewer than entry_bars "
                f"({params['entry_bars']}).",
                "Choose a shorter exit channel or a longer entry channel.",
                {"parameter": "exit_bars", "value": params["exit_bars"], "entry_bars": params["entry_bars"]},
            )
        ]


def _breaks(arrays: BarArrays, window: int, buffer: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether a close lies more than ``buffer`` over (under) the extremes of the ``window`` bars before its own."""
    close = arrays.signal_close
    up = close > extremes.highest(extremes.before(arrays.signal_high), window) + buffer
    down = close < extremes.lowest(extremes.before(arrays.signal_low), window) - buffer
    up[:window] = False
    down[:window] = False
    return up, down
