"""One test per rule of docs/reference/strategies.md: bars made by hand, sides known beforehand."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.families.base import Signals
from blaid_pipelines.backtest.strategy import FAMILIES, check_params, get_family
from blaid_pipelines.reasons import InvalidRequest, ReasonCode, Refused
from tests.backtest.bars import make_bars, make_spec, run
from tests.backtest.family_markets import arrays_of, clock_market, drawn, joined, ohlc_of

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "strategies.md"
MON, TUE, WED, FRI, NEXT_MON = (date(2024, 1, day) for day in (8, 9, 10, 12, 15))
BEFORE = drawn(MON, 900, [100, 100])  # the first session of a series is not traded
OPEN = 17 * 60  # the evening before


def signals_of(name: str, arrays: BarArrays, **params: Any) -> Signals:
    return get_family(name).signals(arrays, check_params(get_family(name), params))


def sides(name: str, arrays: BarArrays, **params: Any) -> list[int]:
    return [int(side) for side in signals_of(name, arrays, **params).side]


# -- the page ----------------------------------------------------------------------------------------------------------
def test_every_rule_of_the_page_has_a_test() -> None:
    rules = re.findall(r"^\| `(\w+)` \| [^|]+ \|$", PAGE.read_text(), flags=re.MULTILINE)
    tests = [name.removeprefix("test_rule_") for name in globals() if name.startswith("test_rule_")]
    assert sorted(rules) == sorted(tests)


def test_the_page_has_every_family_with_its_parameters_as_they_are() -> None:
    sections = dict(re.findall(r"^## (\w+)$(.*?)(?=^## |\Z)", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL))
    assert set(FAMILIES) == {name for name in sections if name in FAMILIES}
    for name, family in FAMILIES.items():
        rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", sections[name], flags=re.MULTILINE)
        wanted = [
            (key, *(f"{getattr(each, part)}" for part in ("default", "low", "high", "step")))
            for key, each in family.parameters.items()
        ]
        assert rows == wanted
        assert f"[`{name}`](#{name})" in PAGE.read_text()


# -- opening_range -----------------------------------------------------------------------------------------------------
RANGE: dict[str, Any] = {"range_start": 510, "range_minutes": 3, "buffer_ticks": 0}


def tuesday(closes: list[int], start: int = 510, **shape: Any) -> BarArrays:
    return joined(BEFORE, drawn(TUE, start, closes, **shape))


def opening(closes: list[int], start: int = 510, **params: Any) -> list[int]:
    return sides("opening_range", tuesday(closes, start), **(RANGE | params))[len(BEFORE[0]) :]


def test_rule_range_is_of_whole_bars() -> None:
    #               8:28 8:29 |8:30           8:32| 8:33
    assert opening([150, 50, 100, 104, 101, 105, 104, 99], 508) == [0, 0, 0, 0, 0, 1, 1, 0]
    assert opening([150, 50, 100, 104, 101, 104, 100, 99], 508) == [0, 0, 0, 0, 0, 0, 0, -1]
    # on bars of an hour 8:00 to 9:00 is one bar; 7:00 is not in it
    hours = tuesday([50, 105, 104, 106], 420, bar_minutes=60)
    assert sides("opening_range", hours, range_start=480, range_minutes=60, buffer_ticks=0)[2:] == [0, 0, -1, 0]


def test_rule_range_from_the_first_bar() -> None:
    evening = joined(BEFORE, drawn(TUE, OPEN + 2, [100, 104, 101, 105], evening=True))
    assert sides("opening_range", evening, **(RANGE | {"range_start": -1})) == [0, 0, 0, 0, 0, 1]


def test_rule_range_keeps_what_is_left() -> None:
    # from 16:59 on, of which 17:00 and 17:01 are open market; the next such time is not waited for
    evening = joined(BEFORE, drawn(TUE, OPEN, [100, 104, 105, 106], evening=True))
    assert sides("opening_range", evening, **(RANGE | {"range_start": OPEN - 1})) == [0, 0, 0, 0, 1, 1]


def test_rule_no_range_no_trade() -> None:
    assert not any(opening([100, 104, 105, 300, 20], 513))
    assert not any(opening([100, 104, 105, 300, 20], 400))  # an early close before 8:30


def test_rule_break_needs_the_buffer() -> None:
    assert opening([100, 104, 101, 106, 107, 97, 107], buffer_ticks=2) == [0, 0, 0, 0, 1, 0, 0]
    ts_open, ohlc, volume, dates = drawn(TUE, 510, [100, 104, 101, 103, 103])
    ohlc[3, 1], ohlc[4, 2] = 150, 50  # highs and lows beyond, closes inside
    assert not any(sides("opening_range", joined(BEFORE, (ts_open, ohlc, volume, dates)), **RANGE))
    ohlc[1, 1] = 110  # a high inside the range's minutes counts
    ohlc[4] = 110
    assert not any(sides("opening_range", joined(BEFORE, (ts_open, ohlc, volume, dates)), **RANGE))
    ohlc[4] = 111
    assert sides("opening_range", joined(BEFORE, (ts_open, ohlc, volume, dates)), **RANGE)[-1] == 1


def test_rule_one_entry() -> None:
    assert opening([100, 104, 101, 105, 99, 105, 99]) == [0, 0, 0, 1, 0, 0, 0]


def test_rule_several_entries() -> None:
    closes = [100, 104, 101, 105, 99, 105, 102, 99]
    assert opening(closes, max_entries=2) == [0, 0, 0, 1, -1, 0, 0, 0]
    assert opening(closes, max_entries=3) == [0, 0, 0, 1, -1, 1, 1, 0]


def test_rule_exit_inside() -> None:
    closes = [100, 104, 101, 105, 104, 105, 102, 99, 100]
    assert opening(closes, exit_inside=1) == [0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert opening(closes, exit_inside=1, max_entries=3) == [0, 0, 0, 1, 0, 1, 0, -1, 0]
    # between the range and its buffer a close is neither inside nor a break
    assert opening([100, 104, 101, 107, 105, 104], exit_inside=1, buffer_ticks=2) == [0, 0, 0, 1, 1, 0]


def test_rule_late_break() -> None:
    # the close of 8:34 is filled at 8:35
    closes = [100, 104, 101, 102, 105, 105]
    assert opening(closes, last_entry=516) == [0, 0, 0, 0, 1, 1]
    assert opening(closes, last_entry=515) == [0] * 6
    assert opening([100, 104, 101, 105, 99, 105], last_entry=515, max_entries=9) == [0, 0, 0, 1, 0, 0]


def test_rule_flat_at() -> None:
    # the close of 8:35 is filled at 8:36
    assert opening([100, 104, 101, 105, 105, 105, 105], flat_at=516) == [0, 0, 0, 1, 1, 0, 0]
    after_midnight = joined(BEFORE, drawn(TUE, 1438, [100, 104, 101, 105, 105, 105], evening=True))
    got = sides("opening_range", after_midnight, **(RANGE | {"range_start": 1438, "flat_at": 3}))
    assert got == [0, 0, 0, 0, 0, 1, 0, 0]


def test_rule_range_of_each_session() -> None:
    market = joined(BEFORE, drawn(TUE, 510, [100, 104, 101, 105]), drawn(WED, 510, [200, 204, 201, 204, 199]))
    assert sides("opening_range", market, **RANGE)[2:] == [0, 0, 0, 1, 0, 0, 0, 0, -1]
    assert not any(sides("opening_range", tuesday([100, 104, 101, 105]).slice(2, 6), **RANGE))  # none came before


@pytest.mark.parametrize(
    ("given", "stop", "target"),
    [
        ({"stop_ranges": 1}, 4, 0),
        ({"stop_ranges": 0.6, "target_ranges": 2.5}, 2, 10),  # 2.4 and 10
        ({"stop_ranges": 0.1}, 1, 0),  # 0.4: at least one
        ({"stop_ranges": 0, "stop_ticks": 7, "target_ticks": 9}, 7, 9),
        ({"stop_ranges": 1, "stop_ticks": 3, "target_ranges": 1, "target_ticks": 9}, 3, 4),
        ({"stop_ranges": 0}, 0, 0),
    ],
)
def test_rule_distances_in_ranges(given: dict[str, Any], stop: int, target: int) -> None:
    market = tuesday([100, 104, 101, 105, 105, 105])
    signals = signals_of("opening_range", market, **(RANGE | given))
    assert (signals.stop_ticks[5], signals.target_ticks[5]) == (stop, target)
    trades = run(make_spec(), market, signals)  # entered at 105, never moves
    assert [(trade["entry_ticks"], trade["exit_reason"]) for trade in trades] == [(105, "SESSION_END")]


def test_rule_range_on_summer_time() -> None:
    friday, monday = date(2024, 3, 8), date(2024, 3, 11)  # clocks go forward between them
    market = joined(
        drawn(date(2024, 3, 7), 900, [100]),
        drawn(friday, 509, [90, 100, 104, 101, 105]),
        drawn(monday, 509, [90, 100, 104, 101, 105]),
    )
    assert np.diff(market.ts_open)[5] == (71 * 60 - 4) * 60_000_000_000  # an hour less than three days
    assert sides("opening_range", market, **RANGE) == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("name", ["last_entry", "flat_at"])
@pytest.mark.parametrize("minute", [510, 520, 540])
def test_an_opening_range_that_could_never_trade_is_refused(name: str, minute: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_params(get_family("opening_range"), {name: minute})
    assert caught.value.reason.numbers["parameter"] == name
    check_params(get_family("opening_range"), {name: 541})
    check_params(get_family("opening_range"), {name: minute, "range_start": -1})  # its time is not known


# -- vwap_reversion ----------------------------------------------------------------------------------------------------
VWAP: dict[str, Any] = {"settle_minutes": 1, "entry_sd": 2}
SPIKE = [100, 100, 100, 100, 110]  # VWAP 102, deviation 4: the last close is two of them away


def fade(closes: list[int], volume: list[int] | int = 1, start: int = 600, **params: Any) -> list[int]:
    return sides("vwap_reversion", tuesday(closes, start, volume=volume), **(VWAP | params))[2:]


def test_rule_vwap_by_hand() -> None:
    assert fade(SPIKE) == [0, 0, 0, 0, -1]
    assert fade([200 - close for close in SPIKE]) == [0, 0, 0, 0, 1]
    assert fade(SPIKE, entry_sd=2.1) == [0] * 5
    assert fade(SPIKE, entry_ticks=8) == [0, 0, 0, 0, -1]
    assert fade(SPIKE, entry_ticks=9) == [0] * 5
    # weights are volumes: VWAP 105, deviation 5, one of them away
    assert fade([100, 110], [4, 4], entry_sd=1) == [0, -1]
    assert fade([100, 110], [4, 5], entry_sd=1) == [0, 0]


def test_rule_vwap_exit() -> None:
    assert fade([*SPIKE, 106, 103, 102]) == [0, 0, 0, 0, -1, -1, -1, 0]
    # at the VWAP itself: (100 + 110 + 105) / 3
    assert fade([100, 110, 105], entry_sd=1) == [0, -1, 0]
    assert fade([110, 100, 105], entry_sd=1) == [0, 1, 0]


def test_rule_vwap_in_ticks() -> None:
    assert fade([100, 100, 109, 90], entry_sd=0, entry_ticks=6) == [0, 0, -1, 1]
    assert fade([100, 100, 108, 100], entry_sd=0, entry_ticks=6) == [0, 0, 0, 0]


def test_rule_vwap_settles() -> None:
    assert fade(SPIKE, settle_minutes=5) == [0, 0, 0, 0, -1]
    assert fade([*SPIKE, 102], settle_minutes=6) == [0] * 6


def test_rule_vwap_without_volume() -> None:
    assert fade([*SPIKE, 110], [1, 1, 1, 1, 0, 1]) == [0, 0, 0, 0, 0, -1]
    assert fade([*SPIKE, 100], [1, 1, 1, 1, 1, 0]) == [0, 0, 0, 0, -1, 0]
    # nothing traded before the third bar: the VWAP begins there
    assert fade([500, 900, *SPIKE], [0, 0, 1, 1, 1, 1, 1]) == [0] * 6 + [-1]
    assert fade([100, 200, 50], [0, 0, 0], entry_sd=0, entry_ticks=1) == [0, 0, 0]


def test_rule_vwap_without_deviation() -> None:
    assert fade([100, 100, 120], [1, 1, 0], entry_sd=0.5) == [0, 0, 0]
    assert fade([100] * 5, entry_sd=0.5) == [0] * 5


def test_rule_vwap_of_each_session() -> None:
    market = joined(BEFORE, drawn(TUE, 600, SPIKE), drawn(WED, 600, [110, 110, 110, 110, 120]))
    assert sides("vwap_reversion", market, **VWAP)[2:] == [0, 0, 0, 0, -1, 0, 0, 0, 0, -1]


def test_rule_vwap_from_an_anchor() -> None:
    assert fade([500, 900, *SPIKE], start=508, anchor=510) == [0] * 6 + [-1]
    evening = joined(BEFORE, drawn(TUE, OPEN + 7, SPIKE, evening=True))
    assert sides("vwap_reversion", evening, anchor=OPEN, **VWAP)[2:] == [0, 0, 0, 0, -1]
    assert sides("vwap_reversion", evening, anchor=OPEN - 54, **VWAP)[2:] == [0, 0, 0, 0, 0]  # more than an hour
    assert sides("vwap_reversion", evening, anchor=OPEN - 52, **VWAP)[2:] == [0, 0, 0, 0, -1]


def test_rule_vwap_limits() -> None:
    closes = [*SPIKE, 109, 109]
    assert fade(closes, last_entry=605) == [0] * 7
    assert fade(closes, last_entry=606) == [0, 0, 0, 0, -1, -1, -1]
    assert fade(closes, flat_at=606) == [0, 0, 0, 0, -1, 0, 0]


def test_vwap_reversion_refuses_what_makes_no_sense() -> None:
    family = get_family("vwap_reversion")
    for given, bad in (({"entry_sd": 0}, "entry_sd"), ({"anchor": 510, "flat_at": 540}, "flat_at")):
        with pytest.raises(InvalidRequest) as caught:
            check_params(family, given)
        assert caught.value.reason.numbers["parameter"] == bad
    market = clock_market(3, sessions=2)
    silent = arrays_of(market.ts_open, ohlc_of(market), market.volume * 0, market.session_date)
    with pytest.raises(Refused) as refused:
        family.signals(silent, check_params(family, {}))
    assert refused.value.reason.code is ReasonCode.BARS_UNSUITED
    loud = arrays_of(market.ts_open, ohlc_of(market), market.volume * 10**12, market.session_date)
    with pytest.raises(Refused) as refused:
        family.signals(loud, check_params(family, {}))
    assert refused.value.reason.code is ReasonCode.VOLUME_INVALID
    much = arrays_of(market.ts_open, ohlc_of(market), market.volume * 10**6, market.session_date)
    params = check_params(family, {})
    assert np.array_equal(family.signals(much, params).side, family.signals(market, params).side)


# -- channel_breakout --------------------------------------------------------------------------------------------------
CHANNEL: dict[str, Any] = {"entry_bars": 3, "exit_bars": 2, "hold_bars": 50}


def channel(closes: list[int], session: list[int] | None = None, **params: Any) -> list[int]:
    arrays = make_bars([(close, close, close, close) for close in closes], sessions=session)
    return sides("channel_breakout", arrays, **(CHANNEL | params))


def test_rule_channel_excludes_its_own_bar() -> None:
    assert channel([100, 102, 101, 102, 103]) == [0, 0, 0, 0, 1]
    assert channel([100, 98, 99, 98, 97]) == [0, 0, 0, 0, -1]
    assert channel([100, 102, 103]) == [0, 0, 0]  # three bars before it are not there yet
    # highs make the channel, closes break it
    arrays = make_bars([(100, 100, 100, 100), (100, 105, 100, 100), *[(104, 106, 104, 104)] * 2, (104, 107, 104, 107)])
    assert sides("channel_breakout", arrays, **CHANNEL) == [0, 0, 0, 0, 1]


def test_rule_channel_buffer() -> None:
    assert channel([100, 102, 101, 104, 105], buffer_ticks=2) == [0, 0, 0, 0, 0]
    assert channel([100, 102, 101, 105, 105], buffer_ticks=2) == [0, 0, 0, 1, 1]


def test_rule_channel_exit() -> None:
    closes = [100, 102, 101, 102, 102, 104, 106, 104, 103, 105]
    # 104 is the low of the two bars before the last but one: touched, then passed
    assert channel(closes, entry_bars=5) == [0, 0, 0, 0, 0, 1, 1, 1, 0, 0]
    assert channel([200 - close for close in closes], entry_bars=5) == [0, 0, 0, 0, 0, -1, -1, -1, 0, 0]


def test_rule_channel_reversal() -> None:
    assert channel([100, 102, 101, 104, 99, 99]) == [0, 0, 0, 1, -1, -1]


def test_rule_channel_gives_up() -> None:
    closes = [100, 102, 101, 104, 104, 104, 104, 104]
    assert channel(closes, hold_bars=3) == [0, 0, 0, 1, 1, 1, 0, 0]
    assert channel([*closes[:5], 105, 105, 105, 105], hold_bars=3) == [0, 0, 0, 1, 1, 1, 1, 1, 0]


def test_rule_channel_each_session() -> None:
    days = [20240102] * 5 + [20240103] * 4
    closes = [100, 102, 101, 104, 105]
    assert channel([*closes, 105, 105, 105, 106], days) == [0, 0, 0, 1, 1, 0, 0, 0, 1]
    assert channel([*closes, 106, 106, 106, 106], days) == [0, 0, 0, 1, 1, 0, 1, 1, 1]
    assert channel([*closes, 90, 90, 90, 90], days) == [0, 0, 0, 1, 1, -1, -1, -1, -1]


def test_rule_channel_across_sessions() -> None:
    days = [20240102] * 5 + [20240103] * 4
    assert channel([100, 102, 101, 104, 105, 106, 106, 106, 106], days, each_session=0) == [0, 0, 0] + [1] * 6


def test_the_warm_up_of_a_channel_is_not_a_bar_too_long() -> None:
    params = check_params(get_family("channel_breakout"), CHANNEL | {"hold_bars": 4})
    assert get_family("channel_breakout").warmup_bars(params) == 8
    days = [20240102] * 9 + [20240103]
    # the break at 105 is as old as it may be on the session's last bar: the new session's break is in its direction
    closes = [300, 50, 100, 100, 100, 105, 105, 105, 105, 120]
    assert channel(closes[2:], days[2:], hold_bars=4)[-1] == channel(closes, days, hold_bars=4)[-1] == 0
    assert channel(closes[3:], days[3:], hold_bars=4)[-1] == 1


def test_an_exit_channel_as_long_as_the_entry_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_params(get_family("channel_breakout"), {"entry_bars": 20, "exit_bars": 20})
    assert caught.value.reason.numbers == {"parameter": "exit_bars", "value": 20, "entry_bars": 20}


# -- time_of_day -------------------------------------------------------------------------------------------------------
def held(arrays: BarArrays, **params: Any) -> list[int]:
    """Sides after a warm-up of sixty bars."""
    return sides("time_of_day", arrays, **params)[60:]


MORNING = drawn(TUE, 480, [100] * 60)  # sixty bars of warm-up, 8:00 to 9:00


def test_rule_window_is_of_fills() -> None:
    # the close of 9:01 is filled at 9:02, the close of 9:04 at 9:05
    market = joined(MORNING, drawn(TUE, 540, [100] * 7))
    assert held(market, enter_at=542, exit_at=545) == [0, 1, 1, 1, 0, 0, 0]
    signals = signals_of("time_of_day", market, enter_at=542, exit_at=545)
    trade = run(make_spec(), market, signals)[0]
    assert (trade["entry_ts"], trade["exit_ts"]) == (market.ts_open[62], market.ts_open[65])
    many = joined(*(drawn(day, 0, [100] * 16, bar_minutes=60) for day in (MON, TUE, WED, date(2024, 1, 11), FRI)))
    assert held(many, enter_at=840, exit_at=900)[-4:] == [0, 1, 0, 0]


def test_rule_window_over_midnight() -> None:
    market = joined(
        drawn(TUE, OPEN, [100] * 60, evening=True),
        drawn(TUE, 1437, [100] * 3, evening=True),
        drawn(TUE, 0, [100] * 4),
    )
    assert held(market, enter_at=1439, exit_at=2) == [0, 1, 1, 1, 0, 0, 0]


def test_rule_window_short() -> None:
    assert held(joined(MORNING, drawn(TUE, 540, [100] * 4)), enter_at=542, exit_at=543, side=-1) == [0, -1, 0, 0]
    with pytest.raises(InvalidRequest, match="neither long nor short"):
        check_params(get_family("time_of_day"), {"side": 0})
    with pytest.raises(InvalidRequest, match="also enter_at"):
        check_params(get_family("time_of_day"), {"enter_at": 60, "exit_at": 60})


@pytest.mark.parametrize(("weekdays", "expected"), [(31, [1, 1, 1]), (2, [1, 0, 0]), (4, [0, 1, 0]), (17, [0, 0, 1])])
def test_rule_window_on_weekdays(weekdays: int, expected: list[int]) -> None:
    # Tuesday, Wednesday, and the evening of Sunday, which is Monday's session
    market = joined(
        MORNING,
        drawn(TUE, 600, [100]),
        drawn(WED, 1140, [100] * 2, evening=True),
        drawn(NEXT_MON, 1140, [100] * 2, evening=True),
    )
    got = held(market, enter_at=600, exit_at=1200, weekdays=weekdays)
    assert [got[0], got[2], got[4]] == expected


def test_rule_window_over_a_session_end() -> None:
    market = joined(MORNING, drawn(TUE, 955, [100] * 5), drawn(WED, OPEN, [100] * 4, evening=True))
    assert held(market, enter_at=957, exit_at=510) == [0, 1, 1, 1, 1, 0, 1, 1, 1]
    signals = signals_of("time_of_day", market, enter_at=957, exit_at=510)
    bars = {int(ts): i for i, ts in enumerate(market.ts_open)}
    trades = [
        (bars[t["entry_ts"]] - 60, bars[t["exit_ts"]] - 60, t["exit_reason"]) for t in run(make_spec(), market, signals)
    ]
    assert trades == [(2, 4, "SESSION_END"), (7, 8, "SESSION_END")]
    # a window that begins with the session needs no flat bar
    assert held(market, enter_at=OPEN + 1, exit_at=510) == [0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_rule_window_on_summer_time() -> None:
    friday, monday = date(2024, 3, 8), date(2024, 3, 11)
    market = joined(drawn(friday, 480, [100] * 60), drawn(friday, 600, [100] * 3), drawn(monday, 600, [100] * 3))
    assert held(market, enter_at=602, exit_at=603) == [0, 1, 0, 0, 1, 0]


def test_rule_window_with_gaps() -> None:
    market = joined(MORNING, drawn(TUE, 540, [100]), drawn(TUE, 550, [100] * 2), drawn(TUE, 600, [100]))
    assert held(market, enter_at=542, exit_at=570) == [0, 1, 1, 0]
    assert held(market, enter_at=560, exit_at=570) == [0, 0, 0, 0]


# -- volatility_filter -------------------------------------------------------------------------------------------------
BAND: dict[str, Any] = {"momentum_bars": 1, "atr_bars": 2, "long_atr_bars": 10, "each_session": 0}


def steps(*moves: int, session: list[int] | None = None) -> BarArrays:
    """Bars without range of their own: each true range is the size of the move."""
    closes = np.cumsum([1000, *moves]).tolist()
    return make_bars([(close, close, close, close) for close in closes], sessions=session)


def test_rule_momentum_in_the_band() -> None:
    market = steps(*[4, -4] * 5, 4, -4)  # every true range is 4: the ratio is 1
    assert sides("volatility_filter", market, **BAND, ratio_low=1, ratio_high=1.05)[10:] == [-1, 1, -1]
    assert sides("volatility_filter", market, **BAND, ratio_low=0.95, ratio_high=1)[10:] == [-1, 1, -1]
    assert not any(sides("volatility_filter", market, **BAND, ratio_low=1.05, ratio_high=2))
    assert sides("volatility_filter", market, **(BAND | {"momentum_bars": 2}), ratio_low=0)[10:] == [0, 0, 0]


def test_rule_flat_outside_the_band() -> None:
    market = steps(*[4] * 10, 12, 12, 4, 4)
    # short over long: 1, 8/4.8, 12/5.6, 8/5.6, 4/5.6
    got = sides("volatility_filter", market, **BAND, ratio_low=0.8, ratio_high=2)
    assert got[10:] == [1, 1, 0, 1, 0]


def test_rule_true_range_has_the_gap() -> None:
    days = [20240102] * 8 + [20240103] * 4
    signals = signals_of("volatility_filter", steps(*[4] * 7, 40, 4, 4, 4, session=days), **BAND)
    # stop_atr is 2: twice the mean of two true ranges
    assert signals.stop_ticks[7:].tolist() == [8, 44, 44, 8, 8]
    rolled = make_bars([(1000 + 100 * (i > 7),) * 4 for i in range(12)], contracts=[0] * 8 + [1] * 4)
    assert set(signals_of("volatility_filter", rolled, **BAND).stop_ticks[1:].tolist()) == {1}


@pytest.mark.parametrize(
    ("given", "stop", "target"),
    [
        ({"stop_atr": 2, "target_atr": 4}, 8, 16),
        ({"stop_atr": 0.1, "target_atr": 0}, 1, 0),  # 0.4: at least one
        ({"stop_atr": 1.1, "target_atr": 1.2}, 4, 5),  # 4.4 and 4.8
        ({"stop_atr": 0, "target_atr": 50}, 0, 200),
    ],
)
def test_rule_distances_in_atr(given: dict[str, Any], stop: int, target: int) -> None:
    signals = signals_of("volatility_filter", steps(*[4, -4] * 6), **BAND, **given)
    assert (signals.stop_ticks[-1], signals.target_ticks[-1]) == (stop, target)


def test_rule_band_each_session() -> None:
    days = [20240102] * 11 + [20240103] * 3
    market = steps(*[4] * 13, session=days)
    assert sides("volatility_filter", market, **BAND)[10:] == [1, 1, 1, 1]
    assert sides("volatility_filter", market, **(BAND | {"each_session": 1}))[10:] == [1, 0, 1, 1]


def test_a_band_upside_down_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_params(
            get_family("volatility_filter"), {"atr_bars": 50, "long_atr_bars": 50, "ratio_low": 2, "ratio_high": 1}
        )
    assert [reason.numbers["parameter"] for reason in caught.value.reasons] == ["atr_bars", "ratio_low"]
