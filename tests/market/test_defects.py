"""Every defect that real files show, by name, with the reason code it gives; and what looks like one and is none.

On the real file where there is one, planted in real or clean bars otherwise. Planted families at the end: any one of
them turns PASS into FAIL, and clean series of several instruments and seeds pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blaid_pipelines.market.bars import DAY_NS, MINUTE_NS, MISSING, Bars, bar_nanos, from_ns, to_ns
from blaid_pipelines.market.expiry import contract_of, expiry_ns
from blaid_pipelines.market.gate.quality import QualityReport, evaluate
from blaid_pipelines.market.instruments import InstrumentSpec
from blaid_pipelines.market.intake.files import read_file
from blaid_pipelines.market.intake.reading import Ask
from blaid_pipelines.market.intake.trades import longer_bars
from blaid_pipelines.market.reconcile.daily import compare_daily
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.policy.load import load_policy
from blaid_pipelines.reasons import ReasonCode
from tests.market.helpers import EURO_CSV, MES, THRESHOLDS, changed

LATER = datetime(2026, 6, 1, tzinfo=UTC)
ES = replace(MES, symbol="ES")
EURO = replace(
    MES,
    symbol="6E",
    tick_size=Decimal("0.00005"),
    tick_nanos=50_000,
    session="CMEGlobex_FX",
    price_low=Decimal("0.5"),
    price_high=Decimal("2.5"),
)
NOTE = replace(
    MES,
    symbol="ZN",
    tick_size=Decimal("0.015625"),
    tick_nanos=15_625_000,
    session="CME Globex Interest Rate Products",
    price_low=Decimal(50),
    price_high=Decimal(250),
)
CRUDE = replace(
    MES,
    symbol="CL",
    tick_size=Decimal("0.01"),
    tick_nanos=10_000_000,
    session="CMEGlobex_CL",
    price_low=Decimal(-100),
    price_high=Decimal(400),
    may_be_negative=True,
)
FEW = THRESHOLDS.model_copy(update={"min_bars": 5})
PRICES = ("open", "high", "low", "close")
WEEK_2013 = ("20131006", "20131007", "20131008", "20131009", "20131010", "20131011")


def judged(
    bars: Bars,
    spec: InstrumentSpec,
    schema: str = "ohlcv-1m",
    one_contract: bool = True,
    covered: tuple[datetime, datetime] | None = None,
) -> QualityReport:
    """The gate's report on bars that answer for the time from the first to the last of them."""
    bars = bars.ordered()
    if covered is None:
        covered = from_ns(int(bars.ts_open[0])), from_ns(int(bars.ts_open[-1]) + bar_nanos(schema))
    few = THRESHOLDS if len(bars) >= THRESHOLDS.min_bars else FEW
    return evaluate(bars, spec, few, LATER, covered, schema, one_contract)


def codes(report: QualityReport) -> set[ReasonCode]:
    assert (report.status == "PASS") == (not report.reasons)
    return {reason.code for reason in report.reasons}


def numbers(report: QualityReport, check: str) -> dict[str, object]:
    return next(dict(result.numbers) for result in report.checks if result.name == check)


@lru_cache(maxsize=1)
def euro(folder: Path) -> Bars:
    """The real 6EH4 of January 2024, stamps moved from close to open."""
    return read_file(folder / EURO_CSV, Ask("6EH4", stamp="close", tz="UTC")).bars.ordered()


@lru_cache(maxsize=1)
def labor_day(folder: Path, tz: str = "America/Chicago") -> Bars:
    """Real ES bars of 2013-09-01 to 09-03, made from ticks by their publisher; stamps are naive US Central."""
    return read_file(folder / "es_ticks" / "es_1m_derived.parquet", Ask("ESU3", stamp="open", tz=tz)).bars.ordered()


def lean(folder: Path, days: tuple[str, ...], contract: str | None = None) -> Bars:
    """Real ES minute bars of some days, all contracts or one."""
    paths = [folder / "lean_es" / "minute" / f"{day}_trade.zip" for day in days]
    bars = Bars.concat(read_file(path, Ask(contract or "ES.c.0", stamp="open", tz="UTC")).bars for path in paths)
    return bars if contract is None else only(bars, contract)


