"""The compiled half of a backtest: from changes of the target side to fills, in int32 ticks and whole micro-dollars.

Stage one, which bars change the target side, is :func:`changes` (numpy); stage two, :func:`walk`, jumps from change to
change and steps through bars only while a position is open. The rules are those of ``docs/reference/fill-rules.md``;
``reference`` states them a second time, bar by bar and in plain Python, and tests hold the two together. Import this
module late: it loads numba.

Compiled code is cached beside this file, or under ``NUMBA_CACHE_DIR``, or in the user's cache folder when neither is
writable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.arrays import LAST_OF_CONTRACT, LAST_OF_SESSION

SIGNAL, STOP, TARGET, SESSION_END, ROLL, DAILY_LOSS, DATA_END = range(7)

# columns of a fill row
ENTRY_BAR, EXIT_BAR, SIDE, ENTRY, EXIT, REASON, ADVERSE, FAVOURABLE, AMBIGUOUS, TARGET_FIRST_EXIT = range(10)
FILL_COLUMNS = 10

_F = TypeVar("_F", bound=Callable[..., Any])


def _compiled(function: _F) -> _F:
    """njit with the cache on disk; without it where no folder can be written, which costs seconds at each start."""
    try:
        return cast(_F, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:
        return cast(_F, numba.njit(nogil=True)(function))


def changes(side: NDArray[np.int8], warmup_bars: int) -> NDArray[np.int64]:
    """Bars from ``warmup_bars`` on at whose close the target side differs from the bar before, ascending."""
    bars: NDArray[np.int64] = np.flatnonzero(side[1:] != side[:-1]).astype(np.int64) + 1
    return bars[bars >= max(warmup_bars, 1)]


@_compiled
def walk(
    open_: NDArray[np.int32],
    high: NDArray[np.int32],
    low: NDArray[np.int32],
    close: NDArray[np.int32],
    session: NDArray[np.int32],
    flat: NDArray[np.uint8],
    side: NDArray[np.int8],
    stop_ticks: NDArray[np.int32],
    target_ticks: NDArray[np.int32],
    change: NDArray[np.int64],
    tick_value: int,
    cost_per_side: int,
    slippage: int,
    capital: int,
    margin: int,
    loss_limit: int,
    flatten: bool,
    target_gap_at_open: bool,
    fills: NDArray[np.int64],
) -> int:
    """Fill rows of all trades into ``fills`` (int64, (len(change), FILL_COLUMNS)); returns how many.

    Money (``tick_value``, ``cost_per_side``, ``capital``, ``margin``, ``loss_limit``) is in millionths of a dollar for
    the whole position; ``loss_limit`` below 0 means none. Within a trade all levels are ticks from the entry fill,
    positive in the trade's favour, so that long and short are one code.
    """
    bars = len(open_)
    count = 0
    equity = capital  # realised, net of costs
    day = -1  # session that day_start belongs to
    day_start = capital  # equity marked at that session's beginning
    halted = -1  # session in which no entry is allowed any more
    last_exit = -1

    for event in range(len(change)):
        signal_bar = change[event]
        direction = int(side[signal_bar])
        entry_bar = signal_bar + 1
        if direction == 0 or entry_bar >= bars:
            continue
        # a trade's result counts towards the daily limit from the close of its exit bar on
        if 0 <= last_exit < entry_bar and loss_limit >= 0 and equity - day_start <= -loss_limit:
            halted = day
        if _forced_flat(flat[signal_bar], flatten) or _forced_flat(flat[entry_bar], flatten):
            continue
        if halted == session[entry_bar] or margin > equity:
            continue
        if session[entry_bar] != day:
            day, day_start = session[entry_bar], equity

        entry = open_[entry_bar] + direction * slippage
        stop, target = int(stop_ticks[signal_bar]), int(target_ticks[signal_bar])
        signal_exit = change[event + 1] + 1 if event + 1 < len(change) else bars
        equity -= cost_per_side
        loss_hit = False
        adverse = 0
        favourable = 0
        bar = entry_bar
        while True:
            if bar > entry_bar and session[bar] != day:
                day, day_start = session[bar], equity + direction * (close[bar - 1] - entry) * tick_value
            first = direction * (open_[bar] - entry)
            worst = direction * ((low[bar] if direction > 0 else high[bar]) - entry)
            best = direction * ((high[bar] if direction > 0 else low[bar]) - entry)
            last = direction * (close[bar] - entry)
            ambiguous = False
            target_result = 0

            if loss_hit or bar == signal_exit:  # decided at the close before
                reason = DAILY_LOSS if loss_hit else SIGNAL
                result = first - slippage
                worst, best = first, first
                break
            if stop > 0 and worst <= -stop:
                reason = STOP
                level = min(first, -stop)
                result = level - slippage
                ambiguous = bool(target > 0 and best >= target and first > -stop)
                target_result = _target_level(first, target, target_gap_at_open)
                worst, best = level, first
                break
            if target > 0 and best >= target:
                reason = TARGET
                result = _target_level(first, target, target_gap_at_open)
                best = result
                break
            if _forced_flat(flat[bar], flatten) or bar == bars - 1:
                reason = DATA_END
                if flat[bar] == LAST_OF_CONTRACT:
                    reason = ROLL
                elif _forced_flat(flat[bar], flatten):
                    reason = SESSION_END
                result = last - slippage
                break
            adverse = max(adverse, -worst)
            favourable = max(favourable, best)
            if loss_limit >= 0 and equity + last * tick_value - day_start <= -loss_limit:
                loss_hit = True
                halted = session[bar]
            bar += 1

        equity += result * tick_value - cost_per_side
        last_exit = bar
        row = fills[count]
        row[ENTRY_BAR] = entry_bar
        row[EXIT_BAR] = bar
        row[SIDE] = direction
        row[ENTRY] = entry
        row[EXIT] = entry + direction * result
        row[REASON] = reason
        row[ADVERSE] = max(adverse, -worst)
        row[FAVOURABLE] = max(favourable, best)
        row[AMBIGUOUS] = 1 if ambiguous else 0
        row[TARGET_FIRST_EXIT] = entry + direction * (target_result if ambiguous else result)
        count += 1
    return count


@_compiled
def _forced_flat(flag: int, flatten: bool) -> bool:
    return bool(flag == LAST_OF_CONTRACT or (flatten and flag == LAST_OF_SESSION))


@_compiled
def _target_level(first: int, target: int, at_open: bool) -> int:
    return max(first, target) if at_open else target
