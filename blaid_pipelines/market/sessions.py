"""Trading sessions from the exchange calendar: when a market is open, which session a bar belongs to, what is expected.

Hours come from ``pandas_market_calendars``, which knows today's regular hours and the holidays of all years; hours
that were different once are dated overrides here, each with its source. A session is the stretch between two daily
breaks; it carries the date the calendar gives it (the evening belongs to the next day). CME books the Thanksgiving
session under Friday's trade date, the calendar shows it as its own row: session dates are not clearing dates.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from blaid_pipelines.market.bars import MINUTE_NS
from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

CHICAGO = ZoneInfo("America/Chicago")


@dataclass(frozen=True, slots=True)
class HoursOverride:
    """Regular hours that held once: sessions of ``calendar`` dated ``first`` to ``last``, Chicago wall-clock times.

    It touches only days on which the calendar has its regular close: holidays and early closes stay as they are.
    """

    calendar: str
    first: date
    last: date
    regular_close: time  # what the calendar says
    close: time  # what it was
    halts: tuple[tuple[time, time], ...]
    source: str


_EQUITY = "CME Globex Equity"
_HALT = ((time(15, 15), time(15, 30)),)

OVERRIDES: tuple[HoursOverride, ...] = (
    HoursOverride(
        _EQUITY,
        date(2012, 11, 19),
        date(2015, 9, 18),
        time(16, 0),
        time(16, 15),
        _HALT,
        "CME equity index futures halted 15:15-15:30 CT and closed at 16:15 CT until the week of 2015-09-21; "
        "seen in ES trades of October to December 2013",
    ),
    HoursOverride(
        _EQUITY,
        date(2015, 9, 21),
        date(2021, 6, 25),
        time(16, 0),
        time(16, 0),
        _HALT,
        "CME equity index futures halted 15:15-15:30 CT until 2021-06-28; seen in ES trades of 2020-01-06",
    ),
)


@dataclass(frozen=True, eq=False)
class Sessions:
    """Sessions that touch a range, in order. ``open_ns`` and ``close_ns`` bound a session ``[open, close)``.

    ``segment_*`` are the stretches of open market inside sessions: a session with a halt has several.
    ``segment_session`` is the session's index. All times int64 nanoseconds UTC; dates yyyymmdd.
    """

    calendar: str
    open_ns: Int64
    close_ns: Int64
    session_date: Int32
    segment_open_ns: Int64
    segment_close_ns: Int64
    segment_session: Int32

    def __len__(self) -> int:
        return len(self.open_ns)

    def session_of(self, ts_open: Int64) -> Int32:
        """Index of the session each time falls into, -1 outside of all. Halts count as inside."""
        index = np.searchsorted(self.open_ns, ts_open, side="right") - 1
        inside = (index >= 0) & (ts_open < self.close_ns[np.maximum(index, 0)]) if len(self) else index >= 0
        return np.where(inside, index, -1).astype(np.int32)

    def is_open(self, ts_open: Int64, duration_ns: int = MINUTE_NS) -> npt.NDArray[np.bool_]:
        """True where ``[ts, ts + duration)`` shares time with open market, halts and breaks excluded."""
        # The first segment that ends after the slot's start is the only one that can begin before its end.
        index = np.searchsorted(self.segment_close_ns, ts_open, side="right")
        known = index < len(self.segment_open_ns)
        opens = self.segment_open_ns[np.minimum(index, len(self.segment_open_ns) - 1)] if len(self) else ts_open
        return np.asarray(known & (opens < ts_open + duration_ns), dtype=np.bool_)

    def last_bar_flags(self, ts_open: Int64) -> npt.NDArray[np.bool_]:
        """True for the last of the given bars in each session. Bars outside of all sessions are never flagged."""
        index = self.session_of(ts_open)
        flags = np.empty(len(index), np.bool_)
        if len(index):
            flags[:-1] = index[1:] != index[:-1]
            flags[-1] = True
        return flags & (index >= 0)

    def expected_slots(self, start_ns: int, end_ns: int, duration_ns: int) -> tuple[Int64, Int32, Int64]:
        """Bar slots of ``duration_ns``, aligned to the epoch, wholly inside ``[start, end)``, with open market in them.

        Returns their open times, the session each belongs to (its first), and the open market time in each (ns).
        """
        opens: list[Int64] = []
        session: list[Int32] = []
        market: list[Int64] = []
        for left, right, index in zip(self.segment_open_ns, self.segment_close_ns, self.segment_session, strict=True):
            left, right = max(int(left), start_ns), min(int(right), end_ns)
            if left >= right:
                continue
            slots = np.arange(left // duration_ns * duration_ns, right, duration_ns, dtype=np.int64)
            opens.append(slots)
            session.append(np.full(len(slots), index, np.int32))
            market.append(np.minimum(slots + duration_ns, right) - np.maximum(slots, left))
        if not opens:
            return np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64)
        slots, first, inverse = np.unique(np.concatenate(opens), return_index=True, return_inverse=True)
        time_in = np.bincount(inverse, weights=np.concatenate(market)).astype(np.int64)
        whole = (slots >= start_ns) & (slots + duration_ns <= end_ns)
        return slots[whole], np.concatenate(session)[first][whole], time_in[whole]


def load_sessions(calendar: str, start_ns: int, end_ns: int) -> Sessions:
    """Sessions of ``calendar`` (a ``pandas_market_calendars`` name) that share time with ``[start_ns, end_ns)``.

    Raises :class:`StopAndFix` for an unknown calendar or a range outside 2000 to 2199.
    """
    if not start_ns < end_ns:
        nothing = np.empty(0, np.int64)
        return Sessions(
            calendar, nothing, nothing, nothing.astype(np.int32), nothing, nothing, nothing.astype(np.int32)
        )
    first = datetime.fromtimestamp(start_ns // 1_000_000_000, UTC).date() - timedelta(days=2)
    last = datetime.fromtimestamp(-(-end_ns // 1_000_000_000), UTC).date() + timedelta(days=2)
    everything = _schedule(calendar, first, last)
    keep = (everything.close_ns > start_ns) & (everything.open_ns < end_ns)
    position = np.cumsum(keep) - 1
    segments = keep[everything.segment_session]
    return Sessions(
        calendar,
        everything.open_ns[keep],
        everything.close_ns[keep],
        everything.session_date[keep],
        everything.segment_open_ns[segments],
        everything.segment_close_ns[segments],
        position[everything.segment_session[segments]].astype(np.int32),
    )


@lru_cache(maxsize=64)
def _schedule(calendar: str, first: date, last: date) -> Sessions:
    import pandas_market_calendars

    try:
        schedule = pandas_market_calendars.get_calendar(calendar).schedule(first, last)
    except (RuntimeError, KeyError, ValueError) as error:
        raise StopAndFix(
            Reason(
                ReasonCode.INSTRUMENT_MISMATCH,
                f"no exchange calendar {calendar!r} from {first} to {last}: {error}",
                "Correct the instrument's session column: it names a calendar of pandas_market_calendars.",
                {"calendar": calendar, "first": first.isoformat(), "last": last.isoformat()},
            )
        ) from error
    opens, closes, dates = [], [], []
    segments: list[tuple[int, int, int]] = []
    for index, (label, row) in enumerate(schedule.iterrows()):
        day = label.date()
        open_ns, close_ns = row.market_open.value, row.market_close.value
        halts: list[tuple[int, int]] = []
        rule = _override(calendar, day)
        if rule is not None and close_ns == _chicago_ns(day, rule.regular_close):
            close_ns = _chicago_ns(day, rule.close)
            halts = [(_chicago_ns(day, start), _chicago_ns(day, end)) for start, end in rule.halts]
        opens.append(open_ns)
        closes.append(close_ns)
        dates.append(day.year * 10_000 + day.month * 100 + day.day)
        cursor = open_ns
        for halt_start, halt_end in halts:
            segments.append((cursor, halt_start, index))
            cursor = halt_end
        segments.append((cursor, close_ns, index))
    left, right, owner = zip(*segments, strict=True) if segments else ((), (), ())
    return Sessions(
        calendar,
        np.array(opens, np.int64),
        np.array(closes, np.int64),
        np.array(dates, np.int32),
        np.array(left, np.int64),
        np.array(right, np.int64),
        np.array(owner, np.int32),
    )


def _override(calendar: str, day: date) -> HoursOverride | None:
    for rule in OVERRIDES:
        if rule.calendar == calendar and rule.first <= day <= rule.last:
            return rule
    return None


def _chicago_ns(day: date, wall: time) -> int:
    return int(datetime.combine(day, wall, CHICAGO).timestamp()) * 1_000_000_000
