"""Bars as the backtest reads them: int32 ticks, session dates, forced-exit flags, prices for signals beside true ones.

Built once per snapshot and shared by every bot on it. What cannot be expressed exactly in ticks is refused, whatever
the quality gate said before. No strategy and no money here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.reasons import Reason, ReasonCode, Refused

if TYPE_CHECKING:
    from blaid_pipelines.market.bars import Bars
    from blaid_pipelines.market.instruments import InstrumentSpec
    from blaid_pipelines.market.rolls import RollStep
    from blaid_pipelines.market.sessions import Sessions

NOT_FLAT = 0
LAST_OF_SESSION = 1
LAST_OF_CONTRACT = 2

_DTYPES: dict[str, Any] = {
    "ts_open": np.int64,
    "open": np.int32,
    "high": np.int32,
    "low": np.int32,
    "close": np.int32,
    "signal_open": np.int32,
    "signal_high": np.int32,
    "signal_low": np.int32,
    "signal_close": np.int32,
    "volume": np.int64,
    "session_date": np.int32,
    "flat": np.uint8,
    "contract": np.int16,
}


@dataclass(frozen=True, eq=False)
class BarArrays:
    """``n`` bars in time order, one contract at a time; all arrays have shape (n,).

    ``open`` to ``close``: true prices in ticks, for fills. ``signal_*``: the same with the steps of rolls taken out,
    for signals. ``session_date``: yyyymmdd. ``flat``: 0, 1 on the last bar of a session, 2 on the last bar of a
    contract (2 where both). ``contract`` indexes ``contracts``. ``tick_nanos``: one tick in 1e-9 price units.
    """

    ts_open: NDArray[np.int64]
    open: NDArray[np.int32]
    high: NDArray[np.int32]
    low: NDArray[np.int32]
    close: NDArray[np.int32]
    signal_open: NDArray[np.int32]
    signal_high: NDArray[np.int32]
    signal_low: NDArray[np.int32]
    signal_close: NDArray[np.int32]
    volume: NDArray[np.int64]
    session_date: NDArray[np.int32]
    flat: NDArray[np.uint8]
    contract: NDArray[np.int16]
    contracts: tuple[str, ...]
    tick_nanos: int

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            column = getattr(self, name)
            if column.dtype != dtype or column.shape != (len(self.ts_open),):
                raise ValueError(f"column {name}: {column.dtype}{column.shape}, wanted {np.dtype(dtype)}[n]")
            # one memory layout for all: the kernel is compiled for it once
            object.__setattr__(self, name, np.require(column, requirements=["C", "A", "W"]))
        if len(self) > 1:
            _check_order(self)

    def __len__(self) -> int:
        return len(self.ts_open)

    def slice(self, start: int, stop: int) -> BarArrays:
        """Bars ``start`` to ``stop`` - 1 as arrays of their own (copies)."""
        columns = {name: getattr(self, name)[start:stop].copy() for name in _DTYPES}
        return BarArrays(**columns, contracts=self.contracts, tick_nanos=self.tick_nanos)


def _check_order(arrays: BarArrays) -> None:
    """The three promises that the fill rules rest on."""
    if not (np.diff(arrays.ts_open) > 0).all():
        raise ValueError("ts_open does not increase")
    next_contract = arrays.contract[1:] != arrays.contract[:-1]
    if not (arrays.flat[:-1][next_contract] == LAST_OF_CONTRACT).all():
        raise ValueError("a contract ends on a bar that is not flagged")
    next_session = arrays.session_date[1:] != arrays.session_date[:-1]
    if not (arrays.flat[:-1][next_session] != NOT_FLAT).all():
        raise ValueError("a session ends on a bar that is not flagged")


def make_arrays(
    *,
    ts_open: NDArray[np.int64],
    open_ticks: NDArray[np.int32],
    high_ticks: NDArray[np.int32],
    low_ticks: NDArray[np.int32],
    close_ticks: NDArray[np.int32],
    volume: NDArray[np.int64],
    session_date: NDArray[np.int32],
    contract: NDArray[np.int16],
    contracts: Sequence[str],
    tick_nanos: int,
    ends_session: bool,
    step_ticks: Mapping[int, int] | None = None,
) -> BarArrays:
    """Arrays from prices that are ticks already: flags and signal prices are derived.

    ``ends_session``: whether the last bar of all is its session's last by the calendar. ``step_ticks``: price step of
    a roll by the row of the new contract's first bar, where it is known better than from the bars beside the roll.
    """
    next_session = np.append(session_date[1:] != session_date[:-1], ends_session)[: len(ts_open)]
    next_contract = np.append(contract[1:] != contract[:-1], False)[: len(ts_open)]
    flat = np.where(next_contract, LAST_OF_CONTRACT, np.where(next_session, LAST_OF_SESSION, NOT_FLAT))
    offset = _roll_offset(open_ticks, close_ticks, next_contract, step_ticks or {})
    return BarArrays(
        ts_open=ts_open,
        open=open_ticks,
        high=high_ticks,
        low=low_ticks,
        close=close_ticks,
        signal_open=open_ticks - offset,
        signal_high=high_ticks - offset,
        signal_low=low_ticks - offset,
        signal_close=close_ticks - offset,
        volume=volume,
        session_date=session_date,
        flat=flat.astype(np.uint8),
        contract=contract,
        contracts=tuple(contracts),
        tick_nanos=tick_nanos,
    )


def _roll_offset(
    open_ticks: NDArray[np.int32],
    close_ticks: NDArray[np.int32],
    last_of_contract: NDArray[np.bool_],
    known: Mapping[int, int],
) -> NDArray[np.int32]:
    """Sum of the roll steps up to each bar: the known step, or first open of the new contract minus last close.

    Summed from the front, so that a roll in the future changes no price of the past. Where no step is known, it
    contains the market's own move between the two bars: they were not seen at the same instant.
    """
    step = np.zeros(len(open_ticks), dtype=np.int64)
    rolls = np.flatnonzero(last_of_contract) + 1
    step[rolls] = open_ticks[rolls].astype(np.int64) - close_ticks[rolls - 1]
    for row in rolls.tolist():
        step[row] = known.get(row, step[row])
    return np.cumsum(step).astype(np.int32)


def build_arrays(
    bars: Bars, spec: InstrumentSpec, sessions: Sessions, steps: Sequence[RollStep] | None = None
) -> BarArrays:
    """``bars`` in ticks of ``spec`` with ``sessions`` that cover them.

    ``steps``: roll steps of the series, where both contracts were seen at the same time; a roll that has none is
    taken from the bars beside it. Raises :class:`Refused` with every violation found: FIELD_MISSING, VALUE_NOT_FINITE,
    OFF_TICK_GRID (a roll step too), PRICE_SCALE, OHLC_ORDER, DUPLICATE_KEY (also for several contracts at one time),
    OUTSIDE_SESSION.
    """
    bars = bars.ordered()
    reasons = _violations(bars, spec)
    session = sessions.session_of(bars.ts_open)
    outside = session < 0
    if outside.any():
        reasons.append(_refusal(ReasonCode.OUTSIDE_SESSION, "lie outside of every session", outside, bars.ts_open))
    if reasons:
        raise Refused(*reasons)
    step_ticks = _step_ticks(bars, spec, steps or ())
    ticks = {
        name: (getattr(bars, name) // spec.tick_nanos).astype(np.int32) for name in ("open", "high", "low", "close")
    }
    return make_arrays(
        ts_open=bars.ts_open.copy(),
        open_ticks=ticks["open"],
        high_ticks=ticks["high"],
        low_ticks=ticks["low"],
        close_ticks=ticks["close"],
        volume=bars.volume.copy(),
        session_date=sessions.session_date[session].astype(np.int32) if len(bars) else np.empty(0, np.int32),
        contract=bars.contract.astype(np.int16),
        contracts=bars.contracts,
        tick_nanos=spec.tick_nanos,
        ends_session=_ends_session(bars.ts_open, session, sessions),
        step_ticks=step_ticks,
    )


def _step_ticks(bars: Bars, spec: InstrumentSpec, steps: Sequence[RollStep]) -> dict[int, int]:
    """Known steps in ticks, by the row of the new contract's first bar."""
    from blaid_pipelines.market.rolls import rolls_of

    found: dict[int, int] = {}
    for roll in rolls_of(bars, steps):
        if roll.basis != "same_time" or roll.step_nanos is None:
            continue
        ticks, rest = divmod(roll.step_nanos, spec.tick_nanos)
        # a quarter of int32, as for prices
        if rest or abs(ticks) > np.iinfo(np.int32).max // 4:
            raise Refused(
                Reason(
                    ReasonCode.OFF_TICK_GRID,
                    f"the step of the roll from {roll.from_contract} to {roll.to_contract} is no count of ticks",
                    "Ingest or pull the series again: its roll steps were not made from these bars.",
                    roll.as_json(),
                )
            )
        found[int(np.searchsorted(bars.ts_open, roll.ts_ns))] = ticks
    return found


