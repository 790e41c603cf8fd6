"""The helpers of the families against the plain way to say the same: time zones, windows, states, bar lengths."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blaid_pipelines.backtest.families import clock, extremes, within_session
from blaid_pipelines.backtest.families.base import DAY_NS, HOUR_NS, MINUTE_NS, bar_length_ns
from tests.backtest.family_markets import CHICAGO, arrays_of, chicago_ns, clock_market, ohlc_of

times = st.datetimes(datetime(1990, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - the bounds


def ns(moment: datetime) -> int:
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000


@settings(deadline=None)
@given(moments=st.lists(times, max_size=12))
def test_minute_of_day_is_what_clocks_in_chicago_show(moments: list[datetime]) -> None:
    stamps = np.array(sorted(map(ns, moments)), dtype=np.int64)
    shown = [datetime.fromtimestamp(each // 1_000_000_000, UTC).astimezone(CHICAGO) for each in stamps.tolist()]
    assert clock.minute_of_day(stamps).tolist() == [each.hour * 60 + each.minute for each in shown]


@pytest.mark.parametrize("day", [date(2024, 3, 10), date(2024, 11, 3), date(2006, 4, 2), date(2013, 3, 10)])
def test_minute_of_day_over_each_minute_of_a_change_of_clocks(day: date) -> None:
    stamps = chicago_ns(day, 0) + np.arange(26 * 60, dtype=np.int64) * MINUTE_NS
    shown = [datetime.fromtimestamp(each // 1_000_000_000, UTC).astimezone(CHICAGO) for each in stamps.tolist()]
    assert clock.minute_of_day(stamps).tolist() == [each.hour * 60 + each.minute for each in shown]


@settings(max_examples=100, deadline=None)
@given(
    moments=st.lists(times, min_size=1, max_size=6),
    minute=st.integers(0, 1439).filter(lambda minute: not 60 <= minute < 180),  # the hours that change
)
def test_next_time_is_the_first_one_later(moments: list[datetime], minute: int) -> None:
    after = np.array(sorted(map(ns, moments)), dtype=np.int64)
    found = clock.next_time(after, minute)
    assert (found > after).all()
    # a day of 25 hours
    assert (found - after <= 25 * HOUR_NS).all()
    assert set(clock.minute_of_day(found).tolist()) == {minute}
    assert not (found % MINUTE_NS).any()
    for start, end in zip(after.tolist(), found.tolist(), strict=True):
        between = np.arange((start // MINUTE_NS + 1) * MINUTE_NS, end, MINUTE_NS, dtype=np.int64)
        assert minute not in clock.minute_of_day(between)


@pytest.mark.parametrize("day", [date(2024, 3, 10), date(2024, 11, 3)])
@pytest.mark.parametrize("minute", [0, 45, 240, 510, 1020])
def test_next_time_over_a_change_of_clocks(day: date, minute: int) -> None:
    before = chicago_ns(day - timedelta(days=1), minute) + np.arange(0, 22, dtype=np.int64) * HOUR_NS
    assert set(clock.next_time(before, minute).tolist()) == {chicago_ns(day, minute)}
    assert clock.next_time(np.array([chicago_ns(day, minute)]), minute).tolist() == [
        chicago_ns(day + timedelta(days=1), minute)
    ]


def test_weekday_is_the_calendars() -> None:
    days = [date(1999, 12, 31) + timedelta(days=17 * each) for each in range(900)]
    numbers = np.array([int(f"{day:%Y%m%d}") for day in days], dtype=np.int32)
    assert clock.weekday(numbers).tolist() == [day.weekday() for day in days]


@given(
    values=st.lists(st.integers(-1_000, 1_000), max_size=60),
    window=st.integers(1, 40),
)
def test_highest_and_lowest_of_a_window(values: list[int], window: int) -> None:
    column = np.array(values, dtype=np.int32)
    trailing = [values[max(i + 1 - window, 0) : i + 1] for i in range(len(values))]
    assert extremes.highest(column, window).tolist() == [max(each) for each in trailing]
    assert extremes.lowest(column, window).tolist() == [min(each) for each in trailing]
    assert column.tolist() == values


@given(total=st.integers(0, 10**6), count=st.integers(1, 500), tenths=st.integers(0, 500))
def test_in_ticks_rounds_half_up_and_is_at_least_one(total: int, count: int, tenths: int) -> None:
    exact = Decimal(tenths) * total / (10 * count)
    wanted = max(1, int(exact.quantize(Decimal(1), ROUND_HALF_UP))) if tenths else 0
    assert extremes.in_ticks(np.array([total]), count, tenths / 10).tolist() == [wanted]


def test_in_ticks_never_leaves_what_the_kernel_can_add() -> None:
    assert extremes.in_ticks(np.array([10**12]), 1, 50.0).tolist() == [extremes.MOST_TICKS]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), max_size=60))
def test_held_from_an_opening_to_a_closing(rows: list[tuple[bool, bool, int]]) -> None:
    opens, closes = (np.array([row[i] for row in rows], dtype=np.bool_) for i in (0, 1))
    since = np.array([max(i - row[2], 0) for i, row in enumerate(rows)], dtype=np.int64)
    expected = []
    for i in range(len(rows)):
        opened = max((j for j in range(i + 1) if rows[j][0]), default=-1)
        closed = max((j for j in range(i + 1) if rows[j][1]), default=-1)
        expected.append(opened > closed and opened >= since[i])
    assert within_session.held(opens, closes, since).tolist() == expected


def test_session_index_of_none_one_and_several() -> None:
    for dates, starts, first in (
        ([], [], []),
        ([5], [0], [0]),
        ([5, 5, 6, 8, 8], [0, 2, 3], [0, 0, 2, 3, 3]),
    ):
        index = within_session.session_index(np.array(dates, dtype=np.int32))
        assert (index.starts.tolist(), index.first.tolist()) == (starts, first)
        assert index.spread(np.arange(len(starts))).tolist() == np.searchsorted(starts, first).tolist()


@pytest.mark.parametrize(("minutes", "length"), [(1, MINUTE_NS), (60, HOUR_NS), (23 * 60, DAY_NS)])
def test_the_length_of_a_bar_is_seen_through_gaps(minutes: int, length: int) -> None:
    market = clock_market(1, sessions=20, bar_minutes=minutes, keep=0.4)
    assert bar_length_ns(market) == length
    # a stretch in which no two bars are next to each other
    apart = market.slice(0, len(market))
    keep = np.arange(0, len(apart), 2)
    thinned = arrays_of(apart.ts_open[keep], ohlc_of(apart)[keep], apart.volume[keep], apart.session_date[keep])
    assert bar_length_ns(thinned) == length
    assert bar_length_ns(market.slice(0, 1)) == MINUTE_NS


def test_bars_below_a_minute_are_what_they_are() -> None:
    market = clock_market(1, sessions=1)
    quick = arrays_of(market.ts_open // 60, ohlc_of(market), market.volume, market.session_date)
    assert bar_length_ns(quick) == 1_000_000_000
