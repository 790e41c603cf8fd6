"""What a check found, in numbers and in a sentence: the worst value, its place, what is allowed, the first offenders.

Passing checks explain themselves too: how far from its limit a series is says more than that it passed. Nothing is
decided here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from blaid_pipelines.market.bars import Bars, from_ns, price
from blaid_pipelines.market.gate.measures import Measures
from blaid_pipelines.market.gate.suite import FAIL, UNKNOWN, Check, Outcome
from blaid_pipelines.market.gate.thresholds import QualityThresholds
from blaid_pipelines.market.instruments import InstrumentSpec

_EXAMPLES = 3


def numbers_of(
    check: Check, outcome: Outcome, measures: Measures, thresholds: QualityThresholds, spec: InstrumentSpec
) -> dict[str, Any]:
    """The numbers of one check, JSON-ready: ``summary`` first, ``worst`` and ``worst_at`` where it measures one, the
    threshold by its policy name; for a check that failed the first offenders (``first_at``, ``sessions``, ``bars``)."""
    numbers: dict[str, Any] = {"symbol": spec.symbol, **outcome.observed}
    if check.threshold is not None:
        numbers[check.threshold] = getattr(thresholds, check.threshold)
    if check.name == "tick_grid":
        numbers["tick_size"] = str(spec.tick_size)
    if check.name == "price_scale":
        numbers["plausible_range"] = [str(spec.price_low), str(spec.price_high)]
    numbers.update(_worst(check, measures))
    numbers.update(measures.facts.get(check.name, {}))
    if outcome.status == FAIL:
        numbers.update(_examples(check, measures, thresholds))
    return {"summary": _summary(check, outcome, numbers), **numbers}


def _worst(check: Check, measures: Measures) -> dict[str, Any]:
    """The largest value of a measured column that is a number, and its place; values not known are left out."""
    frame = measures.frames[check.frame]
    column = frame.get(check.column or "")
    if column is None or column.dtype == np.bool_ or not len(column):
        return {}
    known = np.flatnonzero(np.isfinite(column))
    if not len(known):
        return {}
    row = int(known[np.argmax(column[known])])
    found: dict[str, Any] = {"worst": round(float(column[row]), 6)}
    # A place is worth telling where one value stands out.
    if check.frame != "series" and column[row] > column[known].min():
        found["worst_at"] = _place(check.frame, frame, row)
    return found


def _place(frame_name: str, frame: dict[str, npt.NDArray[Any]], row: int) -> str:
    if frame_name == "sessions":
        return f"session {int(frame['session_date'][row])}"
    return from_ns(int(frame["ts_open"][row])).isoformat()


def _examples(check: Check, measures: Measures, thresholds: QualityThresholds) -> dict[str, Any]:
    """The first few offenders, by time or session, so that a person can look."""
    frame = measures.frames[check.frame]
    if check.name in {"duplicate_keys", "one_contract"}:
        return _shared_times(check, frame, measures.bars)
    if check.column is None or check.frame == "series":
        return {}
    if frame[check.column].dtype == np.bool_:
        rows = np.flatnonzero(frame[check.column] == (check.column == "copied"))
    else:
        limit = 0.0 if check.threshold is None else getattr(thresholds, check.threshold)
        rows = np.flatnonzero(frame[check.column] > limit)
    places = [_place(check.frame, frame, int(row)) for row in rows[:_EXAMPLES]]
    if check.frame == "sessions":
        return {"sessions": [int(frame["session_date"][row]) for row in rows[:_EXAMPLES]]}
    return {"first_at": places}


def _shared_times(check: Check, frame: dict[str, npt.NDArray[Any]], bars: Bars | None) -> dict[str, Any]:
    """The first times that several bars share, and those bars with their contracts and prices."""
    same = np.diff(frame["ts_open"]) == 0
    if check.name == "duplicate_keys":
        same &= np.diff(frame["contract"]) == 0
    times = frame["ts_open"][np.flatnonzero(same) + 1]
    first = list(dict.fromkeys(times[: 4 * _EXAMPLES].tolist()))[:_EXAMPLES]
    found: dict[str, Any] = {"first_at": [from_ns(stamp).isoformat() for stamp in first]}
    if bars is not None:
        rows = np.flatnonzero(np.isin(bars.ts_open, first))[: 3 * _EXAMPLES]
        found["bars"] = [_bar(bars, int(row)) for row in rows]
    return found


def _bar(bars: Bars, row: int) -> str:
    values = (price(int(column[row])) for column in (bars.open, bars.high, bars.low, bars.close))
    shown = " ".join("none" if value is None else f"{value.normalize():f}" for value in values)
    at = from_ns(int(bars.ts_open[row])).isoformat()
    return f"{at} {bars.contracts[bars.contract[row]]} {shown} volume {int(bars.volume[row])}"


def _summary(check: Check, outcome: Outcome, numbers: dict[str, Any]) -> str:
    """One sentence for people: what was found, where, and what is allowed."""
    if outcome.status == UNKNOWN:
        return f"could not be decided: {outcome.problem}"
    limit = numbers.get(check.threshold) if check.threshold is not None else None
    if check.name == "bar_count":
        return f"{numbers.get('observed_value')} bars, at least {limit} wanted"
    if "worst" in numbers:
        where = f" at {numbers['worst_at']}" if "worst_at" in numbers else ""
        unit = f" {check.unit}" if check.unit else ""
        return f"worst {numbers['worst']:g}{unit}{where}, {0 if limit is None else limit:g} allowed"
    total, found = numbers.get("element_count"), numbers.get("unexpected_count")
    if limit is None:
        return f"{found} of {total} bars, none allowed"
    share = numbers.get("unexpected_percent") or 0.0
    return f"{found} of {total} bars ({share:.3g} %), {limit:g} % allowed"
