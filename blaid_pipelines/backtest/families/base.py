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
from blaid_pipelines.reasons import Reason

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
    """

    name: ClassVar[str]
    title: ClassVar[str]
    doc: ClassVar[str]
    parameters: ClassVar[Mapping[str, Parameter]]
    uses: ClassVar[Sequence[ModuleType]] = ()  # helper modules whose source decides the signals, too

    @abstractmethod
    def warmup_bars(self, params: Params) -> int:
        """Bars before the first close that may decide an entry."""

    @abstractmethod
    def signals(self, arrays: BarArrays, params: Params) -> Signals:
        """Target side and distances at each bar's close."""

    def check(self, params: Params) -> list[Reason]:
        """Violations that no single bound shows, such as a fast window longer than the slow one."""
        return []

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


def constant_signals(side: NDArray[np.int8], stop_ticks: int, target_ticks: int) -> Signals:
    """Signals whose stop and target distances are the same on every bar."""
    return Signals(
        side=side,
        stop_ticks=np.full(len(side), stop_ticks, dtype=np.int32),
        target_ticks=np.full(len(side), target_ticks, dtype=np.int32),
    )
