"""Where bars stand in their sessions, and states that begin and end inside one. No clock and no prices here.

A session is a run of bars with one ``session_date``. "Latest" and "held" look backwards only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.families.base import DAY_NS, Parameter, Params
from blaid_pipelines.reasons import Reason, ReasonCode

Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]
_T = TypeVar("_T", bound=np.generic)

EACH_SESSION = Parameter(
    "int",
    1,
    0,
    1,
    1,
    "1: every session begins anew, as positions end with theirs; 0: a signal runs on into the next (bars of a day: 0).",
)
"""The parameter ``each_session`` of families that know sessions but no clock."""


@dataclass(frozen=True, eq=False)
class SessionIndex:
    """``starts`` (k,): the first bar of each session. ``first`` (n,): the first bar of each bar's session."""

    starts: Int64
    first: Int64

    def spread(self, per_session: NDArray[_T]) -> NDArray[_T]:
        """Values of k sessions as values of their n bars."""
        lengths = np.diff(np.append(self.starts, len(self.first)))
        return np.repeat(per_session, lengths)


def session_index(session_date: NDArray[np.int32]) -> SessionIndex:
    """The sessions of n bars in time order."""
    begins = np.ones(len(session_date), dtype=np.bool_)
    begins[1:] = session_date[1:] != session_date[:-1]
    starts = np.flatnonzero(begins).astype(np.int64)
    return SessionIndex(starts, np.repeat(starts, np.diff(np.append(starts, len(session_date)))))


def latest(mask: Bools) -> Int64:
    """Index of the last True at or before each bar; -1 where there is none."""
    return np.maximum.accumulate(np.where(mask, np.arange(len(mask), dtype=np.int64), -1))


def held(opens: Bools, closes: Bools, since: Int64) -> Bools:
    """True from a bar in ``opens`` until one in ``closes``; openings before bar ``since[i]`` are forgotten."""
    opened = latest(opens)
    return (opened > latest(closes)) & (opened >= since)


def begun_anew(side: NDArray[np.int8], index: SessionIndex) -> NDArray[np.int8]:
    """Flat on a session's first bar where the side is that of the bar before, which belongs to another session.

    A position ends with its session, and only a change of side opens one: without the flat bar a side that stays the
    same would never trade again.
    """
    again = index.starts[1:]
    again = again[side[again] == side[again - 1]]
    result = side.copy()
    result[again] = 0
    return result


def no_session_inside(family: str, params: Params, bar_ns: int) -> list[Reason]:
    """Bars of a day hold a session each: with ``each_session`` nothing could ever be traded on them."""
    if not params["each_session"] or bar_ns < DAY_NS:
        return []
    return [
        Reason(
            ReasonCode.BARS_UNSUITED,
            f"{family}: with each_session=1 a signal ends with its session, and each of these bars is a session.",
            "Use bars of a minute or an hour, or each_session=0.",
            {"strategy": family, "bar_ns": bar_ns, "parameter": "each_session", "value": params["each_session"]},
        )
    ]
