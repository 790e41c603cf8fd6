"""Trailing highs and lows, true ranges and distances in multiples of them; all exact, in ticks.

Windows are full or the value is not to be used: each function says from which bar on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.arrays import BarArrays

MOST_TICKS = int(np.iinfo(np.int32).max) // 4
"""The largest distance a strategy may ask for: entry, stop and target are added to prices in int32."""


def highest(values: NDArray[np.int32], window: int) -> NDArray[np.int32]:
    """Highest of the last ``window`` values, the bar's own included; of fewer before bar ``window - 1``.

    Windows of 1, 2, 4, ... bars are joined, so that a window of w bars takes log2(w) passes and not w.
    """
    result, span = values.copy(), 1
    while span < window:
        shift = min(span, window - span)
        joined = result.copy()
        np.maximum(result[shift:], result[:-shift], out=joined[shift:])
        result, span = joined, span + shift
    return result


def lowest(values: NDArray[np.int32], window: int) -> NDArray[np.int32]:
    """Lowest of the last ``window`` values, the bar's own included; of fewer before bar ``window - 1``."""
    return -highest(-values, window)


def before(values: NDArray[np.int32]) -> NDArray[np.int32]:
    """The value one bar earlier: what was known when the bar began. The first bar keeps its own."""
    result = values.copy()
    result[1:] = values[:-1]
    return result


def true_range(arrays: BarArrays) -> NDArray[np.int64]:
    """High to low, widened to the close before (Wilder 1978); from bar 1 on. A roll's step is not in it."""
    close = before(arrays.signal_close)
    top = np.maximum(arrays.signal_high, close)
    return (top - np.minimum(arrays.signal_low, close)).astype(np.int64)


def in_ticks(total: NDArray[np.int64], count: int, multiple: float) -> NDArray[np.int32]:
    """``multiple`` (in tenths) times ``total / count``, to the nearest tick, at least one; 0 where multiple is 0."""
    tenths = round(multiple * 10)
    if tenths == 0:
        return np.zeros(len(total), dtype=np.int32)
    ticks = (2 * tenths * total + 10 * count) // (20 * count)
    return np.clip(ticks, 1, MOST_TICKS).astype(np.int32)