def _ends_session(ts_open: NDArray[np.int64], session: NDArray[np.int32], sessions: Sessions) -> bool:
    """Whether no further bar fits into the last bar's session; a bar lasts as long as the shortest distance of two."""
    if len(ts_open) < 2:
        return False
    bar_ns = int(np.diff(ts_open).min())
    return bool(ts_open[-1] + bar_ns >= sessions.close_ns[session[-1]])


def _violations(bars: Bars, spec: InstrumentSpec) -> list[Reason]:
    from blaid_pipelines.market.bars import MISSING, MISSING_VOLUME, NOT_FINITE

    prices = np.stack([bars.open, bars.high, bars.low, bars.close])
    missing = (prices == MISSING).any(axis=0) | (bars.volume == MISSING_VOLUME)
    not_finite = (prices == NOT_FINITE).any(axis=0)
    usable = ~missing & ~not_finite
    ticks = prices // spec.tick_nanos
    off_grid = usable & (prices % spec.tick_nanos != 0).any(axis=0)
    # a quarter of int32: entry, stop, target and roll offsets are added to prices
    too_large = usable & (np.abs(ticks) > np.iinfo(np.int32).max // 4).any(axis=0)
    disorder = usable & (
        (bars.low > np.minimum(bars.open, bars.close)) | (bars.high < np.maximum(bars.open, bars.close))
    )
    same_time = np.zeros(len(bars), dtype=np.bool_)
    same_time[1:] = np.diff(bars.ts_open) <= 0
    found = [
        (ReasonCode.FIELD_MISSING, "lack a price or a volume", missing),
        (ReasonCode.VALUE_NOT_FINITE, "hold a price that is no number", not_finite),
        (ReasonCode.OFF_TICK_GRID, f"hold a price off the tick grid of {spec.tick_size}", off_grid),
        (ReasonCode.PRICE_SCALE, "hold a price too large to count in ticks", too_large),
        (ReasonCode.OHLC_ORDER, "have an open or close outside of low to high", disorder),
        (ReasonCode.DUPLICATE_KEY, "share their time with another bar (a backtest reads one contract)", same_time),
    ]
    return [_refusal(code, what, where, bars.ts_open) for code, what, where in found if where.any()]


def _refusal(code: ReasonCode, what: str, where: NDArray[np.bool_], ts_open: NDArray[np.int64]) -> Reason:
    count = int(where.sum())
    return Reason(
        code,
        f"{count} of {len(where)} bars {what}; they cannot be backtested.",
        "Find the cause in the source, correct it there and pull or ingest the range again.",
        {"bars": count, "of": len(where), "first_ts_open_ns": int(ts_open[int(np.argmax(where))])},
    )
