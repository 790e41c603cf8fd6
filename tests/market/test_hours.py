"""Hours that held once: regimes and exceptions with their source, held against a second database and real trades."""

from __future__ import annotations

import gzip
import json
import zipfile
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from blaid_pipelines.market.bars import DAY_NS, MINUTE_NS, to_ns
from blaid_pipelines.market.hours import HOURS, REGULAR_CLOSE
from blaid_pipelines.market.sessions import CHICAGO, Sessions, load_sessions
from blaid_pipelines.reasons import ReasonCode, Refused, StopAndFix

EQUITY, ENERGY, METALS, FX = "CME Globex Equity", "CMEGlobex_CL", "CMEGlobex_GC", "CMEGlobex_FX"
RATES = "CME Globex Interest Rate Products"


def chicago(text: str) -> int:
    return to_ns(datetime.fromisoformat(text).replace(tzinfo=CHICAGO).astimezone(UTC))


def session_on(calendar: str, day: str) -> tuple[Sessions, int] | None:
    """The session dated ``day``, however early it opened."""
    eve = date.fromisoformat(day) - timedelta(days=1)
    sessions = load_sessions(calendar, chicago(f"{eve} 16:45"), chicago(f"{day} 23:00"))
    found = np.flatnonzero(sessions.session_date == int(day.replace("-", "")))
    return (sessions, int(found[0])) if len(found) else None


@pytest.mark.parametrize(
    ("calendar", "day", "opens", "closes", "shut"),
    [
        # equity until 2012-11-16: 15:30 to 15:15, Monday to Thursday evenings; 17:00 on Sundays and after holidays
        (EQUITY, "2012-11-14", "2012-11-13 15:30", "15:15", ["2012-11-13 16:30", "2012-11-13 16:59"]),
        (EQUITY, "2012-11-12", "2012-11-11 17:00", "15:15", []),
        (EQUITY, "2012-09-04", "2012-09-03 17:00", "15:15", []),  # after Labor Day
        (EQUITY, "2012-11-16", "2012-11-15 15:30", "15:15", []),  # the last of its kind
        (EQUITY, "2012-10-30", "2012-10-29 17:00", "08:15", []),  # hurricane Sandy
        # equity from 2012-11-19 on
        (EQUITY, "2012-11-19", "2012-11-18 17:00", "16:15", ["2012-11-19 15:15", "2012-11-19 15:29"]),
        (EQUITY, "2013-10-09", "2013-10-08 17:00", "16:15", ["2013-10-09 15:20"]),
        (EQUITY, "2015-09-18", "2015-09-17 17:00", "16:15", ["2015-09-18 15:20"]),
        (EQUITY, "2015-09-21", "2015-09-20 17:00", "16:00", ["2015-09-21 15:20"]),
        (EQUITY, "2021-06-25", "2021-06-24 17:00", "16:00", ["2021-06-25 15:20"]),
        (EQUITY, "2021-06-28", "2021-06-27 17:00", "16:00", []),
        (EQUITY, "2018-12-05", "2018-12-04 17:00", "08:30", []),  # day of mourning
        (EQUITY, "2025-01-09", "2025-01-08 17:00", "08:30", []),
        (ENERGY, "2015-09-18", "2015-09-17 17:00", "16:15", []),
        (METALS, "2015-09-18", "2015-09-17 17:00", "16:15", []),
        (ENERGY, "2015-09-21", "2015-09-20 17:00", "16:00", []),
        (ENERGY, "2013-07-04", "2013-07-03 17:00", "12:15", []),
        (ENERGY, "2019-12-24", "2019-12-23 17:00", "12:45", []),
        (ENERGY, "2024-09-02", "2024-09-01 17:00", "13:30", []),
        (ENERGY, "2025-01-09", "2025-01-08 17:00", "16:00", []),  # no day of mourning for energy
        (FX, "2010-07-02", "2010-07-01 17:00", "15:15", []),
        (FX, "2012-04-06", "2012-04-05 17:00", "10:15", []),  # the calendar has no session here
        (FX, "2026-11-27", "2026-11-26 17:00", "13:45", []),
        (FX, "2026-12-24", "2026-12-23 17:00", "12:45", []),
        (FX, "2025-01-09", "2025-01-08 17:00", "16:00", []),
        (RATES, "2025-01-09", "2025-01-08 17:00", "12:15", []),
        (RATES, "2012-10-30", "2012-10-29 17:00", "16:00", []),
    ],
)
def test_hours_of_their_time(calendar: str, day: str, opens: str, closes: str, shut: list[str]) -> None:
    found = session_on(calendar, day)
    assert found is not None
    sessions, index = found
    assert (sessions.open_ns[index], sessions.close_ns[index]) == (chicago(opens), chicago(f"{day} {closes}"))
    moments = np.array([chicago(text) for text in shut], np.int64)
    assert not sessions.is_open(moments).any()
    assert (sessions.session_of(moments) == index).all()


