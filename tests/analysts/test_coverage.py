"""Coverage by session: what is there against the exchange calendar, the same minutes that the gate measures."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaid_pipelines.lab.coverage import READING_SCHEMA, SESSION_SCHEMA, session_coverage
from blaid_pipelines.market.bars import DAY_NS, MINUTE_NS, Bars, to_ns
from blaid_pipelines.market.sessions import load_sessions

CALENDAR = "CME Globex Equity"
START, END = to_ns(datetime(2024, 7, 1, tzinfo=UTC)), to_ns(datetime(2024, 7, 9, tzinfo=UTC))
SLOTS = load_sessions(CALENDAR, START, END).expected_slots(START, END, MINUTE_NS)[0]


def bars_at(stamps: np.ndarray[Any, Any], contract: str | list[str] = "MESU4") -> Bars:
    """A bar of one contract traded at each time."""
    price = np.full(len(stamps), 5_500 * 10**9, np.int64)
    return Bars.build(stamps, price, price, price, price, np.ones(len(stamps), np.int64), contract)


def sessions_of(bars: Bars, as_of_ns: int = END, duration_ns: int = MINUTE_NS) -> tuple[list[dict[str, Any]], Any]:
    found = session_coverage("s", bars, CALENDAR, duration_ns, (START, END), as_of_ns)
    assert found.sessions.schema == SESSION_SCHEMA
    assert found.readings.schema == READING_SCHEMA
    return found.sessions.to_pylist(), found.readings.to_pylist()[0]


def test_a_whole_week_has_no_gap_and_holidays_are_short() -> None:
    rows, reading = sessions_of(bars_at(SLOTS))
    assert [(row["session_date"], row["expected_minutes"]) for row in rows] == [
        (date(2024, 7, 1), 21 * 60),  # the range begins at midnight UTC, two hours into the session
        (date(2024, 7, 2), 23 * 60),
        (date(2024, 7, 3), 19 * 60 + 15),  # closes at 12:15 CT
        (date(2024, 7, 4), 19 * 60),  # closes at noon
        (date(2024, 7, 5), 23 * 60),
        (date(2024, 7, 8), 23 * 60),
        (date(2024, 7, 9), 2 * 60),
    ]
    assert {(row["gaps"], row["longest_gap_minutes"]) for row in rows} == {(0, 0.0)}
    assert all(row["bars"] == row["present_minutes"] == row["expected_minutes"] == row["volume"] for row in rows)
    assert {row["contracts"] for row in rows} == {"MESU4"}
    assert (reading["bars_in_sessions"], reading["bars_outside"]) == (len(SLOTS), 0)


@given(st.sets(st.integers(0, len(SLOTS) - 1), max_size=200))
def test_what_is_taken_out_is_missing_and_nothing_else(gone: set[int]) -> None:
    keep = np.ones(len(SLOTS), np.bool_)
    keep[list(gone)] = False
    rows, _ = sessions_of(bars_at(SLOTS[keep]))
    assert sum(row["expected_minutes"] - row["present_minutes"] for row in rows) == len(gone)
    assert sum(row["bars"] for row in rows) == len(SLOTS) - len(gone)
    owner = load_sessions(CALENDAR, START, END).session_of(SLOTS)
    first_of_gap = [
        slot for slot in sorted(gone) if slot - 1 not in gone or slot == 0 or owner[slot - 1] != owner[slot]
    ]
    assert sum(row["gaps"] for row in rows) == len(first_of_gap)


def test_a_hole_and_its_length() -> None:
    hole = (to_ns(datetime(2024, 7, 2, 14, 0, tzinfo=UTC)) <= SLOTS) & (
        to_ns(datetime(2024, 7, 2, 18, 0, tzinfo=UTC)) > SLOTS
    )
    rows, _ = sessions_of(bars_at(SLOTS[~hole]))
    assert [(row["gaps"], row["longest_gap_minutes"]) for row in rows if row["gaps"]] == [(1, 240.0)]


def test_no_bars_at_all() -> None:
    rows, reading = sessions_of(Bars.empty())
    assert {row["bars"] for row in rows} == {0}
    assert {row["gaps"] for row in rows} == {1}
    assert all(row["longest_gap_minutes"] == row["expected_minutes"] > 0 for row in rows)
    assert {row["first_bar"] for row in rows} == {None}
    assert reading["bars_outside"] == 0


def test_what_was_not_due_yet_is_not_missing() -> None:
    as_of = to_ns(datetime(2024, 7, 2, 12, 0, tzinfo=UTC))
    rows, _ = sessions_of(bars_at(SLOTS[as_of > SLOTS]), as_of)
    assert [row["session_date"] for row in rows] == [date(2024, 7, 1), date(2024, 7, 2)]
    assert {row["gaps"] for row in rows} == {0}


def test_bars_on_a_closed_day_are_outside() -> None:
    saturday = to_ns(datetime(2024, 7, 6, 12, 0, tzinfo=UTC)) + np.arange(30) * MINUTE_NS
    rows, reading = sessions_of(bars_at(np.sort(np.concatenate([SLOTS, saturday]))))
    assert (reading["bars_in_sessions"], reading["bars_outside"]) == (len(SLOTS), 30)
    assert sum(row["bars"] for row in rows) == len(SLOTS)


def test_a_roll_inside_a_session_shows_both_contracts() -> None:
    names = ["MESM4" if stamp < SLOTS[1_500] else "MESU4" for stamp in SLOTS]
    rows, _ = sessions_of(bars_at(SLOTS, names))
    assert [row["contracts"] for row in rows[:3]] == ["MESM4", "MESM4,MESU4", "MESU4"]


def test_daily_bars_belong_to_utc_days() -> None:
    days = np.unique(SLOTS // DAY_NS * DAY_NS)
    rows, _ = sessions_of(bars_at(days[days != days[1]]), duration_ns=DAY_NS)
    assert [row["session_date"] for row in rows] == [
        date.fromordinal(date(1970, 1, 1).toordinal() + int(day // DAY_NS)) for day in days
    ]
    assert [row["gaps"] for row in rows] == [0, 1, *[0] * (len(days) - 2)]


@pytest.mark.parametrize("drop", [0, 37, 400])
def test_the_gate_measures_the_same_minutes(drop: int) -> None:
    from blaid_pipelines.market.gate import measures as gate

    random = np.random.default_rng(drop)
    keep = np.ones(len(SLOTS), np.bool_)
    keep[random.choice(len(SLOTS) - 1, drop, replace=False)] = False  # the last stays: after it the gate sees staleness
    bars = bars_at(SLOTS[keep])
    sessions = load_sessions(CALENDAR, START, END)
    theirs, _ = gate._coverage(bars, sessions, MINUTE_NS, START, END)
    ours, _ = sessions_of(bars)
    assert [row["expected_minutes"] for row in ours] == theirs["expected_minutes"].tolist()
    assert [row["present_minutes"] for row in ours] == theirs["present_minutes"].tolist()
    assert [row["longest_gap_minutes"] for row in ours] == theirs["longest_gap_minutes"].tolist()
