"""Volatility filter: momentum, taken only while volatility is neither asleep nor wild; distances follow volatility."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.families import extremes, windows, within_session
from blaid_pipelines.backtest.families.base import Parameter, Params, Signals, StrategyFamily
from blaid_pipelines.reasons import Reason, ReasonCode


class VolatilityFilter(StrategyFamily):
    """The sign of the move of ``momentum_bars`` while short volatility over long lies in a band, else flat."""

    name = "volatility_filter"
    title = "Volatility-filtered momentum"
    doc = (
        "ATR is the plain mean of true ranges. Long while the close is over that of momentum_bars before, short while "
        "under it, both only while ATR(atr_bars) / ATR(long_atr_bars) lies from ratio_low to ratio_high; flat outside. "
        "Stop and target are multiples of ATR(atr_bars) at the close that decides the entry, at least one tick."
    )
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "momentum_bars": Parameter("int", 120, 1, 2000, 1, "Bars over which the move is measured."),
        "atr_bars": Parameter("int", 30, 2, 500, 1, "Bars in the short average true range."),
        "long_atr_bars": Parameter("int", 600, 10, 5000, 1, "Bars in the long average; more than atr_bars."),
        "ratio_low": Parameter("decimal", 0.8, 0.0, 10.0, 0.05, "Least short over long average true range."),
        "ratio_high": Parameter("decimal", 2.0, 0.05, 20.0, 0.05, "Most short over long; more than ratio_low."),
        "stop_atr": Parameter("decimal", 2.0, 0.0, 50.0, 0.1, "Stop in short average true ranges; 0: no stop."),
        "target_atr": Parameter("decimal", 4.0, 0.0, 50.0, 0.1, "Target in short average true ranges; 0: none."),
        "each_session": within_session.EACH_SESSION,
    }
    uses = (extremes, windows, within_session)

    def warmup_bars(self, params: Params) -> int:
        # the longest look back, a bar to see a new session by and one to see a change of side
        return max(int(params["long_atr_bars"]), int(params["momentum_bars"])) + 2

    def signals(self, arrays: BarArrays, params: Params) -> Signals:
        self.require_suited(arrays, params)
        short_bars, long_bars = int(params["atr_bars"]), int(params["long_atr_bars"])
        true_range = extremes.true_range(arrays)
        short = windows.window_sum(true_range, short_bars)
        # mean over mean without dividing, in twentieths as the parameters' steps are
        ours, theirs = 20 * long_bars * short, short_bars * windows.window_sum(true_range, long_bars)
        least, most = round(params["ratio_low"] * 20), round(params["ratio_high"] * 20)
        inside = (ours >= least * theirs) & (ours <= most * theirs)
        side = inside * _momentum(arrays.signal_close, int(params["momentum_bars"]))
        side[: max(long_bars, int(params["momentum_bars"]))] = 0
        if params["each_session"]:
            side = within_session.begun_anew(side, within_session.session_index(arrays.session_date))
        return Signals(
            side=side,
            stop_ticks=extremes.in_ticks(short, short_bars, float(params["stop_atr"])),
            target_ticks=extremes.in_ticks(short, short_bars, float(params["target_atr"])),
        )

    def unsuited(self, params: Params, bar_ns: int) -> list[Reason]:
        return within_session.no_session_inside(self.name, params, bar_ns)

    def check(self, params: Params) -> list[Reason]:
        rows = (("atr_bars", "long_atr_bars", "fewer"), ("ratio_low", "ratio_high", "less"))
        return [
            Reason(
                ReasonCode.PARAMETER_INVALID,
                f"volatility_filter: {low} ({params[low]}) must be {word} than {high} ({params[high]}).",
                f"Choose a smaller {low} or a larger {high}.",
                {"parameter": low, "value": params[low], high: params[high]},
            )
            for low, high, word in rows
            if not params[low] < params[high]
        ]


def _momentum(close: NDArray[np.int32], bars: int) -> NDArray[np.int8]:
    """Sign of the close minus that of ``bars`` before; 0 before there is one."""
    result = np.zeros(len(close), dtype=np.int8)
    result[bars:] = np.sign(close[bars:] - close[:-bars])
    return result