@pytest.mark.parametrize(
    ("calendar", "day"),
    [
        *((calendar, day) for calendar in (EQUITY, FX, RATES) for day in ("2024-03-29", "2025-04-18")),
        (RATES, "2018-12-05"),
        (ENERGY, "2024-03-29"),
    ],
)
def test_days_without_a_session(calendar: str, day: str) -> None:
    assert session_on(calendar, day) is None


@pytest.mark.parametrize(
    ("calendar", "before", "first"),
    [
        (EQUITY, "2008-12-31", "2009-01-02"),
        (ENERGY, "2008-12-31", "2009-01-02"),
        (FX, "2008-12-31", "2009-01-02"),
        (RATES, "2012-10-29", "2012-10-30"),
    ],
)
def test_what_lies_before_established_hours_is_refused(calendar: str, before: str, first: str) -> None:
    with pytest.raises(Refused) as caught:
        session_on(calendar, before)
    assert caught.value.reason.code is ReasonCode.HOURS_UNKNOWN
    assert caught.value.reason.numbers["first_session"] == before
    start = chicago(f"{first} 00:00")
    assert len(load_sessions(calendar, start, start + MINUTE_NS)) == 1


def test_a_calendar_without_history_is_refused() -> None:
    with pytest.raises(StopAndFix) as caught:
        load_sessions("CMEGlobex_Grains", chicago("2024-02-05 10:00"), chicago("2024-02-05 11:00"))
    assert caught.value.reason.code is ReasonCode.HOURS_UNKNOWN


def test_sessions_never_overlap_and_segments_lie_inside() -> None:
    for calendar in (EQUITY, ENERGY, FX, RATES):
        sessions = load_sessions(calendar, chicago("2012-10-30 12:00"), chicago("2027-12-31 00:00"))
        assert (sessions.open_ns[1:] >= sessions.close_ns[:-1]).all()
        assert (sessions.segment_close_ns > sessions.segment_open_ns).all()
        assert (np.diff(sessions.session_date) > 0).all()
        inside = sessions.segment_session
        assert (sessions.segment_open_ns >= sessions.open_ns[inside]).all()
        assert (sessions.segment_close_ns <= sessions.close_ns[inside]).all()


def test_every_override_has_a_source_and_regimes_do_not_overlap() -> None:
    for hours in HOURS.values():
        assert hours.source
        days = [(regime.first, regime.last) for regime in hours.regimes]
        assert all(regime.source for regime in hours.regimes)
        assert all(first <= last for first, last in days)
        assert all(left[1] < right[0] for left, right in pairwise(days))
        assert all(day >= hours.established for day in hours.exceptions)


# What LEAN's market-hours database lists otherwise, and why the calendar's word was kept.
KEPT = {
    (EQUITY, date(2025, 12, 25)): "LEAN opens on a holiday",
    (RATES, date(2025, 12, 25)): "LEAN opens on a holiday",
    (ENERGY, date(2025, 12, 25)): "LEAN opens on a holiday",
}


