"""Rolls: which contract, when, at what step; nothing decided from the future, never back; held against real rolls."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pacsv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blaid_pipelines.backtest.arrays import build_arrays
from blaid_pipelines.market.bars import MINUTE_NS, MISSING, MISSING_VOLUME, Bars, to_ns
from blaid_pipelines.market.expiry import contract_of, last_trading_day
from blaid_pipelines.market.rolls import (
    RollStep,
    Stitched,
    parse_continuous,
    roll_calendar,
    rolls_of,
    stitch,
)
from blaid_pipelines.market.sessions import Sessions, load_sessions
from blaid_pipelines.reasons import InvalidRequest, ReasonCode, Refused
from tests.backtest.test_arrays import MES

ES = replace(MES, symbol="ES", tick_size=Decimal("0.25"))
TICK = ES.tick_nanos
MONDAY = date(2024, 3, 4)  # two weeks before ESH4 expires
H, M, U = "ESH4", "ESM4", "ESU4"


def noon(day: int, minute: int = 0) -> int:
    """12:00 Chicago on the ``day``-th weekday from Monday 4 March 2024 on, ``minute`` minutes later (ns)."""
    when = MONDAY + timedelta(days=day // 5 * 7 + day % 5)
    return to_ns(datetime(when.year, when.month, when.day, 18, tzinfo=UTC)) + minute * MINUTE_NS


def market(volumes: dict[str, list[int | None]], spread: dict[str, int] | None = None, minutes: int = 2) -> Bars:
    """``volumes`` per contract and weekday (None: no bars); prices in ticks of 19,000, plus each contract's spread."""
    rows = []
    for name, days in volumes.items():
        for day, volume in enumerate(days):
            for minute in range(minutes):
                if volume is not None:
                    close = (19_000 + day + minute + (spread or {}).get(name, 0)) * TICK
                    rows.append((noon(day, minute), close, volume, name))
    stamps, closes, volume_, names = zip(*rows, strict=True)
    return Bars.build(stamps, closes, closes, closes, closes, volume_, list(names))


def sessions_of(bars: Bars) -> Sessions:
    return load_sessions(ES.session, int(bars.ts_open.min()), int(bars.ts_open.max()) + MINUTE_NS)


def run(bars: Bars, symbol: str, **options: Any) -> Stitched:
    return stitch(bars, ES, symbol, sessions_of(bars), **options)


def chosen(stitched: Stitched) -> list[str]:
    return [contract for _, contract in stitched.choices]


