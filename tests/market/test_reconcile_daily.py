"""Minutes against daily bars: what a day is, volume, range, missing days; and the real ES bars of both kinds."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from blaid_pipelines.market.bars import DAY_NS, Bars, to_ns
from blaid_pipelines.market.reconcile import Comparison, ReconciliationThresholds, compare_daily
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.policy.load import load_policy
from blaid_pipelines.reasons import InvalidRequest, ReasonCode
from tests.market.helpers import END, START, TICK, changed, clean_bars

LIMITS: ReconciliationThresholds = load_policy().reconciliation
CALENDAR = "CME Globex Equity"
COVERED = (to_ns(START), to_ns(END))
MINUTES = clean_bars()
SESSIONS = load_sessions(CALENDAR, COVERED[0] - 3 * DAY_NS, COVERED[1] + 3 * DAY_NS)


def daily_of(minutes: Bars, convention: str, contract: str = "MESH4") -> Bars:
    """Daily bars made from minutes by the words of the convention, stamped at midnight UTC of their date."""
    groups: dict[date, list[int]] = {}
    for row, stamp in enumerate(minutes.ts_open.tolist()):
        moment = datetime.fromtimestamp(stamp // 10**9, UTC)
        chicago = moment - timedelta(hours=6)  # February
        day = moment.date() if convention == "utc_day" else (chicago + timedelta(hours=7)).date()
        if convention == "regular" and not (chicago.date() == day and (chicago.hour, chicago.minute) >= (8, 30)):
            continue
        groups.setdefault(day, []).append(row)
    rows = []
    for day, at in sorted(groups.items()):
        part = minutes.take(np.array(at))
        rows.append(
            (
                (day - date(1970, 1, 1)).days * DAY_NS,
                part.open[0],
                part.high.max(),
                part.low.min(),
                part.close[-1],
                part.volume.sum(),
            )
        )
    columns = np.array(rows, np.int64).T
    return Bars.build(*columns, contract)


def compare(
    minutes: Bars, daily: Bars, convention: str = "auto", limits: ReconciliationThresholds = LIMITS
) -> Comparison:
    return compare_daily(minutes, daily, SESSIONS, limits, tick_nanos=TICK, convention=convention, covered=COVERED)


def codes(comparison: Comparison) -> list[ReasonCode]:
    return [reason.code for reason in comparison.reasons]


@pytest.mark.parametrize("convention", ["session", "regular"])
@pytest.mark.parametrize("stated", [True, False])
def test_each_kind_of_daily_bar_is_known(convention: str, stated: bool) -> None:
    found = compare(MINUTES, daily_of(MINUTES, convention), convention if stated else "auto")
    assert (found.status, found.reasons) == ("PASS", ())
    assert found.numbers["convention"] == convention
    assert found.numbers["convention_stated"] is stated
    assert (found.numbers["sessions"], found.numbers["partial"]) == (3, 0)
    assert {day["factor"] for day in found.numbers["worst"]} == {1.0}


def test_a_utc_day_is_not_a_session() -> None:
    daily = daily_of(MINUTES, "utc_day")
    found = compare(MINUTES, daily)
    assert (found.status, found.numbers["convention"], found.numbers["sessions"]) == ("PASS", "utc_day", 2)
    taken_for = compare(MINUTES, daily, "session")
    assert taken_for.status == "FAIL"
    assert "utc_day" in taken_for.reasons[0].message
    assert taken_for.reasons[0].numbers["conventions"]["utc_day"]["range_fits"] == 2


def test_session_bars_stamped_at_their_open_are_of_the_next_day() -> None:
    daily = daily_of(MINUTES, "session")
    opens = SESSIONS.open_ns[np.isin(SESSIONS.session_date, (20240205, 20240206, 20240207))]
    at_open = Bars(opens, daily.open, daily.high, daily.low, daily.close, daily.volume, daily.contract, daily.contracts)
    assert compare(MINUTES, at_open, "session").status == "PASS"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda daily: changed(daily, 1, volume=int(daily.volume[1]) * 2), ReasonCode.VOLUME_DIFFERS),
        (lambda daily: changed(daily, 1, volume=int(daily.volume[1] * 0.8)), ReasonCode.VOLUME_DIFFERS),
        (lambda daily: changed(daily, 1, volume=0), ReasonCode.VOLUME_DIFFERS),
        (lambda daily: changed(daily, 1, high=int(daily.high[1]) + 9 * TICK), ReasonCode.RANGE_DIFFERS),
        (lambda daily: changed(daily, 1, low=int(daily.low[1]) * 100), ReasonCode.RANGE_DIFFERS),
        (lambda daily: changed(daily, 1, volume=-1), ReasonCode.FIELD_MISSING),
        (lambda daily: daily.take(np.array([0, 2])), ReasonCode.BARS_MISSING),
    ],
    ids=["twice", "fifth-short", "none", "range", "scale", "no-volume", "no-day"],
)
def test_a_day_that_differs_is_named(change: object, code: ReasonCode) -> None:
    found = compare(MINUTES, change(daily_of(MINUTES, "session")), "session")  # type: ignore[operator]
    assert (found.status, codes(found)) == ("FAIL", [code])
    assert found.reasons[0].numbers["first"][0]["day"] == "2024-02-06"


def rolling(at: datetime) -> Bars:
    """The minutes as a series that goes from MESH4 to MESM4 at a time."""
    codes = (MINUTES.ts_open >= to_ns(at)).astype(np.int32)
    return replace(MINUTES, contract=codes, contracts=("MESH4", "MESM4"))


def test_a_day_on_which_the_series_rolls_is_not_missing() -> None:
    daily = daily_of(MINUTES, "session")
    leading = replace(daily, contract=np.array([0, 1, 1], np.int32), contracts=("MESH4", "MESM4"))
    found = compare(rolling(datetime(2024, 2, 6, tzinfo=UTC)), leading, "session")
    assert (found.status, found.reasons) == ("PASS", ())
    assert (found.numbers["rolled"], found.numbers["sessions"], found.numbers["without_minutes"]) == (1, 2, 0)


def test_daily_bars_of_contracts_that_the_series_does_not_hold_that_day() -> None:
    minutes = rolling(datetime(2024, 2, 5, 23, tzinfo=UTC))
    both = Bars.concat([daily_of(MINUTES, "session", name) for name in ("MESH4", "MESM4")])
    found = compare(minutes, both, "session")
    assert (found.status, found.numbers["sessions"], found.numbers["rolled"]) == ("PASS", 3, 0)
    # daily bars of another contract than the series holds, and of no other: one of them rolls on the wrong day
    late = both.take(np.array([row for row in range(6) if both.contract[row] == 0]))
    found = compare(minutes, late, "session")
    assert (found.status, codes(found)) == ("FAIL", [ReasonCode.BARS_MISSING])


def test_what_is_within_the_thresholds_passes() -> None:
    daily = daily_of(MINUTES, "session")
    other = changed(daily, 0, high=int(daily.high[0]) + 8 * TICK, volume=int(daily.volume[0] * 1.09))
    assert compare(MINUTES, other, "session").status == "PASS"
    two_off = changed(other, 1, volume=1)
    assert compare(MINUTES, two_off, "session").status == "FAIL"
    third = LIMITS.model_copy(update={"max_differing_sessions_pct": 34.0})
    assert compare(MINUTES, two_off, "session", third).status == "PASS"


def test_a_day_without_minutes() -> None:
    tuesday = (MINUTES.ts_open >= to_ns(datetime(2024, 2, 5, 23, tzinfo=UTC))) & (
        MINUTES.ts_open < to_ns(datetime(2024, 2, 6, 23, tzinfo=UTC))
    )
    found = compare(MINUTES.take(~tuesday), daily_of(MINUTES, "session"), "session")
    assert (found.status, codes(found)) == ("FAIL", [ReasonCode.BARS_MISSING])
    assert found.numbers["first_without_minutes"] == [["MESH4", 20240206]]


def test_half_days_are_not_compared() -> None:
    daily = daily_of(MINUTES, "session")
    late = to_ns(datetime(2024, 2, 5, 12, tzinfo=UTC))
    part = MINUTES.slice(late, COVERED[1])
    found = compare_daily(
        part, daily, SESSIONS, LIMITS, tick_nanos=TICK, convention="session", covered=(late, COVERED[1])
    )
    assert (found.status, found.numbers["sessions"], found.numbers["partial"]) == ("PASS", 2, 1)


def test_a_day_with_a_roll_inside_is_not_compared() -> None:
    middle = to_ns(datetime(2024, 2, 6, 12, tzinfo=UTC))
    names = np.where(MINUTES.ts_open < middle, "MESH4", "MESM4")
    rolled = Bars.build(
        MINUTES.ts_open, MINUTES.open, MINUTES.high, MINUTES.low, MINUTES.close, MINUTES.volume, list(names)
    )
    daily = daily_of(MINUTES, "session").take(slice(0, 1))
    found = compare(rolled, daily, "session")
    assert (found.status, found.numbers["rolled"], found.numbers["sessions"]) == ("PASS", 1, 1)


def test_nothing_in_common_is_unknown() -> None:
    elsewhere = changed(daily_of(MINUTES, "session"), slice(None))
    old = Bars(elsewhere.ts_open - 400 * DAY_NS, elsewhere.open, elsewhere.high, elsewhere.low, elsewhere.close,
               elsewhere.volume, elsewhere.contract, elsewhere.contracts)  # fmt: skip
    for daily in (old, Bars.empty()):
        found = compare(MINUTES, daily)
        assert (found.status, codes(found)) == ("UNKNOWN", [ReasonCode.RECONCILIATION_UNKNOWN])
    assert compare(Bars.empty(), Bars.empty()).status == "UNKNOWN"


def test_a_kind_that_the_calendar_does_not_have() -> None:
    sessions = load_sessions("CMEGlobex_CL", *COVERED)
    for convention in ("regular", "weekly"):
        with pytest.raises(InvalidRequest):
            compare_daily(MINUTES, Bars.empty(), sessions, LIMITS, tick_nanos=TICK, convention=convention)


# the real bars


def lean_names(year_month: str) -> str:
    return f"ES{'FGHJKMNQUVXZ'[int(year_month[4:]) - 1]}{year_month[3]}"


def lean_rows(data: bytes) -> list[list[str]]:
    return [line.split(",") for line in data.decode().splitlines()]


def nanos(text: str) -> int:
    return int(Decimal(text) * 10**9)


def lean_minutes(folder: Path, days: list[str]) -> Bars:
    parts = []
    for day in days:
        midnight = to_ns(datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC))
        with zipfile.ZipFile(folder / "minute" / f"{day}_trade.zip") as archive:
            for name in archive.namelist():
                rows = lean_rows(archive.read(name))
                table = [(midnight + int(r[0]) * 1_000_000, *map(nanos, r[1:5]), int(r[5])) for r in rows]
                parts.append(Bars.build(*np.array(table, np.int64).T, lean_names(name.split("_")[-1][:6])))
    return Bars.concat(parts)


def lean_daily(folder: Path) -> Bars:
    parts = []
    with zipfile.ZipFile(io.BytesIO((folder / "daily" / "es_trade.zip").read_bytes())) as archive:
        for name in archive.namelist():
            rows = lean_rows(archive.read(name))
            stamps = [to_ns(datetime.strptime(r[0], "%Y%m%d %H:%M").replace(tzinfo=UTC)) for r in rows]
            table = [(stamp, *map(nanos, r[1:5]), int(r[5])) for stamp, r in zip(stamps, rows, strict=True)]
            parts.append(Bars.build(*np.array(table, np.int64).T, lean_names(name.split("_")[2][:6])))
    return Bars.concat(parts)


def only(bars: Bars, contract: str) -> Bars:
    return bars.take(bars.contract == bars.contracts.index(contract))


def lean_compared(folder: Path, days: list[str], contract: str, convention: str = "auto") -> Comparison:
    minutes, daily = only(lean_minutes(folder, days), contract), only(lean_daily(folder), contract)
    first, last = (to_ns(datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)) for day in (days[0], days[-1]))
    covered = (first, last + DAY_NS)
    sessions = load_sessions(CALENDAR, covered[0] - 3 * DAY_NS, covered[1] + 3 * DAY_NS)
    return compare_daily(minutes, daily, sessions, LIMITS, tick_nanos=TICK, convention=convention, covered=covered)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("days", "contract"),
    [
        (["20131014"], "ESZ3"),
        (["20131029", "20131030"], "ESZ3"),
        (["20131118"], "ESZ3"),
        (["20131202", "20131203"], "ESZ3"),
        (["20131218"], "ESZ3"),
        (["20131218"], "ESH4"),
        (["20131220"], "ESH4"),
        (["20200105", "20200106"], "ESH0"),
    ],
)
def test_real_es_daily_bars_are_of_regular_hours(days: list[str], contract: str, real_data: Path) -> None:
    found = lean_compared(real_data / "lean_es", days, contract)
    assert found.status == "PASS", found.reasons
    assert found.numbers["convention"] == "regular"
    assert {0.98 <= day["factor"] <= 1.06 for day in found.numbers["worst"]} == {True}
    conventions = found.numbers["conventions"]
    if conventions["session"]["days"]:
        assert conventions["session"]["median_factor"] < 0.94  # the night's volume is not in the daily bars


@pytest.mark.real_data
def test_a_real_week_whose_daily_volume_is_counted_twice(real_data: Path) -> None:
    days = ["20131006", "20131007", "20131008", "20131009", "20131010", "20131011"]
    found = lean_compared(real_data / "lean_es", days, "ESZ3")
    assert found.status == "FAIL"
    assert ReasonCode.VOLUME_DIFFERS in codes(found)
    assert found.numbers["convention"] == "regular"
    assert found.numbers["conventions"]["regular"]["range_fits"] == 5
    assert {round(day["factor"], 1) for day in found.numbers["worst"]} == {2.0}
    for convention, factor in (("session", 1.74), ("utc_day", 1.74)):
        other = lean_compared(real_data / "lean_es", days, "ESZ3", convention)
        assert other.status == "FAIL"
        assert other.numbers["conventions"][convention]["median_factor"] == pytest.approx(factor, abs=0.05)
    # the Sunday evening stands as a day of its own in these daily bars, and no session has that date
    assert found.numbers["first_no_such_day"] == [["ESZ3", 20131006]]
