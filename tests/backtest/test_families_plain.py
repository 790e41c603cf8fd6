"""Each new family a second time: bar by bar, in plain Python, with dates, fractions and lists, against the fast one.

Slow on purpose and written from the rules in ``docs/reference/strategies.md``, not from the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.strategy import check_params, get_family
from tests.backtest.family_markets import AUTUMN, CHICAGO, SPRING, clock_market


@dataclass(frozen=True)
class Bar:
    """One bar in Chicago time."""

    start: datetime
    end: datetime
    open: int
    high: int
    low: int
    close: int
    volume: int
    session: int


def bars_of(arrays: BarArrays, minutes: int) -> list[Bar]:
    rows = zip(
        (int(each) // 1_000_000_000 for each in arrays.ts_open),
        *(
            column.tolist()
            for column in (
                arrays.signal_open,
                arrays.signal_high,
                arrays.signal_low,
                arrays.signal_close,
                arrays.volume,
                arrays.session_date,
            )
        ),
        strict=True,
    )
    stamps = [(datetime.fromtimestamp(stamp, UTC), rest) for stamp, *rest in rows]
    return [
        Bar(start.astimezone(CHICAGO), (start + timedelta(minutes=minutes)).astimezone(CHICAGO), *rest)
        for start, rest in stamps
    ]


def sessions_of(bars: list[Bar]) -> Iterator[tuple[int, list[Bar]]]:
    """(number, bars) of each session in order."""
    number, start = 0, 0
    for i in range(1, len(bars) + 1):
        if i == len(bars) or bars[i].session != bars[start].session:
            yield number, bars[start:i]
            number, start = number + 1, i


def next_wall(after: datetime, minute: int) -> datetime:
    """The first time after ``after`` at which clocks in Chicago show ``minute``; no change of clocks hits a session."""
    for days in (0, 1, 2):
        day = after.astimezone(CHICAGO).date() + timedelta(days=days)
        found = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=CHICAGO)
        if found.astimezone(UTC) > after.astimezone(UTC):
            return found
    raise AssertionError


def anchor_of(session: list[Bar], minute: int, slack: timedelta) -> datetime:
    first = session[0].start
    return first if minute < 0 else next_wall((first.astimezone(UTC) - slack), minute)


def limits(anchor: datetime, params: dict[str, Any]) -> tuple[datetime | None, datetime | None]:
    last, flat = (next_wall(anchor, params[name]) if params[name] >= 0 else None for name in ("last_entry", "flat_at"))
    return last, flat


def plain_opening_range(bars: list[Bar], p: dict[str, Any]) -> list[int]:
    sides: list[int] = []
    length = timedelta(minutes=p["range_minutes"])
    for number, session in sessions_of(bars):
        if number == 0:
            sides += [0] * len(session)
            continue
        anchor = anchor_of(session, p["range_start"], length)
        last_entry, flat_at = limits(anchor, p)
        top: int | None = None
        bottom: int | None = None
        position, entries, done = 0, 0, False
        for bar in session:
            since = bar.start.astimezone(UTC) - anchor.astimezone(UTC)
            if timedelta(0) <= since and bar.end.astimezone(UTC) <= anchor.astimezone(UTC) + length:
                top = bar.high if top is None else max(top, bar.high)
                bottom = bar.low if bottom is None else min(bottom, bar.low)
            elif since >= length and top is not None and bottom is not None:
                wanted = position
                if bar.close > top + p["buffer_ticks"]:
                    wanted = 1
                elif bar.close < bottom - p["buffer_ticks"]:
                    wanted = -1
                elif p["exit_inside"] and bottom <= bar.close <= top:
                    wanted = 0
                if wanted != position and not done:
                    late = last_entry is not None and bar.end >= last_entry
                    if wanted != 0:
                        entries += 1
                    position = wanted
                    if late or entries > p["max_entries"]:
                        position, done = 0, True
            sides.append(0 if flat_at is not None and bar.end >= flat_at else position)
    return sides


def plain_vwap_reversion(bars: list[Bar], p: dict[str, Any]) -> list[int]:
    sides: list[int] = []
    for number, session in sessions_of(bars):
        if number == 0:
            sides += [0] * len(session)
            continue
        anchor = anchor_of(session, p["anchor"], timedelta(hours=1))
        last_entry, flat_at = limits(anchor, p)
        trades: list[tuple[int, Fraction]] = []
        position = 0
        for bar in session:
            if bar.start >= anchor:
                trades.append((bar.volume, Fraction(bar.high + bar.low + bar.close, 3)))
            volume = sum(v for v, _ in trades)
            if not volume:
                sides.append(0)
                continue
            vwap = sum(v * price for v, price in trades) / Fraction(volume)
            variance = sum(v * (price - vwap) ** 2 for v, price in trades) / Fraction(volume)
            away = bar.close - vwap
            if position * away >= 0:
                position = 0
            early = bar.end.astimezone(UTC) - anchor.astimezone(UTC) < timedelta(minutes=p["settle_minutes"])
            late = last_entry is not None and bar.end >= last_entry
            far = abs(away) >= p["entry_ticks"]
            if p["entry_sd"]:
                far = far and variance > 0 and away**2 >= Fraction(str(p["entry_sd"])) ** 2 * variance
            if far and away and bar.volume and not early and not late:
                position = -1 if away > 0 else 1
            sides.append(0 if flat_at is not None and bar.end >= flat_at else position)
    return sides


def plain_channel_breakout(bars: list[Bar], p: dict[str, Any]) -> list[int]:
    sides: list[int] = []
    position, age, raw_before = 0, 0, 0
    for i, bar in enumerate(bars):
        new_session = i > 0 and bar.session != bars[i - 1].session
        if new_session and p["each_session"]:
            position = 0
        age += 1
        entry, leave = bars[max(i - p["entry_bars"], 0) : i], bars[max(i - p["exit_bars"], 0) : i]
        if position > 0 and len(leave) == p["exit_bars"] and bar.close < min(b.low for b in leave):
            position = 0
        if position < 0 and len(leave) == p["exit_bars"] and bar.close > max(b.high for b in leave):
            position = 0
        if age >= p["hold_bars"]:
            position = 0
        if len(entry) == p["entry_bars"]:
            if bar.close > max(b.high for b in entry) + p["buffer_ticks"]:
                position, age = 1, 0
            elif bar.close < min(b.low for b in entry) - p["buffer_ticks"]:
                position, age = -1, 0
        again = new_session and p["each_session"] and position == raw_before
        sides.append(0 if again else position)
        raw_before = position
    return sides


def plain_time_of_day(bars: list[Bar], p: dict[str, Any]) -> list[int]:
    sides, before = [], 0
    for i, bar in enumerate(bars):
        minute = bar.end.hour * 60 + bar.end.minute
        enter, leave = p["enter_at"], p["exit_at"]
        inside = enter <= minute < leave if enter < leave else (minute >= enter or minute < leave)
        day = date.fromisoformat(str(bar.session))
        side = p["side"] if inside and p["weekdays"] & 1 << day.weekday() else 0
        again = i > 0 and bar.session != bars[i - 1].session and side == before
        sides.append(0 if again or i < 59 else side)
        before = side
    return sides


def plain_volatility_filter(bars: list[Bar], p: dict[str, Any]) -> list[int]:
    ranges = [bars[0].high - bars[0].low] + [
        max(bar.high, last.close) - min(bar.low, last.close) for last, bar in pairwise(bars)
    ]
    sides, before = [], 0
    low, high = Fraction(str(p["ratio_low"])), Fraction(str(p["ratio_high"]))
    for i, bar in enumerate(bars):
        side = 0
        if i >= max(p["long_atr_bars"], p["momentum_bars"]):
            short = Fraction(sum(ranges[i + 1 - p["atr_bars"] : i + 1]), p["atr_bars"])
            long = Fraction(sum(ranges[i + 1 - p["long_atr_bars"] : i + 1]), p["long_atr_bars"])
            move = bar.close - bars[i - p["momentum_bars"]].close
            if low * long <= short <= high * long:
                side = (move > 0) - (move < 0)
        again = i > 0 and p["each_session"] and bar.session != bars[i - 1].session and side == before
        sides.append(0 if again else side)
        before = side
    return sides


clock_limit = st.sampled_from([-1, 600, 660, 840, 900, 60, 1200])
markets = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "first": st.sampled_from([SPRING, AUTUMN]),
        "sessions": st.integers(1, 5),
        "keep": st.sampled_from([0.05, 0.15]),
        "roll_session": st.sampled_from([None, 2]),
        "roll_step": st.sampled_from([0, 700]),
    }
)
SPACES: dict[str, Any] = {
    "opening_range": st.fixed_dictionaries(
        {
            "range_start": st.sampled_from([-1, 510, 1020, 1000, 0, 120, 955]),
            "range_minutes": st.sampled_from([10, 60, 180]),
            "buffer_ticks": st.integers(0, 3),
            "max_entries": st.integers(1, 4),
            "exit_inside": st.integers(0, 1),
            "last_entry": clock_limit,
            "flat_at": clock_limit,
        }
    ),
    "vwap_reversion": st.fixed_dictionaries(
        {
            "anchor": st.sampled_from([-1, 510, 1020, 970, 0]),
            "settle_minutes": st.sampled_from([1, 30, 300]),
            "entry_sd": st.sampled_from([0.5, 1, 1.5, 2]),
            "entry_ticks": st.sampled_from([0, 5, 20]),
            "last_entry": clock_limit,
            "flat_at": clock_limit,
        }
    ),
    "channel_breakout": st.fixed_dictionaries(
        {
            "entry_bars": st.integers(4, 30),
            "exit_bars": st.integers(1, 3),
            "buffer_ticks": st.integers(0, 3),
            "hold_bars": st.integers(1, 60),
            "each_session": st.integers(0, 1),
        }
    ),
    "time_of_day": st.fixed_dictionaries(
        {
            "enter_at": st.integers(0, 719),
            "exit_at": st.integers(720, 1439),
            "side": st.sampled_from([-1, 1]),
            "weekdays": st.integers(1, 127),
        }
    ).map(lambda p: p if p["weekdays"] % 2 else p | {"enter_at": p["exit_at"], "exit_at": p["enter_at"]}),
    "volatility_filter": st.fixed_dictionaries(
        {
            "momentum_bars": st.integers(1, 40),
            "atr_bars": st.integers(2, 9),
            "long_atr_bars": st.integers(10, 60),
            "ratio_low": st.sampled_from([0, 0.5, 0.85, 1]),
            "ratio_high": st.sampled_from([1.05, 1.5, 20]),
            "each_session": st.integers(0, 1),
        }
    ),
}
PLAIN = {
    "opening_range": plain_opening_range,
    "vwap_reversion": plain_vwap_reversion,
    "channel_breakout": plain_channel_breakout,
    "time_of_day": plain_time_of_day,
    "volatility_filter": plain_volatility_filter,
}


@pytest.mark.parametrize("name", sorted(PLAIN))
@settings(max_examples=60, deadline=None)
@given(data=st.data(), market=markets)
def test_the_fast_one_and_the_plain_one_agree(name: str, data: st.DataObject, market: dict[str, Any]) -> None:
    family, given_params = get_family(name), data.draw(SPACES[name])
    params = {each: parameter.default for each, parameter in family.parameters.items()} | given_params
    if family.check(params):
        return  # refused before a bar is read
    arrays = clock_market(**market)
    fast = family.signals(arrays, check_params(family, given_params)).side.tolist()
    assert fast == PLAIN[name](bars_of(arrays, 1), params)


@pytest.mark.parametrize("name", ["opening_range", "vwap_reversion", "time_of_day"])
@settings(max_examples=20, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10_000), sessions=st.integers(4, 9))
def test_they_agree_on_bars_of_an_hour(name: str, data: st.DataObject, seed: int, sessions: int) -> None:
    family, given_params = get_family(name), data.draw(SPACES[name])
    params = {each: parameter.default for each, parameter in family.parameters.items()} | given_params
    for each in ("range_start", "range_minutes", "anchor", "last_entry", "flat_at", "enter_at", "exit_at"):
        if each in params and params[each] > 0:
            params[each] = -(-params[each] // 60) * 60 % 1440
    if family.check(params):
        return
    arrays = clock_market(seed, sessions=sessions, bar_minutes=60, keep=0.95)
    fast = family.signals(arrays, check_params(family, params)).side.tolist()
    assert fast == PLAIN[name](bars_of(arrays, 60), params)