# Early closes of ours, until the last that LEAN lists throughout (2026), that it does not list.
_SANDY, _MOURNING = ["2012-10-29", "2012-10-30"], ["2018-12-05", "2025-01-09"]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("entry", "calendar", "agreed", "ours_alone"),
    [
        ("Future-cme-ES", EQUITY, 159, [*_SANDY, *_MOURNING, "2023-07-03", "2024-07-03", "2024-11-29"]),
        ("Future-cbot-YM", EQUITY, 159, [*_SANDY, *_MOURNING, "2023-07-03", "2024-07-03", "2024-11-29"]),
        ("Future-nymex-CL", ENERGY, 159, ["2024-11-29"]),
        ("Future-comex-GC", METALS, 33, ["2024-11-29"]),
        ("Future-cme-6E", FX, 188, ["2024-11-29"]),
        ("Future-cbot-ZN", RATES, 135, ["2024-11-29", "2025-01-09"]),
    ],
)
def test_early_closes_agree_with_a_second_database(
    real_data: Path, entry: str, calendar: str, agreed: int, ours_alone: list[str]
) -> None:
    """Every early close that the other database lists is ours, but for what is kept with a reason."""
    with gzip.open(real_data / "lean_es" / "meta" / "market-hours-database.json.gz") as file:
        listed: dict[str, Any] = json.load(file)["entries"][entry]
    zone = ZoneInfo(listed["exchangeTimeZone"])
    established = min(h.established for h in HOURS.values()) if calendar != RATES else date(2012, 10, 30)
    theirs: dict[date, time] = {}
    for text, wall in listed["earlyCloses"].items():
        day = datetime.strptime(text, "%m/%d/%Y").replace(tzinfo=UTC).date()
        if day >= established:
            moment = datetime.combine(day, time.fromisoformat(wall), zone)
            theirs[day] = moment.astimezone(CHICAGO).time()
    sessions = load_sessions(calendar, chicago(f"{established} 12:00"), chicago("2027-12-31 12:00"))
    ours = {}
    for dated, close_ns in zip(sessions.session_date.tolist(), sessions.close_ns.tolist(), strict=True):
        day = date(dated // 10_000, dated // 100 % 100, dated % 100)
        ours[day] = datetime.fromtimestamp(close_ns // 10**9, CHICAGO).time()
    differing = {day for day, close in theirs.items() if ours.get(day) != close and (calendar, day) not in KEPT}
    assert differing == set()
    assert sum(ours.get(day) == close for day, close in theirs.items()) == agreed
    regular = {REGULAR_CLOSE, time(16, 15), time(15, 15)}
    first, last = min(theirs), date(2026, 12, 31)
    unlisted = [day for day, close in ours.items() if close not in regular and day not in theirs]
    assert [str(day) for day in sorted(unlisted) if first <= day <= last] == sorted(ours_alone)


@pytest.mark.real_data
def test_january_2024_of_the_euro_has_no_bar_outside_and_every_long_gap_is_a_break(real_data: Path) -> None:
    path = next((real_data / "eurofx_6E").glob("*.csv.gz"))
    column = pacsv.read_csv(path).column(0).to_pandas()
    closes = column.astype("datetime64[ns]").to_numpy().astype(np.int64)
    opens = closes - MINUTE_NS  # stamped at the close
    sessions = load_sessions(FX, int(opens[0]), int(opens[-1]) + MINUTE_NS)
    assert sessions.is_open(opens).all()
    slots, _, _ = sessions.expected_slots(int(opens[0]), int(opens[-1]) + MINUTE_NS, MINUTE_NS)
    assert longest_hole(opens, slots) < 30


def longest_hole(times: np.ndarray[Any, Any], slots: np.ndarray[Any, Any]) -> int:
    """Minutes of the longest stretch of open market without a bar."""
    missing = np.setdiff1d(slots, times)
    edges = np.flatnonzero(np.concatenate([[True], np.diff(missing) != MINUTE_NS, [True]]))
    return int(np.diff(edges).max()) if len(missing) else 0


@pytest.mark.real_data
def test_sixteen_days_of_es_have_no_bar_outside_and_no_hole(real_data: Path) -> None:
    """2013 with its halt and its close at 16:15, 2020 with its halt: whole UTC days of the lead contract."""
    bars = 0
    for archive in sorted((real_data / "lean_es" / "minute").glob("*.zip")):
        midnight = to_ns(datetime.strptime(archive.name[:8], "%Y%m%d").replace(tzinfo=UTC))
        with zipfile.ZipFile(archive) as opened:
            days = []
            for name in opened.namelist():
                with opened.open(name) as file:
                    table = pacsv.read_csv(file, pacsv.ReadOptions(autogenerate_column_names=True))
                days.append(midnight + table.column(0).to_numpy().astype(np.int64) * 1_000_000)
        lead = max(days, key=len)
        sessions = load_sessions(EQUITY, midnight, midnight + DAY_NS)
        slots, _, _ = sessions.expected_slots(midnight, midnight + DAY_NS, MINUTE_NS)
        assert all(sessions.is_open(times).all() for times in days)
        assert longest_hole(lead, slots) <= 5, archive.name
        bars += len(lead)
    assert bars > 18_000


@pytest.mark.real_data
def test_labor_day_2013_is_explained(real_data: Path) -> None:
    table = pq.read_table(real_data / "es_ticks" / "es_1m_derived.parquet")
    index = pd.DatetimeIndex(table.column("DateTime").to_pandas()).tz_localize("America/Chicago").as_unit("ns")
    times = np.asarray(index.asi8, np.int64)
    sessions = load_sessions(EQUITY, int(times[0]), int(times[-1]) + MINUTE_NS)
    slots, _, _ = sessions.expected_slots(int(times[0]), int(times[-1]) + MINUTE_NS, MINUTE_NS)
    assert sessions.is_open(times).all()
    assert longest_hole(times, slots) <= 10
