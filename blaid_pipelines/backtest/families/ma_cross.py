"""Moving-average cross: follow the trend while a fast average of closes is over (under) a slow one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.families import windows
from blaid_pipelines.backtest.families.base import Parameter, Params, Signals, StrategyFamily, constant_signals
from blaid_pipelines.reasons import Reason, ReasonCode


class MovingAverageCross(StrategyFamily):
    """Long while mean(fast) > mean(slow), short while below, flat where both are equal."""

    name = "ma_cross"
    title = "Moving-average cross (trend)"
    doc = (
        "Long from the close at which the fast moving average of closes rises over the slow one, short when it falls "
        "under it. A position ends at its stop, its target, the opposite cross or the end of the session."
    )
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "fast": Parameter("int", 20, 1, 500, 1, "Bars in the fast average."),
        "slow": Parameter("int", 120, 2, 2000, 1, "Bars in the slow average; more than fast."),
        "stop_ticks": Parameter("int", 40, 0, 10_000, 1, "Stop distance from the entry fill in ticks; 0: no stop."),
        "target_ticks": Parameter("int", 80, 0, 10_000, 1, "Target distance from the entry fill in ticks; 0: none."),
    }
    uses = (windows,)

    def warmup_bars(self, params: Params) -> int:
        # side is known from bar slow - 1 on; a change of side needs one bar more
        return int(params["slow"])

    def signals(self, arrays: BarArrays, params: Params) -> Signals:
        fast, slow = int(params["fast"]), int(params["slow"])
        close = arrays.signal_close.astype(np.int64)
        # compare means without dividing: sum_fast / fast > sum_slow / slow
        difference = windows.window_sum(close, fast) * slow - windows.window_sum(close, slow) * fast
        side = np.sign(difference).astype(np.int8)
        side[: slow - 1] = 0
        return constant_signals(side, int(params["stop_ticks"]), int(params["target_ticks"]))

    def check(self, params: Params) -> list[Reason]:
        if params["fast"] < params["slow"]:
            return []
        return [
            Reason(
                ReasonCode.PARAMETER_INVALID,
                f"ma_cross: fast ({params['fast']}) must be less than slow ({params['slow']}).",
                "Choose a shorter fast or a longer slow window.",
                {"parameter": "fast", "value": params["fast"], "slow": params["slow"]},
            )
        ]
