"""Exact trailing-window sums for strategy families: int64 in, int64 out, one pass.

Integer sums have no rounding, so a window's value does not depend on where the series began.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def window_sum(values: NDArray[np.int64], window: int) -> NDArray[np.int64]:
    """Sum of the last ``window`` values at each index; 0 where the window is not full yet.

    The running total may wrap around; the difference of two wrapped totals is still the exact sum of the window.
    """
    result = np.zeros(len(values), dtype=np.int64)
    if len(values) < window:
        return result
    total = np.cumsum(values, dtype=np.int64)
    result[window - 1] = total[window - 1]
    result[window:] = total[window:] - total[:-window]
    return result
