"""What the contracts behind the bars must obey: one at a time, in their order, rolls in proportion, none after expiry.

Which contract a series should hold on a day is decided elsewhere (``market.rolls``); here it is only checked that what
came is a chain of contracts at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from blaid_pipelines.market.bars import DAY_NS, MINUTE_NS, Bars, from_ns
from blaid_pipelines.market.expiry import contract_month, expiry_ns
from blaid_pipelines.market.gate.chain import Bools, Floats, Int64, price_base
from blaid_pipelines.market.instruments import InstrumentSpec
from blaid_pipelines.reasons import InvalidRequest

MONTH_NS = 28 * DAY_NS
"""Within a stretch of this length a contract's name means one contract."""
_SAME_CONTRACT = timedelta(days=400)
_SHOWN = 5


def contract_facts(bars: Bars, spec: InstrumentSpec, expiries: Mapping[str, int]) -> tuple[Floats, Int64]:
    """Per bar: minutes between the contract's last trade time and the bar's open, and the contract's month (year * 12
    + month).

    Negative minutes are before expiry; NaN, and -1 for the month, where the contract or its expiry is not known. An
    expiry in ``expiries`` (nanoseconds UTC by raw symbol, from the provider's definitions) beats the product's rule.
    """
    minutes, month = np.full(len(bars), np.nan), np.full(len(bars), -1, np.int64)
    if not len(bars):
        return minutes, month
    stretch = bars.ts_open // MONTH_NS
    key = bars.contract.astype(np.int64) * (int(stretch.max() - stretch.min()) + 1) + stretch - int(stretch.min())
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    known = [_contract(bars, int(row), spec, expiries) for row in first]
    ends = np.array([np.nan if end is None else float(end // MINUTE_NS) for end, _ in known])
    months = np.array([month for _, month in known], np.int64)
    return bars.ts_open / MINUTE_NS - ends[inverse], months[inverse]


def _contract(bars: Bars, row: int, spec: InstrumentSpec, expiries: Mapping[str, int]) -> tuple[int | None, int]:
    name, near = bars.contracts[bars.contract[row]], from_ns(int(bars.ts_open[row])).date()
    try:
        year, month = contract_month(name, near)
    except InvalidRequest:
        return None, -1
    number = year * 12 + month
    given = expiries.get(name)
    # One-digit years: a definition of the same name from another decade is about another contract.
    if given is not None and abs(from_ns(given).date().replace(day=1) - near) < _SAME_CONTRACT:
        return given, number
    try:
        return expiry_ns(spec.symbol, name, near), number
    except InvalidRequest:
        return None, number


def alone(bars: Bars) -> Bools:
    """True for bars that share their time with no bar of another contract."""
    shared = np.zeros(len(bars), np.bool_)
    if len(bars) > 1:
        twice = (np.diff(bars.ts_open) == 0) & (np.diff(bars.contract) != 0)
        shared[1:] |= twice
        shared[:-1] |= twice
    return ~shared


def rolls(bars: Bars, single: Bools, month: Int64, spec: InstrumentSpec) -> tuple[float, float, dict[str, Any]]:
    """How many rolls lead to an earlier contract, the largest roll step in per cent of the price, and the rolls.

    A roll is where one bar is of another contract than the bar before; bars that share their time with another
    contract's (``single`` false) or have no sound prices are left out by the caller. The step is the first open of the
    new contract against the last close of the old one. NaN for the count where a contract's month is not known.
    """
    rows = np.flatnonzero(single)
    at = rows[np.flatnonzero(np.diff(bars.contract[rows]) != 0) + 1]
    before = rows[np.searchsorted(rows, at) - 1]
    if not len(at):
        return 0.0, 0.0, {"rolls": 0}
    known = (month[at] >= 0) & (month[before] >= 0)
    backward = (month[at] < month[before]) & known
    step = (bars.open[at] - bars.close[before]).astype(np.float64)
    pct = 100.0 * np.abs(step) / price_base(bars.close[before].astype(np.float64), spec)
    worst = np.argsort(-pct, kind="stable")[:_SHOWN]
    facts: dict[str, Any] = {
        "rolls": len(at),
        "rolls_forward": int((known & ~backward).sum()),
        "largest_rolls": [_roll(bars, int(before[each]), int(at[each]), float(pct[each])) for each in worst],
    }
    if backward.any():
        facts["backward_rolls"] = [
            _roll(bars, int(before[each]), int(at[each]), float(pct[each]))
            for each in np.flatnonzero(backward)[:_SHOWN]
        ]
    return float(backward.sum()) if known.all() else float("nan"), float(pct.max()), facts


def _roll(bars: Bars, before: int, after: int, pct: float) -> str:
    names = [bars.contracts[bars.contract[row]] for row in (before, after)]
    step = (int(bars.open[after]) - int(bars.close[before])) / 1e9
    at = from_ns(int(bars.ts_open[after])).isoformat()
    return f"{at} {names[0]} to {names[1]}: {step:+.9g} ({pct:.3g} %)"


def dates_of(stamps: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """UTC dates as yyyymmdd."""
    days = stamps.astype("datetime64[ns]").astype("datetime64[D]")
    year = days.astype("datetime64[Y]").astype(np.int64) + 1970
    month = days.astype("datetime64[M]").astype(np.int64) % 12 + 1
    day = (days - days.astype("datetime64[M]")).astype(np.int64) + 1
    return np.asarray(year * 10_000 + month * 100 + day, np.int32)