@pytest.mark.parametrize("symbol", ["ES.c.0", "ES.v.0", "ES.n.0"])
def test_names_that_come_round_after_ten_years(symbol: str) -> None:
    """ESH4 of 2014 and ESH4 of 2024 are two contracts: nothing of the second decade is left out."""
    rows, interest = [], {}
    for year in (2014, 2024):
        for name, first, days in ((H, date(year, 2, 10), 20), (M, date(year, 2, 24), 19)):
            for when in (first + timedelta(days=each) for each in range(days)):
                if when.weekday() < 5:
                    stamp = to_ns(datetime(when.year, when.month, when.day, 18, tzinfo=UTC))
                    rows.append((stamp, 19_000 * TICK, 60 if name == H else 50, name))
                    interest[int(f"{when:%Y%m%d}"), name] = 60 if name == H else 50
    stamps, closes, volumes, names = zip(*rows, strict=True)
    bars = Bars.build(stamps, closes, closes, closes, closes, volumes, list(names))
    # definitions of one decade say nothing of the other's contracts
    ends = {name: to_ns(datetime(2014, month, 21, 13, 30, tzinfo=UTC)) for name, month in ((H, 3), (M, 6))}
    for expiries in (None, ends):
        result = run(bars, symbol, open_interest=interest, expiries=expiries)
        decades = [[name for day, name in result.choices if day // 10_000 == year] for year in (2014, 2024)]
        for chosen_then in decades:
            assert set(chosen_then) == {H, M}
            assert chosen_then == sorted(chosen_then)
        assert [(step.from_contract, step.to_contract) for step in result.steps] == [(H, M), (M, H), (H, M)]
        assert result.bars.contracts == (H, M)
        assert len(result.undecided) <= 4


def test_by_volume_the_day_after_the_hand_over() -> None:
    bars = market({H: [90, 80, 40, 10, 5], M: [10, 20, 60, 90, 95]}, {M: 210})
    result = run(bars, "ES.v.0")
    assert chosen(result) == [H, H, M, M]  # the third day's volume decides the fourth
    assert result.undecided == [20240304]
    [step] = result.steps
    assert step == RollStep(noon(3), H, M, 210 * TICK, "same_time")
    assert result.bars.ts_open.tolist() == sorted(set(bars.ts_open.tolist()))[2:]


def test_by_expiry_the_session_of_the_last_trading_day_belongs_to_the_next_contract() -> None:
    days = 10  # until Friday 15 March, the expiry of ESH4
    result = run(market({H: [90] * days, M: [10] * days}), "ES.c.0")
    assert chosen(result) == [H] * 9 + [M]
    assert result.undecided == []
    assert chosen(run(market({H: [90] * days, M: [10] * days}), "ES.c.1")) == [M] * 9  # no third contract


def test_a_definition_beats_the_rule() -> None:
    result = run(market({H: [9] * 5, M: [1] * 5}), "ES.c.0", expiries={H: noon(2, -200)})
    assert chosen(result) == [H, H, M, M, M]


def test_by_open_interest_as_published() -> None:
    bars = market({H: [5] * 6, M: [5] * 6})
    days = [20240304 + n for n in range(5)]
    interest = {(day, H): 100 - 30 * n for n, day in enumerate(days)} | {
        (day, M): 50 + 10 * n for n, day in enumerate(days)
    }
    result = run(bars, "ES.n.0", open_interest=interest)
    # M passes H on the 5th (60 to 70 is no pass, 80 to 40 on the 6th is); known on the 7th's close, so traded the 8th
    assert result.choices == [(20240306, H), (20240307, H), (20240308, M), (20240311, M)]
    assert result.undecided == [20240304, 20240305]


def test_never_back_and_ties_to_the_nearer_contract() -> None:
    assert chosen(run(market({H: [50, 50, 10, 90, 90], M: [50, 50, 90, 10, 10]}), "ES.v.0")) == [H, H, M, M]


def test_a_contract_that_stops_trading_is_left() -> None:
    assert chosen(run(market({H: [90, 90, None, None], M: [1, 1, 1, 1]}), "ES.c.0")) == [H, H, H, M]
    # zero-volume bars are no trades
    assert chosen(run(market({H: [90, 90, 0, 0], M: [1, 1, 1, 1]}), "ES.c.0")) == [H, H, H, M]
    assert chosen(run(market({H: [90, 90, 0, 0], M: [1, 1, 1, 1]}), "ES.v.0")) == [H, H, M]


def test_ranks_count_from_the_lead() -> None:
    volumes: dict[str, list[int | None]] = {H: [90, 40, 10, 10], M: [10, 60, 90, 90], U: [1, 1, 1, 1]}
    assert chosen(run(market(volumes), "ES.v.0")) == [H, M, M]
    assert chosen(run(market(volumes), "ES.v.1")) == [M, U, U]
    assert chosen(run(market(volumes), "ES.c.1")) == [M] * 4
    assert chosen(run(market(volumes), "ES.c.2")) == [U] * 4


def test_without_common_bars_the_step_is_taken_beside_the_roll() -> None:
    bars = market({H: [90, 90, None], M: [None, None, 90]}, {M: 3})
    beside = [RollStep(noon(2), H, M, 3 * TICK, "first_open_minus_last_close")]
    assert rolls_of(bars) == beside
    result = run(bars, "ES.c.0", expiries={H: noon(2, -200)})  # files that begin at the roll
    assert chosen(result) == [H, H, M]
    assert result.steps == beside


def test_the_step_is_the_median_of_the_last_bars_seen_together() -> None:
    bars = market({H: [90, 10, 10], M: [10, 90, 90]}, {M: 210}, minutes=9)
    closes = bars.close.copy()
    last = np.flatnonzero(bars.contract == bars.contracts.index(M))[17]  # one late print on the day before the roll
    closes[last] += 400 * TICK
    [step] = run(replace(bars, close=closes), "ES.v.0").steps or [None]
    assert step is not None
    assert (step.step_nanos, step.basis) == (210 * TICK, "same_time")


def test_bars_outside_of_sessions_stay_where_the_gate_sees_them() -> None:
    bars = market({H: [90, 90], M: [1, 1]})
    stray = Bars.build([noon(0, 60 * 4 + 30)], [1], [1], [1], [1], [1], [H])  # 16:30, in the daily break
    result = run(Bars.concat([bars, stray]), "ES.c.0")
    assert noon(0, 270) in result.bars.ts_open.tolist()


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_the_future_changes_no_choice(data: st.DataObject) -> None:
    volumes = st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=9, max_size=9)
    table = {name: data.draw(volumes, label=name) for name in (H, M, U)}
    symbol = data.draw(st.sampled_from(["ES.c.0", "ES.c.1", "ES.v.0", "ES.v.1", "ES.n.0"]))
    first = data.draw(st.integers(1, 8), label="first disturbed day")
    if all(volume is None for days in table.values() for volume in days[:first]):
        return
    interest = {
        (20240304 + n % 5 + n // 5 * 7, name): data.draw(st.integers(0, 5)) for n in range(9) for name in (H, M)
    }
    disturbed = {name: days[:first] + data.draw(volumes)[first:] for name, days in table.items()}
    edge = 20240304 + first % 5 + first // 5 * 7
    later = {key: value + 7 * (key[0] >= edge) for key, value in interest.items()}

    def choices(
        volumes: dict[str, list[int | None]], known: dict[tuple[int, str], int]
    ) -> list[tuple[int, str]] | None:
        bars = market(volumes)
        sessions = load_sessions(ES.session, noon(0), noon(8) + MINUTE_NS)
        try:
            return stitch(bars, ES, symbol, sessions, open_interest=known).choices
        except Refused:  # no bar of any chosen contract
            return None

    ours, theirs = choices(table, interest), choices(disturbed, later)
    if ours is None or theirs is None:
        return
    # a disturbed session may have no bars, and then no choice
    past = [choice for choice in ours if choice[0] < edge]
    assert past == [choice for choice in theirs if choice[0] < edge]
    last = max((n for n in range(first) if any(days[n] is not None for days in table.values())), default=None)
    if last is not None and any(days[last] for days in table.values()):
        # something was known to trade: the choice for the disturbed session itself is made, too
        assert len({choice for choice in (*ours, *theirs) if choice[0] == edge}) <= 1


@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=3, max_size=9), st.integers(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_series_only_moves_on(volumes: list[list[int]], rank: int) -> None:
    bars = market({name: [day[n] for day in volumes] for n, name in enumerate((H, M, U))})
    for rule in "cv":
        try:
            result = run(bars, f"ES.{rule}.{rank}")
        except Refused:
            continue
        order = [(H, M, U).index(contract) for contract in chosen(result)]
        assert order == sorted(order)
        assert (np.diff(result.bars.ts_open) > 0).all()
        assert rolls_of(result.bars, result.steps) == result.steps


def test_the_order_of_the_rows_does_not_matter() -> None:
    bars = market({H: [9, 5, 1, 1], M: [1, 5, 9, 9]})
    shuffled = bars.take(np.random.default_rng(1).permutation(len(bars)))
    one, other = run(bars, "ES.v.0"), run(shuffled, "ES.v.0")
    assert one.bars.content_hash() == other.bars.content_hash()
    assert (one.steps, one.choices) == (other.steps, other.choices)


@pytest.mark.parametrize(
    ("symbol", "code"),
    [
        ("MES.c.0", ReasonCode.INSTRUMENT_MISMATCH),
        ("ES.n.0", ReasonCode.EVIDENCE_MISSING),
        ("ES.x.0", ReasonCode.INVALID_REQUEST),
        ("ESH4", ReasonCode.INVALID_REQUEST),
    ],
)
def test_what_cannot_be_stitched_is_refused(symbol: str, code: ReasonCode) -> None:
    with pytest.raises(InvalidRequest) as caught:
        run(market({H: [1, 1]}), symbol)
    assert caught.value.reason.code is code


def test_volume_that_is_missing_decides_nothing() -> None:
    bars = market({H: [9, 9], M: [1, 1]})
    volume = bars.volume.copy()
    volume[0] = MISSING_VOLUME
    with pytest.raises(Refused) as caught:
        run(replace(bars, volume=volume), "ES.v.0")
    assert caught.value.reason.code is ReasonCode.FIELD_MISSING
    assert chosen(run(replace(bars, volume=volume), "ES.c.0")) == [H, H]


def test_a_single_session_cannot_say_what_led_before_it() -> None:
    with pytest.raises(Refused) as caught:
        run(market({H: [9], M: [1]}), "ES.v.0")
    assert caught.value.reason.code is ReasonCode.DATA_UNAVAILABLE


def test_another_products_contract_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="INSTRUMENT_UNKNOWN"):
        run(market({"NQH4": [9, 9]}), "ES.c.0")


def test_steps_travel_as_json() -> None:
    for step in (
        RollStep(5, H, M, -7, "same_time"),
        RollStep(5, H, M, None, "unknown"),
        RollStep(5, H, M, 0, "first_open_minus_last_close"),
    ):
        assert RollStep.from_json(json.loads(json.dumps(step.as_json()))) == step
    with pytest.raises(ValueError):
        RollStep.from_json({**RollStep(5, H, M, 1, "same_time").as_json(), "basis": "guess"})


def test_rolls_of_any_series() -> None:
    bars = market({H: [9, None], M: [None, 9]})
    known = RollStep(noon(1), H, M, 200 * TICK, "same_time")
    assert rolls_of(bars, [known]) == [known]
    assert rolls_of(bars, [replace(known, to_contract=U)])[0].basis == "first_open_minus_last_close"
    assert rolls_of(bars, [replace(known, ts_ns=noon(3))])[0].basis == "first_open_minus_last_close"
    broken = replace(bars, open=np.where(bars.ts_open == noon(1), MISSING, bars.open))
    assert rolls_of(broken) == [RollStep(noon(1), H, M, None, "unknown")]
    assert rolls_of(market({H: [9], M: [9]})) == [], "several contracts at one time are no series"
    assert rolls_of(Bars.empty()) == []


def test_the_calendar_of_a_root() -> None:
    rolls = roll_calendar("ES", "HMUZ", 2023, 2024)
    assert [roll.contract for roll in rolls] == ["ESH3", "ESM3", "ESU3", "ESZ3", "ESH4", "ESM4", "ESU4", "ESZ4"]
    assert [roll.next_contract for roll in rolls][-1] == "ESH5"
    assert rolls[4].roll_session == date(2024, 3, 15)
    assert len(roll_calendar("CL", "FGHJKMNQUVXZ", 2020, 2020)) == 12
    with pytest.raises(InvalidRequest):
        roll_calendar("XX", "HMUZ", 2023, 2024)


@pytest.mark.parametrize("symbol", ["ES.c", "ES", "ES.c.01", "es.c.0", "ES.C.0"])
def test_forms_of_continuous_symbols(symbol: str) -> None:
    assert parse_continuous("6E.v.12") == ("6E", "v", 12)
    with pytest.raises(InvalidRequest):
        parse_continuous(symbol)


# --- real rolls -------------------------------------------------------------------------------------------------


def es_minutes(real_data: Path) -> Bars:
    """ES trades as minutes, all contracts of all days; stamps are milliseconds since midnight UTC."""
    parts = []
    for archive in sorted((real_data / "lean_es" / "minute").glob("2013*.zip")):
        midnight = to_ns(datetime.strptime(archive.name[:8], "%Y%m%d").replace(tzinfo=UTC))
        with zipfile.ZipFile(archive) as opened:
            for name in opened.namelist():
                with opened.open(name) as file:
                    table = pacsv.read_csv(file, pacsv.ReadOptions(autogenerate_column_names=True))
                columns = [table.column(n).to_numpy() for n in range(6)]
                stamps = midnight + columns[0].astype(np.int64) * 1_000_000
                prices = [np.rint(column * 1e9).astype(np.int64) for column in columns[1:5]]
                month = name.removesuffix(".csv").rsplit("_", 1)[1]
                contract = contract_of("ES", int(month[:4]), int(month[4:]))
                parts.append(Bars.build(stamps, *prices, columns[5].astype(np.int64), contract))
    return Bars.concat(parts)


def es_days(real_data: Path) -> Bars:
    """ES daily bars of autumn 2013, UTC days."""
    parts = []
    with zipfile.ZipFile(real_data / "lean_es" / "daily" / "es_trade.zip") as opened:
        for name in opened.namelist():
            month = name.removesuffix(".csv").rsplit("_", 1)[1]
            rows = [line.split(",") for line in opened.read(name).decode().splitlines() if line.startswith("2013")]
            if not rows:
                continue
            stamps = [to_ns(datetime.strptime(row[0], "%Y%m%d %H:%M").replace(tzinfo=UTC)) for row in rows]
            prices = [[int(Decimal(row[n]) * 10**9) for row in rows] for n in range(1, 5)]
            contract = contract_of("ES", int(month[:4]), int(month[4:]))
            parts.append(Bars.build(stamps, *prices, [int(row[5]) for row in rows], contract))
    return Bars.concat(parts)


@pytest.mark.real_data
def test_the_volume_hand_over_of_december_2013(real_data: Path) -> None:
    """ESH4 traded more than ESZ3 for the first time on Friday the 13th: the series changes on Monday the 16th."""
    bars = es_days(real_data)
    by_day = {
        (int(ts), bars.contracts[code]): int(volume)
        for ts, code, volume in zip(bars.ts_open, bars.contract, bars.volume, strict=True)
    }
    overtaken = [
        ts for ts in sorted(set(bars.ts_open.tolist())) if by_day.get((ts, H), 0) > by_day.get((ts, "ESZ3"), 0)
    ]
    full = [ts for ts in overtaken if datetime.fromtimestamp(ts // 10**9, UTC).weekday() < 5]
    assert datetime.fromtimestamp(full[0] // 10**9, UTC).date() == date(2013, 12, 13)
    result = stitch(bars, ES, "ES.v.0", sessions_of(bars))
    [step] = result.steps
    assert (step.from_contract, step.to_contract, step.basis) == ("ESZ3", H, "same_time")
    assert datetime.fromtimestamp(step.ts_ns // 10**9, UTC).date() == date(2013, 12, 16)
    assert step.step_nanos == -25 * TICK  # -6.25


@pytest.mark.real_data
def test_the_roll_by_expiry_is_the_one_of_a_second_source(real_data: Path) -> None:
    """LEAN maps ESZ3 until 2013-12-19 and adjusts by -6.75: the same day, and the same step within four ticks."""
    lines = (real_data / "lean_es" / "meta" / "es_factor.csv").read_text().splitlines()
    scales = {
        row["Date"][:10]: Decimal(str(row["BackwardsPanamaCanalScale"][0]))
        for row in map(json.loads, lines)
        if row["DataMappingMode"] == 0
    }
    theirs = scales["2013-12-19"] - scales["2014-03-20"]
    for bars in (es_days(real_data), es_minutes(real_data)):
        result = stitch(bars, ES, "ES.c.0", sessions_of(bars))
        [step] = result.steps
        assert (step.from_contract, step.to_contract, step.basis) == ("ESZ3", H, "same_time")
        assert step.step_nanos is not None
        assert abs(Decimal(step.step_nanos) / 10**9 - theirs) <= Decimal(1)
        last = max(day for day, contract in result.choices if contract == "ESZ3")
        assert last in (20131218, 20131219)  # no minutes of the 19th
        assert min(day for day, contract in result.choices if contract == H) == 20131220


@pytest.mark.real_data
def test_real_minutes_roll_without_a_step_in_the_signals(real_data: Path) -> None:
    bars = es_minutes(real_data)
    sessions = sessions_of(bars)
    result = stitch(bars, ES, "ES.v.0", sessions)
    arrays = build_arrays(result.bars, ES, sessions, result.steps)
    at = int(np.flatnonzero(np.diff(arrays.contract))[0]) + 1
    [step] = result.steps
    assert step.step_nanos is not None
    ticks = step.step_nanos // TICK
    assert ticks == -25
    assert int(arrays.open[at] - arrays.signal_open[at]) == ticks
    assert int(arrays.close[at - 1] - arrays.signal_close[at - 1]) == 0
    assert last_trading_day("ES", 2013, 12) == date(2013, 12, 20)