def lean_daily(folder: Path, contract: str) -> Bars:
    path = folder / "lean_es" / "daily" / "es_trade.zip"
    return only(read_file(path, Ask(contract, "ohlcv-1d", stamp="open", tz="UTC")).bars, contract)


def only(bars: Bars, contract: str) -> Bars:
    return bars.take(bars.contract == bars.contracts.index(contract)).ordered()


def day_of(bars: Bars) -> np.ndarray:
    return bars.ts_open // DAY_NS


def utc(text: str) -> int:
    return to_ns(datetime.fromisoformat(text).replace(tzinfo=UTC))


# the table of defects, row by row


@pytest.mark.real_data
def test_the_same_time_twice_with_different_prices(real_data: Path) -> None:
    bars = euro(real_data)
    other = changed(bars.take([5000]), 0, close=int(bars.low[5000]))
    report = judged(Bars.concat([bars, other]), EURO)
    assert codes(report) == {ReasonCode.DUPLICATE_KEY}
    [reason] = report.reasons
    assert len(reason.numbers["bars"]) == 2
    assert len(set(reason.numbers["bars"])) == 2


@pytest.mark.real_data
def test_several_instruments_at_one_time_have_the_time_and_the_instrument_as_key(real_data: Path) -> None:
    bars = lean(real_data, ("20131202", "20131203"))
    assert len(bars.contracts) > 1
    assert ReasonCode.DUPLICATE_KEY not in codes(judged(bars, ES, one_contract=False))
    assert ReasonCode.DUPLICATE_KEY in codes(judged(bars, ES)), "as one series they are not one contract at a time"
    again = Bars.concat([bars, bars.take([100])])
    assert ReasonCode.DUPLICATE_KEY in codes(judged(again, ES, one_contract=False))


@pytest.mark.real_data
def test_a_day_that_is_a_copy_of_the_day_before(real_data: Path) -> None:
    bars = euro(real_data)
    tuesday, wednesday = utc("2024-01-15T23:00"), utc("2024-01-16T23:00")
    copy = bars.slice(tuesday, wednesday)
    kept = bars.take((bars.ts_open < wednesday) | (bars.ts_open >= wednesday + DAY_NS))
    report = judged(Bars.concat([kept, replace(copy, ts_open=copy.ts_open + DAY_NS)]), EURO)
    assert codes(report) == {ReasonCode.COPIED_SESSION}


