"""Z-score reversion: fade a close that lies far from its trailing mean, until it is back at the mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.families import windows
from blaid_pipelines.backtest.families.base import Parameter, Params, Signals, StrategyFamily, constant_signals


class ZScoreReversion(StrategyFamily):
    """Long after z <= -entry_z, short after z >= entry_z; given up at the mean, or after one window without it."""

    name = "zscore_reversion"
    title = "Z-score reversion (mean reversion)"
    doc = (
        "z is the distance of the close from the mean of the trailing window in standard deviations. Long from "
        "z <= -entry_z until the close is at or over the mean, short mirrored; a signal older than one window is "
        "dropped, which bounds the memory and with it the warm-up."
    )
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "window": Parameter("int", 60, 5, 1000, 1, "Bars in the trailing mean and standard deviation."),
        "entry_z": Parameter("decimal", 2.0, 0.5, 6.0, 0.1, "Distance from the mean that opens a position."),
        "stop_ticks": Parameter("int", 40, 0, 10_000, 1, "Stop distance from the entry fill in ticks; 0: no stop."),
        "target_ticks": Parameter("int", 0, 0, 10_000, 1, "Target distance from the entry fill in ticks; 0: none."),
    }
    uses = (windows,)

    def warmup_bars(self, params: Params) -> int:
        # one window for z, one for the age of a signal, and one bar to see a change of side
        return 2 * int(params["window"])

    def signals(self, arrays: BarArrays, params: Params) -> Signals:
        window = int(params["window"])
        distance, spread = _moments(arrays.signal_close, window)
        # z^2 >= entry_z^2 without a root or a division; squares as float64, element by element
        far = distance.astype(np.float64) ** 2 >= float(params["entry_z"]) ** 2 * spread.astype(np.float64)
        known = (np.arange(len(distance)) >= window - 1) & (spread > 0)
        side = _held(known & far & (distance < 0), ~known | (distance >= 0), window).astype(np.int8)
        side -= _held(known & far & (distance > 0), ~known | (distance <= 0), window).astype(np.int8)
        return constant_signals(side, int(params["stop_ticks"]), int(params["target_ticks"]))


def _moments(close: NDArray[np.int32], window: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """n*x - sum(x) and n*sum(x^2) - sum(x)^2 of the trailing window: n times the distance, n^2 times the variance."""
    values = close.astype(np.int64)
    values = values - (values[0] if len(values) else 0)  # differences alone matter; small numbers keep squares in range
    total = windows.window_sum(values, window)
    squares = windows.window_sum(values * values, window)
    return window * values - total, window * squares - total * total


def _held(opens: NDArray[np.bool_], closes: NDArray[np.bool_], window: int) -> NDArray[np.bool_]:
    """True from a bar in ``opens`` until one in ``closes``, at most ``window`` bars from the latest opening."""
    index = np.arange(len(opens), dtype=np.int64)
    last_open = np.maximum.accumulate(np.where(opens, index, -1)) if len(index) else index
    last_close = np.maximum.accumulate(np.where(closes, index, -1)) if len(index) else index
    return (last_open > last_close) & (index - last_open < window)
