"""Trading sessions from the exchange calendar: when a market is open, which session a bar belongs to, what is expected.

Hours come from ``pandas_market_calendars``, which knows today's regular hours and the holidays by rule; what was
different once is in :mod:`~blaid_pipelines.market.hours`, with the date from which a calendar's hours are established.
A session is the stretch between two daily
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
from blaid_pipelines.market.hours import HOURS, REGULAR_CLOSE, Hours
from blaid_pipelines.reasons import Reason, ReasonCode, Refused, StopAndFix

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

CHICAGO = ZoneInfo("America/Chicago")
_EVENING = time(17, 0)


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

    Raises :class:`StopAndFix` for an unknown calendar (INSTRUMENT_MISMATCH), a range outside 2000 to 2199, or a
    calendar without history (HOURS_UNKNOWN), and :class:`Refused` (HOURS_UNKNOWN) where the range begins before its
    hours are established.
    """
    if not start_ns < end_ns:
        nothing = np.empty(0, np.int64)
        return Sessions(
            calendar, nothing, nothing, nothing.astype(np.int32), nothing, nothing, nothing.astype(np.int32)
        )
    # Enough days ahead that the first session knows whether the day before it had a full one.
    first = datetime.fromtimestamp(start_ns // 1_000_000_000, UTC).date() - timedelta(days=3)
    last = datetime.fromtimestamp(-(-end_ns // 1_000_000_000), UTC).date() + timedelta(days=2)
    everything = _schedule(calendar, first, last)
    keep = (everything.close_ns > start_ns) & (everything.open_ns < end_ns)
    if keep.any():
        dated = int(everything.session_date[keep][0])
        _require_established(calendar, date(dated // 10_000, dated // 100 % 100, dated % 100))
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
    hours, table = _calendar(calendar, first, last)
    # A session that the calendar does not have at all is an exception with a close.
    for day, close in hours.exceptions.items():
        if first <= day <= last and day not in table and close is not None:
            table[day] = (_chicago_ns(day - timedelta(days=1), _EVENING), _chicago_ns(day, close))
    opens: list[int] = []
    closes: list[int] = []
    dates: list[int] = []
    segments: list[tuple[int, int, int]] = []
    full_day: date | None = None  # the last day that had a session with the regular close
    for day in sorted(table):
        open_ns, close_ns = table[day]
        regular = day not in hours.exceptions and close_ns == _chicago_ns(day, REGULAR_CLOSE)
        if not regular and day in hours.exceptions:
            close = hours.exceptions[day]
            if close is None:
                continue
            close_ns = _chicago_ns(day, close)
        halts: list[tuple[int, int]] = []
        regime = hours.regime(day)
        eve = day - timedelta(days=1)
        if regime is not None and regime.evening_open is not None and full_day == eve:
            open_ns = _chicago_ns(eve, regime.evening_open)
            halts += [(_chicago_ns(eve, start), _chicago_ns(eve, end)) for start, end in regime.evening_halts]
        if regime is not None and regular:
            close_ns = _chicago_ns(day, regime.close)
            halts += [(_chicago_ns(day, start), _chicago_ns(day, end)) for start, end in regime.halts]
        if regular:
            full_day = day
        cursor = open_ns
        for halt_start, halt_end in halts:
            segments.append((cursor, halt_start, len(dates)))
            cursor = halt_end
        segments.append((cursor, close_ns, len(dates)))
        opens.append(open_ns)
        closes.append(close_ns)
        dates.append(day.year * 10_000 + day.month * 100 + day.day)
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


def _calendar(calendar: str, first: date, last: date) -> tuple[Hours, dict[date, tuple[int, int]]]:
    """The history of the calendar's hours, and (open, close) of every session as the library has them."""
    import pandas_market_calendars

    try:
        library = pandas_market_calendars.get_calendar(calendar)
        schedule = library.schedule(first, last)
    except (RuntimeError, KeyError, ValueError) as error:
        raise StopAndFix(
            Reason(
                ReasonCode.INSTRUMENT_MISMATCH,
                f"no exchange calendar {calendar!r} from {first} to {last}: {error}",
                "Correct the instrument's session column: it names a calendar of pandas_market_calendars.",
                {"calendar": calendar, "first": first.isoformat(), "last": last.isoformat()},
            )
        ) from error
    hours = HOURS.get(library.name)
    if hours is None:
        raise StopAndFix(
            Reason(
                ReasonCode.HOURS_UNKNOWN,
                f"nobody has established since when the hours of {calendar} hold",
                "Add the calendar to market/hours.py: the first session date its hours are known from, and the source.",
                {"calendar": calendar, "known": sorted(HOURS)},
            )
        )
    rows = zip(schedule.index, schedule.market_open, schedule.market_close, strict=True)
    return hours, {label.date(): (opens.value, closes.value) for label, opens, closes in rows}


def _require_established(calendar: str, first_session: date) -> None:
    import pandas_market_calendars

    hours = HOURS[pandas_market_calendars.get_calendar(calendar).name]
    if first_session >= hours.established:
        return
    raise Refused(
        Reason(
            ReasonCode.HOURS_UNKNOWN,
            f"the hours of {calendar} are established from {hours.established} on; this range begins with the session "
            f"of {first_session}",
            f"Begin the range with the session of {hours.established} or later, or add the earlier hours with their "
            "source to market/hours.py.",
            {
                "calendar": calendar,
                "first_session": first_session.isoformat(),
                "established": hours.established.isoformat(),
                "source": hours.source,
            },
        )
    )


def _chicago_ns(day: date, wall: time) -> int:
    return int(datetime.combine(day, wall, CHICAGO).timestamp()) * 1_000_000_000
