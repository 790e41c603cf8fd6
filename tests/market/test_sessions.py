"""Sessions: hours, holidays, daylight saving, dated overrides; what a bar slot is."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from blaid_pipelines.market.bars import DAY_NS, MINUTE_NS, to_ns
from blaid_pipelines.market.sessions import Sessions, load_sessions
from blaid_pipelines.reasons import StopAndFix

EQUITY = "CME Globex Equity"


def utc(text: str) -> int:
    return to_ns(datetime.fromisoformat(text).replace(tzinfo=UTC))


def around(calendar: str, day: str) -> Sessions:
    return load_sessions(calendar, utc(f"{day} 12:00"), utc(f"{day} 12:01"))


@pytest.mark.parametrize(
    ("calendar", "day", "opens", "closes"),
    [
        (EQUITY, "2024-01-10", "2024-01-09 23:00", "2024-01-10 22:00"),
        (EQUITY, "2026-03-09", "2026-03-08 22:00", "2026-03-09 21:00"),  # daylight saving began the day before
        (EQUITY, "2026-11-26", "2026-11-25 23:00", "2026-11-26 18:00"),  # Thanksgiving, 12:00 CT
        (EQUITY, "2026-11-27", "2026-11-26 23:00", "2026-11-27 18:15"),
        (EQUITY, "2026-12-24", "2026-12-23 23:00", "2026-12-24 18:15"),
        (EQUITY, "2026-06-19", "2026-06-18 22:00", "2026-06-19 17:00"),  # Juneteenth, 12:00 CT
        (EQUITY, "2026-04-03", "2026-04-02 22:00", "2026-04-03 13:15"),  # Good Friday, 08:15 CT
        ("CMEGlobex_CL", "2026-11-26", "2026-11-25 23:00", "2026-11-26 19:30"),
        ("CMEGlobex_GC", "2026-12-24", "2026-12-23 23:00", "2026-12-24 18:45"),
        ("CMEGlobex_FX", "2024-01-15", "2024-01-14 23:00", "2024-01-15 22:00"),
        ("CME Globex Interest Rate Products", "2026-11-27", "2026-11-26 23:00", "2026-11-27 18:15"),
        (EQUITY, "2013-10-08", "2013-10-07 22:00", "2013-10-08 21:15"),  # closed at 16:15 CT then
        (EQUITY, "2013-09-02", "2013-09-01 22:00", "2013-09-02 15:30"),  # Labor Day: no regular close, no override
        (EQUITY, "2020-01-06", "2020-01-05 23:00", "2020-01-06 22:00"),
    ],
)
def test_hours(calendar: str, day: str, opens: str, closes: str) -> None:
    sessions = around(calendar, day)
    assert (sessions.open_ns[0], sessions.close_ns[0]) == (utc(opens), utc(closes))
    assert sessions.session_date[0] == int(day.replace("-", ""))


@pytest.mark.parametrize(("day", "halted"), [("2013-10-08", True), ("2020-01-06", True), ("2021-06-28", False)])
def test_the_afternoon_halt_of_equity_futures_is_history(day: str, halted: bool) -> None:
    sessions = around(EQUITY, day)
    in_halt = np.array([utc(f"{day} 15:20") + (6 if day.startswith("2020") else 5) * 60 * MINUTE_NS])
    assert sessions.is_open(in_halt).tolist() == [not halted]
    assert sessions.session_of(in_halt).tolist() == [0], "a halt is inside its session"


def test_the_daily_break_and_the_weekend_are_outside() -> None:
    sessions = load_sessions(EQUITY, utc("2024-02-02 00:00"), utc("2024-02-06 00:00"))
    moments = np.array([utc(f"2024-02-0{at}") for at in ("2 21:59", "2 22:00", "3 12:00", "4 22:59", "4 23:00")])
    assert sessions.session_of(moments).tolist() == [0, -1, -1, -1, 1]
    assert sessions.is_open(moments).tolist() == [True, False, False, False, True]


def test_the_last_bar_of_a_session_is_the_last_there_is() -> None:
    sessions = load_sessions(EQUITY, utc("2024-02-05 00:00"), utc("2024-02-07 00:00"))
    bars = np.array([utc(f"2024-02-0{at}") for at in ("5 21:40", "5 21:50", "5 22:30", "6 09:00", "6 21:59")])
    assert sessions.last_bar_flags(bars).tolist() == [False, True, False, False, True]


@pytest.mark.parametrize(("minutes", "slots"), [(1, 1380), (60, 23)])
def test_expected_slots_of_one_session(minutes: int, slots: int) -> None:
    sessions = around(EQUITY, "2024-01-10")
    found, owner, market = sessions.expected_slots(
        utc("2024-01-09 00:00"), utc("2024-01-11 00:00"), minutes * MINUTE_NS
    )
    assert len(found) == slots
    assert set(owner.tolist()) == {0}
    assert int(market.sum()) == 1380 * MINUTE_NS


def test_daily_slots_are_utc_days_sundays_included() -> None:
    start, end = utc("2024-01-05 00:00"), utc("2024-01-09 00:00")
    slots, _, market = load_sessions(EQUITY, start, end).expected_slots(start, end, DAY_NS)
    days = [str(day) for day in slots.astype("datetime64[ns]").astype("datetime64[D]")]
    assert days == ["2024-01-05", "2024-01-07", "2024-01-08"]
    assert (market // MINUTE_NS).tolist() == [1320, 60, 1380]


def test_an_unknown_calendar_is_an_error() -> None:
    with pytest.raises(StopAndFix, match="INSTRUMENT_MISMATCH"):
        load_sessions("CME_Globex_Equity", utc("2024-01-05 00:00"), utc("2024-01-09 00:00"))


def test_an_empty_range_has_no_sessions() -> None:
    sessions = load_sessions(EQUITY, 5, 5)
    assert len(sessions) == 0
    assert sessions.is_open(np.array([1])).tolist() == [False]
    assert sessions.session_of(np.array([1])).tolist() == [-1]


@pytest.mark.real_data
def test_real_trades_of_2013_and_2020_happen_in_open_market_alone(real_data: Path) -> None:
    checked = 0
    for archive in sorted((real_data / "lean_es" / "minute").glob("*.zip")):
        midnight = utc(f"{archive.name[:4]}-{archive.name[4:6]}-{archive.name[6:8]} 00:00")
        with zipfile.ZipFile(archive) as opened:
            for name in opened.namelist():
                with opened.open(name) as file:
                    options = pacsv.ReadOptions(autogenerate_column_names=True)
                    millis = pacsv.read_csv(file, options).column(0).to_numpy()
                times = midnight + millis * 1_000_000
                sessions = load_sessions(EQUITY, int(times[0]), int(times[-1]) + 1)
                assert sessions.is_open(times).all(), f"{archive.name} {name}"
                checked += len(times)
    assert checked > 20_000


@pytest.mark.real_data
def test_the_labor_day_halt_of_2013_is_a_gap_that_is_expected(real_data: Path) -> None:
    table = pq.read_table(real_data / "es_ticks" / "es_1m_derived.parquet")
    import pandas as pd

    stamps = pd.DatetimeIndex(table.column("DateTime").to_pandas()).tz_localize("America/Chicago").as_unit("ns").asi8
    times = np.asarray(stamps, np.int64)
    sessions = load_sessions(EQUITY, int(times[0]), int(times[-1]) + MINUTE_NS)
    slots, _, _ = sessions.expected_slots(int(times[0]), int(times[-1]) + MINUTE_NS, MINUTE_NS)
    assert np.isin(times, slots).all()
    assert len(slots) - len(times) < 60, "the seven-hour halt is not among what is missing"