@pytest.mark.real_data
def test_minute_volume_that_does_not_add_up_to_daily_volume(real_data: Path) -> None:
    minutes, daily = lean(real_data, ("20200105", "20200106"), "ESH0"), lean_daily(real_data, "ESH0")
    halved = replace(minutes, volume=minutes.volume // 2)
    sessions = load_sessions(ES.session, int(daily.ts_open[0]), int(daily.ts_open[-1]) + DAY_NS)
    found = compare_daily(halved, daily, sessions, load_policy().reconciliation, tick_nanos=ES.tick_nanos)
    assert found.status == "FAIL"
    assert {reason.code for reason in found.reasons} == {ReasonCode.VOLUME_DIFFERS}
    assert "VOLUME" not in "".join(codes(judged(halved, ES))), "the bars alone do not show it"


@pytest.mark.real_data
def test_partial_sunday_bars_in_daily_data(real_data: Path) -> None:
    bars = lean_daily(real_data, "ESZ3")
    report = judged(bars, ES, "ohlcv-1d")
    assert codes(report) == {ReasonCode.NO_SESSION_DATE}
    assert numbers(report, "session_dates")["unexpected_count"] == 6
    sunday = np.array([from_ns(int(stamp)).weekday() == 6 for stamp in bars.ts_open])
    assert codes(judged(bars.take(~sunday), ES, "ohlcv-1d")) == set()


@pytest.mark.real_data
def test_utc_days_taken_for_session_days(real_data: Path) -> None:
    minutes = euro(real_data)
    days = longer_bars(minutes, DAY_NS)
    report = judged(days, EURO, "ohlcv-1d")
    assert ReasonCode.NO_SESSION_DATE in codes(report)
    assert "2024-01-07T00:00:00+00:00" in numbers(report, "session_dates")["first_at"]  # type: ignore[operator]


@pytest.mark.real_data
def test_prices_a_hundred_times_too_large(real_data: Path) -> None:
    path = real_data / "dbn_codec_tests" / "test_data.ohlcv-1m.v3.dbn.zst"
    bars = read_file(path, Ask("ESH1")).bars
    assert codes(evaluate_few(bars, ES)) == {ReasonCode.PRICE_SCALE}


def evaluate_few(bars: Bars, spec: InstrumentSpec) -> QualityReport:
    """Bars of a file with two or three of them: how many there are is not the question."""
    fewest = THRESHOLDS.model_copy(update={"min_bars": 1})
    covered = from_ns(int(bars.ts_open[0])), from_ns(int(bars.ts_open[-1]) + MINUTE_NS)
    return evaluate(bars, spec, fewest, LATER, covered)


@pytest.mark.real_data
def test_prices_off_the_tick_grid_as_adjusted_series_have_them(real_data: Path) -> None:
    bars = euro(real_data)
    adjusted = replace(bars, **{name: getattr(bars, name) * 1007 // 1000 for name in PRICES})
    assert ReasonCode.OFF_TICK_GRID in codes(judged(adjusted, EURO))
    assert ReasonCode.OFF_TICK_GRID in codes(judged(index_days(real_data), ES, "ohlcv-1d")), "an index is no future"


def index_days(folder: Path) -> Bars:
    """The S&P 500 itself, 2015 to 2018, as if it were the future."""
    import pandas as pd

    frame = pd.read_csv(folder / "index_daily_arch" / "sp500.csv.gz")
    stamps = pd.to_datetime(frame["Date"]).to_numpy().astype("datetime64[ns]").astype(np.int64)
    recent = stamps >= utc("2016-01-04T00:00")
    prices = [np.rint(frame[name.title()].to_numpy() * 1e9).astype(np.int64)[recent] for name in PRICES]
    volume = frame["Volume"].to_numpy().astype(np.int64)[recent]
    names = [contract_of("ES", from_ns(int(stamp)).year + 1, 12) for stamp in stamps[recent]]
    return Bars.build(stamps[recent], *prices, volume, names)


@pytest.mark.real_data
def test_zero_volume_bars_in_a_deferred_contract(real_data: Path) -> None:
    deferred = lean(real_data, WEEK_2013, "ESH4")
    report = judged(deferred, ES)
    assert ReasonCode.VOLUME_INVALID in codes(report)
    assert numbers(report, "zero_volume")["unexpected_count"] == 38
    assert ReasonCode.VOLUME_INVALID not in codes(judged(lean(real_data, WEEK_2013, "ESZ3"), ES))


@pytest.mark.real_data
def test_quotes_after_expiry_with_the_last_trade_frozen(real_data: Path) -> None:
    bars = lean(real_data, ("20131220",), "ESZ3")
    last = expiry_ns("ES", "ESZ3", date(2013, 12, 20))
    assert codes(judged(bars, ES)) == {ReasonCode.TOO_MUCH_MISSING}, "thin on its last day, and on time"
    after = bars.take(np.full(90, len(bars) - 1))
    frozen = replace(after, ts_open=last + MINUTE_NS * np.arange(90, dtype=np.int64), volume=np.zeros(90, np.int64))
    report = judged(Bars.concat([bars, frozen]), ES)
    assert {ReasonCode.CONTRACT_EXPIRED, ReasonCode.FROZEN_FEED, ReasonCode.VOLUME_INVALID} <= codes(report)
    assert numbers(report, "after_expiry")["first_at"][0] == "2013-12-20T14:30:00+00:00"  # type: ignore[index]


def crude_days(folder: Path) -> Bars:
    """Settlements of CLK0, the contract that fell below zero, from its first day in front to its last."""
    import pandas as pd

    frame = pd.read_parquet(folder / "rtl_cl_ho" / "cl_ho_settle_2007_2025.parquet")
    frame = frame[(frame["series"] == "CL01") & (frame["date"] >= "2020-03-23") & (frame["date"] <= "2020-04-21")]
    stamps = frame["date"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    settled = np.rint(frame["value"].to_numpy() * 1e9).astype(np.int64)
    return Bars.build(stamps, settled, settled, settled, settled, np.full(len(stamps), 1000), "CLK0")


@pytest.mark.real_data
def test_a_price_below_zero_is_real_and_zero_on_a_sunday_is_not(real_data: Path) -> None:
    bars = crude_days(real_data)
    assert int(bars.close.min()) == -37_630_000_000
    assert from_ns(int(bars.ts_open[bars.close.argmin()])).date() == date(2020, 4, 20)
    assert codes(judged(bars, CRUDE, "ohlcv-1d")) == set()
    zero = changed(bars.take([0]), 0, ts_open=utc("2020-04-19T00:00"), open=0, high=0, low=0, close=0)
    report = judged(Bars.concat([bars, zero]), CRUDE, "ohlcv-1d")
    assert codes(report) == {ReasonCode.PLACEHOLDER_PRICE, ReasonCode.NO_SESSION_DATE}


@pytest.mark.real_data
def test_a_gap_inside_a_session_is_a_defect_and_the_holiday_halt_is_none(real_data: Path) -> None:
    bars = labor_day(real_data)
    assert len(bars) == 2264
    assert codes(judged(bars, ES)) == set()
    on_labor_day = bars.slice(utc("2013-09-02T14:00"), utc("2013-09-02T23:00"))
    halted = np.diff(on_labor_day.ts_open).max() // MINUTE_NS
    assert halted > 5 * 60, "closed from 10:30 to 17:00 US Central"
    hole = (bars.ts_open >= utc("2013-09-03T14:00")) & (bars.ts_open < utc("2013-09-03T14:31"))
    assert codes(judged(bars.take(~hole), ES)) == {ReasonCode.SESSION_GAP}


@pytest.mark.real_data
def test_stamps_at_the_close_taken_for_the_open(real_data: Path) -> None:
    bars = read_file(real_data / EURO_CSV, Ask("6EH4", stamp="open", tz="UTC")).bars
    assert ReasonCode.OUTSIDE_SESSION in codes(judged(bars, EURO))
    assert codes(judged(euro(real_data), EURO)) == set()


@pytest.mark.real_data
def test_naive_chicago_times_taken_for_utc(real_data: Path) -> None:
    assert ReasonCode.OUTSIDE_SESSION in codes(judged(labor_day(real_data, "UTC"), ES))


@pytest.mark.real_data
def test_a_roll_is_a_step_and_a_hand_over_of_volume_and_passes(real_data: Path) -> None:
    old, new = lean_daily(real_data, "ESZ3"), lean_daily(real_data, "ESH4")
    rolled_at = utc("2013-12-13T00:00")
    at = {name: int(bars.volume[bars.ts_open == rolled_at][0]) for name, bars in (("Z3", old), ("H4", new))}
    assert at["H4"] > at["Z3"]
    series = Bars.concat([old.slice(0, rolled_at), new.slice(rolled_at, utc("2013-12-27T00:00"))])
    weekday = np.array([from_ns(int(stamp)).weekday() < 5 for stamp in series.ts_open])
    report = judged(series.take(weekday), ES, "ohlcv-1d")
    assert codes(report) == set()
    rolls = numbers(report, "roll_steps")
    assert rolls["rolls"] == 1
    assert rolls["largest_rolls"][0].startswith("2013-12-13T00:00:00+00:00 ESZ3 to ESH4: ")  # type: ignore[index]
    back = Bars.concat([new.slice(0, rolled_at), old.slice(rolled_at, utc("2013-12-20T00:00"))])
    weekday = np.array([from_ns(int(stamp)).weekday() < 5 for stamp in back.ts_open])
    assert ReasonCode.ROLL_BACKWARD in codes(judged(back.take(weekday), ES, "ohlcv-1d"))


# what looks like a defect and is real; and one that hides in a real file


@pytest.mark.real_data
def test_equal_ticks_keep_their_volume(real_data: Path) -> None:
    import pandas as pd

    path = real_data / "es_ticks" / "es_ticks_20130901_20130903.csv.gz"
    raw = pd.read_csv(path)
    assert int(raw.duplicated().sum()) == 305_809
    ticks = read_file(path, Ask("ESU3", tz="America/Chicago", content="trades")).bars
    bars = longer_bars(ticks, MINUTE_NS)
    assert int(bars.volume.sum()) == int(raw["Volume"].sum())
    assert codes(judged(bars, ES)) == set()
    published = labor_day(real_data)
    assert all(np.array_equal(getattr(bars, name), getattr(published, name)) for name in ("ts_open", *PRICES, "volume"))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("days", "contract"),
    [
        (WEEK_2013, "ESZ3"),
        (("20131014",), "ESZ3"),
        (("20131029", "20131030"), "ESZ3"),
        (("20131118",), "ESZ3"),
        (("20131202", "20131203"), "ESZ3"),
        (("20131220",), "ESH4"),
        (("20200105", "20200106"), "ESH0"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_real_days_with_the_afternoon_halt_pass(real_data: Path, days: tuple[str, ...], contract: str) -> None:
    bars = lean(real_data, days, contract)
    report = judged(bars, ES)
    assert codes(report) == set()
    if len(days) > 1:
        assert numbers(report, "missing_time")["worst"] < 3  # type: ignore[operator]


@pytest.mark.real_data
@pytest.mark.parametrize("contract", ["ESZ3", "ESH4"])
def test_a_bar_after_the_halt_that_repeats_the_session_s_extremes_is_a_spike(real_data: Path, contract: str) -> None:
    """A defect of the file: 17 minutes after 1810.50, one bar of 15:30 to 15:31 has the high and low of the session."""
    bars = lean(real_data, ("20131218",), contract)
    row = int(np.flatnonzero(bars.ts_open == utc("2013-12-18T21:30"))[0])
    before = bars.slice(utc("2013-12-17T23:00"), utc("2013-12-18T21:15"))
    assert (int(bars.high[row]), int(bars.low[row])) == (int(before.high.max()), int(before.low.min()))
    report = judged(bars, ES)
    assert codes(report) == {ReasonCode.PRICE_SPIKE}
    assert numbers(report, "price_spikes")["first_at"] == ["2013-12-18T21:30:00+00:00"]


@pytest.mark.real_data
def test_quiet_nights_and_holidays_of_the_euro_pass(real_data: Path) -> None:
    report = judged(euro(real_data), EURO)
    assert codes(report) == set()
    assert numbers(report, "identical_bars")["worst"] == 3
    assert numbers(report, "unchanged_prices")["worst"] == 7
    assert numbers(report, "price_spikes")["largest_wick_at"] == "2024-01-31T19:00:00+00:00"


@pytest.mark.real_data
@pytest.mark.parametrize("pct", [5, -5])
def test_a_wick_of_5_pct_planted_in_real_bars_is_a_spike(real_data: Path, pct: int) -> None:
    for bars, spec in ((euro(real_data), EURO), (labor_day(real_data), ES)):
        row = len(bars) // 2
        column = "high" if pct > 0 else "low"
        away = int(getattr(bars, column)[row]) * (100 + pct) // 100 // spec.tick_nanos * spec.tick_nanos
        assert codes(judged(changed(bars, row, **{column: away}), spec)) == {ReasonCode.PRICE_SPIKE}


@pytest.mark.real_data
def test_open_and_close_swapped_in_real_bars(real_data: Path) -> None:
    for bars, spec in ((euro(real_data), EURO), (labor_day(real_data), ES)):
        other_way = replace(bars, open=bars.close, close=bars.open)
        assert codes(judged(other_way, spec)) == {ReasonCode.OPEN_CLOSE_SWAPPED}


def test_an_early_close_is_no_gap() -> None:
    """The day after Thanksgiving 2023 closed at 12:15 US Central."""
    start, end = datetime(2023, 11, 22, 23, tzinfo=UTC), datetime(2023, 11, 27, 22, tzinfo=UTC)
    bars = walk(MES, "MESZ3", start, end, 3)
    assert codes(judged(bars, MES, covered=(start, end))) == set()
    assert len(bars.slice(utc("2023-11-24T18:15"), utc("2023-11-24T23:00"))) == 0
    cut = bars.take((bars.ts_open < utc("2023-11-24T17:30")) | (bars.ts_open >= utc("2023-11-26T00:00")))
    assert codes(judged(cut, MES, covered=(start, end))) == {ReasonCode.SESSION_GAP}


# families of defects in clean series


def walk(spec: InstrumentSpec, contract: str, start: datetime, end: datetime, seed: int, thin: int = 0) -> Bars:
    """A random walk on the grid of ``spec``, a bar a minute of open market; ``thin`` per cent of them left out."""
    sessions = load_sessions(spec.session, to_ns(start), to_ns(end))
    slots, _, _ = sessions.expected_slots(to_ns(start), to_ns(end), MINUTE_NS)
    chance = np.random.default_rng(seed)
    slots = slots[chance.integers(0, 100, len(slots)) >= thin]
    count = len(slots)
    gap, body = chance.integers(-1, 2, count), chance.integers(-4, 5, count)
    middle = int((spec.price_low + spec.price_high) / 4 / spec.tick_size)
    close = middle + np.cumsum(gap + body)
    opens = close - body
    high = np.maximum(opens, close) + chance.integers(0, 3, count)
    low = np.minimum(opens, close) - chance.integers(0, 3, count)
    ticks = (column * spec.tick_nanos for column in (opens, high, low, close))
    return Bars.build(slots, *ticks, chance.integers(1, 500, count), contract)


SPAN = datetime(2024, 2, 5, 23, tzinfo=UTC), datetime(2024, 2, 7, 22, tzinfo=UTC)


def bouncing(start: datetime, end: datetime, seed: int) -> Bars:
    """Three trades a minute at bid or ask, around a price that moves 0.1 ticks a minute."""
    sessions = load_sessions(MES.session, to_ns(start), to_ns(end))
    slots, _, _ = sessions.expected_slots(to_ns(start), to_ns(end), MINUTE_NS)
    chance = np.random.default_rng(seed)
    trades = chance.poisson(3, len(slots))
    slots, trades = slots[trades > 0], trades[trades > 0]
    middle = np.cumsum(chance.normal(0, 0.1 / np.sqrt(3), trades.sum()))
    prices = (np.floor(20_000 + middle).astype(np.int64) + chance.integers(0, 2, trades.sum())) * MES.tick_nanos
    first = np.cumsum(trades) - trades
    high, low = np.maximum.reduceat(prices, first), np.minimum.reduceat(prices, first)
    return Bars.build(slots, prices[first], high, low, prices[first + trades - 1], trades, "MESH4")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_thin_contract_that_bounces_between_bid_and_ask_passes(seed: int) -> None:
    bars = bouncing(datetime(2024, 1, 2, 23, tzinfo=UTC), datetime(2024, 3, 1, 22, tzinfo=UTC), seed)
    report = judged(bars, MES)
    assert ReasonCode.OPEN_CLOSE_SWAPPED not in codes(report)
    assert float(str(numbers(report, "open_close_order")["worst_session_ratio"])) > 0.9
    quick = walk(MES, "MESH4", *SPAN, seed, thin=70)  # a third of its minutes have a bar
    assert codes(judged(replace(quick, open=quick.close, close=quick.open), MES)) >= {ReasonCode.OPEN_CLOSE_SWAPPED}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("spec", "contract"),
    [(MES, "MESH4"), (EURO, "6EH4"), (NOTE, "ZNH4"), (CRUDE, "CLJ4")],
    ids=lambda value: str(value)[:5],
)
def test_clean_series_pass(spec: InstrumentSpec, contract: str, seed: int) -> None:
    report = judged(walk(spec, contract, *SPAN, seed, thin=5 * seed), spec, covered=SPAN)
    assert codes(report) == set(), [(reason.code, reason.numbers) for reason in report.reasons]


def _cut(bars: Bars, row: int, size: int) -> Bars:
    return bars.take(np.r_[0:row, row + 31 + size : len(bars)])


def _wick(bars: Bars, row: int, size: int) -> Bars:
    up = int(bars.high[row]) * (103 + size) // 100 // MES.tick_nanos * MES.tick_nanos
    down = int(bars.low[row]) * (97 - size % 50) // 100 // MES.tick_nanos * MES.tick_nanos
    return changed(bars, row, high=up) if size % 2 else changed(bars, row, low=down)


def _frozen(bars: Bars, row: int, size: int) -> Bars:
    names = (*PRICES, "volume")
    return changed(bars, slice(row, row + 21 + size), **{name: int(getattr(bars, name)[row]) for name in names})


def _padded(bars: Bars, row: int, size: int) -> Bars:
    return changed(_frozen(bars, row, size + 40), slice(row + 1, row + 60 + size), volume=0)


def _twice(bars: Bars, row: int, size: int) -> Bars:
    again = bars.take([row])
    return Bars.concat([bars, changed(again, 0, close=int(bars.low[row]), volume=size + 1)])


def _foreign(bars: Bars, row: int, size: int) -> Bars:
    return Bars.concat([bars, replace(bars.take(slice(row, row + 1 + size)), contracts=("MESM4",))])


def _swapped(bars: Bars, row: int, size: int) -> Bars:
    session = slice(0, 1380) if row < 1380 else slice(1380, 2760)
    opens, close = bars.open.copy(), bars.close.copy()
    opens[session], close[session] = bars.close[session], bars.open[session]
    return replace(bars, open=opens, close=close)


def _scaled(bars: Bars, row: int, size: int) -> Bars:
    factor = (100, 10, 1000)[size % 3]
    rows = slice(row, row + 1 + size)
    return changed_columns(bars, rows, lambda column: column[rows] * factor)


def changed_columns(bars: Bars, rows: slice, made: Callable[[np.ndarray], np.ndarray]) -> Bars:
    columns = {name: getattr(bars, name).copy() for name in PRICES}
    for column in columns.values():
        column[rows] = made(column)
    return replace(bars, **columns)


FAMILIES: dict[str, tuple[Callable[[Bars, int, int], Bars], set[ReasonCode]]] = {
    "hole": (_cut, {ReasonCode.SESSION_GAP, ReasonCode.STALE_DATA}),
    "wick": (_wick, {ReasonCode.PRICE_SPIKE}),
    "frozen": (_frozen, {ReasonCode.FROZEN_FEED}),
    "padded": (_padded, {ReasonCode.FROZEN_FEED}),
    "twice": (_twice, {ReasonCode.DUPLICATE_KEY}),
    "foreign": (_foreign, {ReasonCode.DUPLICATE_KEY}),
    "swapped": (_swapped, {ReasonCode.OPEN_CLOSE_SWAPPED}),
    "scaled": (_scaled, {ReasonCode.PRICE_SCALE}),
    "off the grid": (
        lambda bars, row, size: changed(bars, row, high=int(bars.high[row]) + 1 + size),
        {ReasonCode.OFF_TICK_GRID},
    ),
    "upside down": (
        lambda bars, row, size: changed(bars, row, low=int(bars.high[row]) + MES.tick_nanos * (1 + size)),
        {ReasonCode.OHLC_ORDER},
    ),
    "no price": (lambda bars, row, size: changed(bars, row, close=MISSING), {ReasonCode.FIELD_MISSING}),
    "zero": (
        lambda bars, row, size: changed(bars, row, open=0, high=0, low=0, close=0),
        {ReasonCode.PRICE_NOT_POSITIVE},
    ),
    "late": (
        lambda bars, row, size: changed(bars, row, ts_open=int(bars.ts_open[row]) + (1 + size % 59) * 1_000_000_000),
        {ReasonCode.OFF_TIME_GRID},
    ),
    "expired": (lambda bars, row, size: replace(bars, contracts=("MESZ3",)), {ReasonCode.CONTRACT_EXPIRED}),
    "of the future": (
        lambda bars, row, size: Bars.concat([bars, changed(bars.take([row]), 0, ts_open=to_ns(LATER) + size * DAY_NS)]),
        {ReasonCode.BAR_NOT_ENDED},
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(row=st.integers(2, 2600), size=st.integers(0, 58), seed=st.integers(0, 2**20))
def test_any_one_planted_defect_turns_pass_into_fail(family: str, row: int, size: int, seed: int) -> None:
    plant, expected = FAMILIES[family]
    bars = walk(MES, "MESH4", *SPAN, seed)
    report = judged(plant(bars, row, size), MES, covered=SPAN)
    assert report.status == "FAIL"
    assert codes(report) & expected, [(reason.code, reason.numbers) for reason in report.reasons]
