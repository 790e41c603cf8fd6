"""What a strategy family is: parameters with bounds, a declared warm-up, a pure function from bars to signals.

No family lives here; the registry and the checks of a caller's parameters are in ``backtest.strategy``.
"""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.reasons import Reason, Refused

MINUTE_NS = 60_000_000_000
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS

# Two session opens lie 23 hours apart when clocks go forward: bars of a day stamped there are still bars of a day.
_LEAST_DAY_NS = 20 * HOUR_NS

ParameterValue = int | float
Params = Mapping[str, ParameterValue]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: whole numbers for ``int``, multiples of ``step`` for ``decimal``; bounds are inclusive."""

    kind: Literal["int", "decimal"]
    default: ParameterValue
    low: ParameterValue
    high: ParameterValue
    step: ParameterValue
    doc: str


@dataclass(frozen=True, slots=True)
class Signals:
    """What a strategy wants at each bar's close. All arrays have one entry per bar.

    ``side``: int8, the target side +1, 0 or -1. ``stop_ticks`` and ``target_ticks``: int32 distances from the entry
    fill, 0 for none; the values on the bar whose close decides an entry apply to that trade.
    """

    side: NDArray[np.int8]
    stop_ticks: NDArray[np.int32]
    target_ticks: NDArray[np.int32]


class StrategyFamily(ABC):
    """A family of strategies: the same rule over a space of parameters.

    The contract. ``signals`` is pure: the value at bar i depends on bars 0..i only, and, once i >= ``warmup_bars``,
    on the trailing ``warmup_bars + 1`` bars only, so that live trading can call it on a trailing window and get the
    same answer. It reads the ``signal_*`` prices (adjusted across rolls, so levels carry no meaning, differences do)
    and never fills anything. Sides before ``warmup_bars`` are not acted on.

    A rule of the clock cannot be kept on every length of bar: :meth:`unsuited` says why not, and ``signals`` raises
    :class:`~blaid_pipelines.reasons.Refused` with the same reasons rather than never trade in silence.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    doc: ClassVar[str]
    parameters: ClassVar[Mapping[str, Parameter]]
    uses: ClassVar[Sequence[ModuleType]] = ()  # helper modules whose source decides the signals, too

    @abstractmethod
    def warmup_bars(self, params: Params) -> int:
        """Bars before the first close that may decide an entry; enough for bars of every length it is suited to."""

    def warmup_for(self, params: Params, bar_ns: int) -> int:
        """The warm-up on bars of ``bar_ns``: shorter than ``warmup_bars`` where the rule is one of the clock."""
        return self.warmup_bars(params)

    @abstractmethod
    def signals(self, arrays: BarArrays, params: Params) -> Signals:
        """Target side and distances at each bar's close."""

    def check(self, params: Params) -> list[Reason]:
        """Violations that no single bound shows, such as a fast window longer than the slow one."""
        return []

    def unsuited(self, params: Params, bar_ns: int) -> list[Reason]:
        """Why the rule cannot be kept on bars that last ``bar_ns`` nanoseconds; empty where it can."""
        return []

    def require_suited(self, arrays: BarArrays, params: Params) -> int:
        """How long a bar of ``arrays`` lasts; raises :class:`Refused` where :meth:`unsuited` has a reason."""
        bar_ns = bar_length_ns(arrays)
        reasons = self.unsuited(params, bar_ns)
        if reasons:
            raise Refused(*reasons)
        return bar_ns

    @property
    def source_hash(self) -> str:
        """sha256 over the source text of the family's module and the helpers it names: the strategy's identity."""
        digest = hashlib.sha256()
        modules = [inspect.getmodule(type(self)), *self.uses]
        for module in modules:
            assert module is not None
            digest.update(inspect.getsource(module).encode())
            digest.update(b"\0")
        return digest.hexdigest()


def bar_length_ns(arrays: BarArrays) -> int:
    """How long a bar lasts in nanoseconds: a day, an hour or a minute, the longest that fits the two closest bars.

    Below a minute it is the distance itself. Fewer than two bars count as minutes: they decide nothing anyway.
    """
    if len(arrays) < 2:
        return MINUTE_NS
    shortest = int(np.diff(arrays.ts_open).min())
    if shortest >= _LEAST_DAY_NS:
        return DAY_NS
    if shortest >= HOUR_NS:
        return HOUR_NS
    return MINUTE_NS if shortest >= MINUTE_NS else shortest


def constant_signals(side: NDArray[np.int8], stop_ticks: int, target_ticks: int) -> Signals:
    """Signals whose stop and target distances are the same on every bar."""
    return Signals(
        side=side,
        stop_ticks=np.full(len(side), stop_ticks, dtype=np.int32),
        target_ticks=np.full(len(side), target_ticks, dtype=np.int32),
    )
