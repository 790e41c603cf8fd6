"""The clock of strategy families: Chicago wall-clock time, daylight saving included.

Times are int64 nanoseconds UTC, ascending; a time of day is a whole minute after midnight in Chicago (510 is 08:30).
No prices and no parameters here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.families.base import DAY_NS, MINUTE_NS

DAY_MINUTES = 1440

CHICAGO = ZoneInfo("America/Chicago")


def minute_of_day(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Minutes after midnight, 0 to 1439, that clocks in Chicago show at each of ``times``."""
    return (times + _offset_ns(times)) // MINUTE_NS % DAY_MINUTES


def next_time(after: NDArray[np.int64], minute: int) -> NDArray[np.int64]:
    """For each of ``after`` the first time later than it at which clocks in Chicago show ``minute``."""
    offset = _offset_ns(after)
    local = after + offset
    wall = local // DAY_NS * DAY_NS + minute * MINUTE_NS
    wall = np.where(wall <= local, wall + DAY_NS, wall)
    # the offset may change between the two; that of the guess is the right one outside of the changed hour itself
    return wall - _offset_ns(wall - offset)


def weekday(session_date: NDArray[np.int32]) -> NDArray[np.int64]:
    """Day of the week of yyyymmdd dates, Monday 0 to Sunday 6."""
    date = session_date.astype(np.int64)
    months = (date // 10_000 - 1970) * 12 + date // 100 % 100 - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + date % 100 - 1
    return (days + 3) % 7  # 1970-01-01 was a Thursday


def _offset_ns(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Chicago minus UTC at each of ``times``, which ascend."""
    if not len(times):
        return np.zeros(0, dtype=np.int64)
    years = range(_year(int(times[0])), _year(int(times[-1])) + 1)
    changes = [change for year in years for change in _changes(year)]
    instants = np.array([instant for instant, _ in changes], dtype=np.int64)
    offsets = np.array([offset for _, offset in changes], dtype=np.int64)
    # few changes, many times: find the changes among the times, not the other way round
    edges = np.append(np.searchsorted(times, instants), len(times))
    return np.repeat(offsets, np.diff(edges))


def _year(time_ns: int) -> int:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).year


@lru_cache(maxsize=256)
def _changes(year: int) -> tuple[tuple[int, int], ...]:
    """(UTC time, offset from it on) in ns: the beginning of the UTC year and each change of Chicago's clocks in it."""
    day, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    found = [(day, _offset(day))]
    while day < end:
        tomorrow = day + timedelta(days=1)
        if _offset(tomorrow) != found[-1][1]:
            # clocks change on the hour
            hours = (day + timedelta(hours=each) for each in range(1, 25))
            found.append(next((hour, _offset(hour)) for hour in hours if _offset(hour) != found[-1][1]))
        day = tomorrow
    return tuple((int(at.timestamp()) * 1_000_000_000, offset) for at, offset in found)


def _offset(moment: datetime) -> int:
    offset = moment.astimezone(CHICAGO).utcoffset()
    assert offset is not None
    return int(offset.total_seconds()) * 1_000_000_000
