"""The gate: clean bars pass, each planted defect fails its own check, what cannot be decided never passes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from blaid_pipelines.market.bars import (
    MINUTE_NS,
    MISSING,
    MISSING_VOLUME,
    NOT_FINITE,
    Bars,
    bar_nanos,
    from_ns,
    to_ns,
)
from blaid_pipelines.market.gate.checks import QUALITY_CHECKS
from blaid_pipelines.market.gate.measures import Measures, Scope, measure
from blaid_pipelines.market.gate.quality import evaluate
from blaid_pipelines.market.gate.suite import CHECKS, run_suite
from blaid_pipelines.market.instruments import InstrumentSpec
from blaid_pipelines.policy.load import load_policy
from blaid_pipelines.reasons import ReasonCode
from tests.market.helpers import END, MES, START, THRESHOLDS, TICK, changed, clean_bars

LATER = datetime(2024, 6, 1, tzinfo=UTC)
CLEAN = clean_bars()
CRUDE = replace(MES, symbol="CL", may_be_negative=True, price_low=Decimal(-10_000), price_high=Decimal(20_000))
"""An instrument with MES's ticks and hours that may trade below zero; it has no expiry rule for contracts of MES."""
EXPIRIES = {"MESH4": to_ns(datetime(2024, 3, 15, 13, 30, tzinfo=UTC))}
MIDDLE = 2000  # inside the second session, at 9:20 Chicago time


def without(first: int, count: int) -> Bars:
    return CLEAN.take(np.r_[0:first, first + count : len(CLEAN)])


def copied_session() -> Bars:
    bars = CLEAN
    for name in ("open", "high", "low", "close", "volume"):
        column = getattr(bars, name).copy()
        column[1380:2760] = column[0:1380]
        bars = replace(bars, **{name: column})
    return bars


def scaled() -> Bars:
    return replace(CLEAN, **{name: getattr(CLEAN, name) * 100 for name in ("open", "high", "low", "close")})


def jump() -> Bars:
    """Twice the price from the second session on: plausible in itself, but not as a move."""
    bars = CLEAN
    for name in ("open", "high", "low", "close"):
        column = getattr(bars, name).copy()
        column[MIDDLE:] *= 2
        bars = replace(bars, **{name: column})
    return bars


def duplicated() -> Bars:
    return CLEAN.take(np.r_[0 : MIDDLE + 1, MIDDLE : len(CLEAN)])


def in_the_break() -> Bars:
    extra = changed(CLEAN.take([MIDDLE]), 0, ts_open=to_ns(datetime(2024, 2, 5, 22, 30, tzinfo=UTC)))
    return Bars.concat([CLEAN, extra])


PRICES = ("open", "high", "low", "close")


def lowered(by_ticks: int) -> Bars:
    """The clean bars with every price that much lower: around zero for 20,000 ticks."""
    return replace(CLEAN, **{name: getattr(CLEAN, name) - by_ticks * TICK for name in PRICES})


def repeated(count: int, with_volume: bool = True) -> Bars:
    """The clean bars, ``count`` of which in a row are one and the same."""
    names = (*PRICES, "volume") if with_volume else PRICES
    same = {name: int(getattr(CLEAN, name)[MIDDLE]) for name in names}
    return changed(CLEAN, slice(MIDDLE, MIDDLE + count), **same)


def swapped(rows: slice) -> Bars:
    opens, closes = CLEAN.open.copy(), CLEAN.close.copy()
    opens[rows], closes[rows] = CLEAN.close[rows], CLEAN.open[rows]
    return replace(CLEAN, open=opens, close=closes)


def rolled(at: int, names: tuple[str, ...], step_ticks: int = 200) -> Bars:
    """Another contract from bar ``at`` on, that many ticks higher; ``names`` are the first and the second one."""
    higher = {name: getattr(CLEAN, name).copy() for name in PRICES}
    for column in higher.values():
        column[at:] += step_ticks * TICK
    codes = np.array([sorted(names).index(name) for name in names], np.int32)
    return replace(
        CLEAN, **higher, contract=codes[(np.arange(len(CLEAN)) >= at).astype(int)], contracts=tuple(sorted(names))
    )


def two_contracts_at_once() -> Bars:
    return Bars.concat([CLEAN, clean_bars(contract="MESM4", seed=8).take([MIDDLE])])


DAYS = (datetime(2024, 2, 5, tzinfo=UTC), datetime(2024, 2, 17, tzinfo=UTC))
FEW = THRESHOLDS.model_copy(update={"min_bars": 5})


def daily(dates: list[int]) -> Bars:
    """Daily bars of February 2024 on the given days, stamped at 00:00 UTC."""
    stamps = [to_ns(datetime(2024, 2, day, tzinfo=UTC)) for day in dates]
    bars = CLEAN.take(np.arange(len(dates)) * 60)
    return replace(bars, ts_open=np.array(stamps, np.int64))


@dataclass(frozen=True)
class Asked:
    """How a defect's bars are judged, where that is not the three clean sessions of MES."""

    spec: InstrumentSpec = MES
    covered: tuple[datetime, datetime] = (START, END)
    as_of: datetime = LATER
    schema: str = "ohlcv-1m"


ASKED: dict[str, Asked] = {
    "all zero where zero is a price": Asked(spec=CRUDE),
    "far away within the range": Asked(spec=CRUDE),
    "a partial Sunday": Asked(covered=DAYS, schema="ohlcv-1d"),
    "of the future": Asked(as_of=from_ns(int(CLEAN.ts_open[-1]))),
    "too few bars": Asked(covered=(START, from_ns(int(CLEAN.ts_open[998]) + MINUTE_NS))),
}

DEFECTS: dict[str, tuple[Callable[[], Bars], str, ReasonCode]] = {
    "too few bars": (lambda: CLEAN.take(slice(0, 999)), "bar_count", ReasonCode.BAR_COUNT_TOO_LOW),
    "no close": (lambda: changed(CLEAN, MIDDLE, close=MISSING), "missing_fields", ReasonCode.FIELD_MISSING),
    "no volume": (lambda: changed(CLEAN, MIDDLE, volume=MISSING_VOLUME), "missing_fields", ReasonCode.FIELD_MISSING),
    "NaN": (lambda: changed(CLEAN, MIDDLE, high=NOT_FINITE), "finite_prices", ReasonCode.VALUE_NOT_FINITE),
    "zero price": (
        lambda: changed(CLEAN, MIDDLE, low=0),
        "positive_prices",
        ReasonCode.PRICE_NOT_POSITIVE,
    ),
    "negative price": (
        lambda: changed(CLEAN, MIDDLE, low=-TICK),
        "positive_prices",
        ReasonCode.PRICE_NOT_POSITIVE,
    ),
    "high below close": (
        lambda: changed(CLEAN, MIDDLE, high=int(CLEAN.low[MIDDLE]) - TICK),
        "ohlc_order",
        ReasonCode.OHLC_ORDER,
    ),
    "off the grid": (
        lambda: changed(CLEAN, MIDDLE, high=int(CLEAN.high[MIDDLE]) + TICK // 5),
        "tick_grid",
        ReasonCode.OFF_TICK_GRID,
    ),
    "hundredfold": (scaled, "price_scale", ReasonCode.PRICE_SCALE),
    "doubled half way": (jump, "price_jumps", ReasonCode.PRICE_SCALE),
    "all zero where zero is a price": (
        lambda: changed(lowered(20_000), MIDDLE, open=0, high=0, low=0, close=0),
        "zero_prices",
        ReasonCode.PLACEHOLDER_PRICE,
    ),
    "far away within the range": (
        lambda: Bars.concat([lowered(19_900).take(slice(0, MIDDLE)), lowered(0).take(slice(MIDDLE, None))]),
        "range_jumps",
        ReasonCode.PRICE_SCALE,
    ),
    "a wick of 5 %": (
        lambda: changed(CLEAN, MIDDLE, high=20 * TICK * (int(CLEAN.high[MIDDLE]) * 105 // 2000 // TICK)),
        "price_spikes",
        ReasonCode.PRICE_SPIKE,
    ),
    "open and close swapped": (
        lambda: swapped(slice(None)),
        "open_close_order",
        ReasonCode.OPEN_CLOSE_SWAPPED,
    ),
    "one session with open and close swapped": (
        lambda: swapped(slice(1380, 2760)),
        "open_close_order",
        ReasonCode.OPEN_CLOSE_SWAPPED,
    ),
    "21 bars the same": (lambda: repeated(21), "identical_bars", ReasonCode.FROZEN_FEED),
    "61 bars with the same prices": (
        lambda: repeated(61, with_volume=False),
        "unchanged_prices",
        ReasonCode.FROZEN_FEED,
    ),
    "another contract at the same time": (two_contracts_at_once, "one_contract", ReasonCode.DUPLICATE_KEY),
    "a roll back": (lambda: rolled(MIDDLE, ("MESM4", "MESH4")), "roll_order", ReasonCode.ROLL_BACKWARD),
    "a roll of 30 %": (
        lambda: rolled(MIDDLE, ("MESH4", "MESM4"), 6000),
        "roll_steps",
        ReasonCode.ROLL_STEP_TOO_LARGE,
    ),
    "after its last trade": (
        lambda: replace(CLEAN, contracts=("MESZ3",)),
        "after_expiry",
        ReasonCode.CONTRACT_EXPIRED,
    ),
    "a partial Sunday": (
        lambda: daily([5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16]),
        "session_dates",
        ReasonCode.NO_SESSION_DATE,
    ),
    "of the future": (lambda: CLEAN, "not_yet_ended", ReasonCode.BAR_NOT_ENDED),
    "negative volume": (lambda: changed(CLEAN, MIDDLE, volume=-2), "volume_valid", ReasonCode.VOLUME_INVALID),
    "padding": (
        lambda: changed(CLEAN, slice(MIDDLE, MIDDLE + 50), volume=0),
        "zero_volume",
        ReasonCode.VOLUME_INVALID,
    ),
    "same time twice": (duplicated, "duplicate_keys", ReasonCode.DUPLICATE_KEY),
    "half a minute late": (
        lambda: changed(CLEAN, MIDDLE, ts_open=int(CLEAN.ts_open[MIDDLE]) + MINUTE_NS // 2),
        "time_grid",
        ReasonCode.OFF_TIME_GRID,
    ),
    "in the daily break": (in_the_break, "outside_session", ReasonCode.OUTSIDE_SESSION),
    "a copied day": (copied_session, "copied_sessions", ReasonCode.COPIED_SESSION),
    "a hole of 31 minutes": (lambda: without(MIDDLE, 31), "session_gaps", ReasonCode.SESSION_GAP),
    "a hole of four hours": (lambda: without(MIDDLE, 240), "session_gaps", ReasonCode.SESSION_GAP),
    "a hole at a session's begin": (lambda: without(1380, 31), "session_gaps", ReasonCode.SESSION_GAP),
    "a late begin of the range": (lambda: without(0, 31), "session_gaps", ReasonCode.SESSION_GAP),
    "every third minute missing": (
        lambda: CLEAN.take(np.arange(len(CLEAN)) % 3 != 1),
        "missing_time",
        ReasonCode.TOO_MUCH_MISSING,
    ),
    "ends 31 minutes early": (lambda: without(len(CLEAN) - 31, 31), "staleness", ReasonCode.STALE_DATA),
}


SCOPE = Scope(MINUTE_NS, to_ns(START), to_ns(END), to_ns(LATER))


def test_every_check_has_a_planted_defect() -> None:
    assert {check for _, check, _ in DEFECTS.values()} == {check.name for check in CHECKS}


def test_the_suite_runs_exactly_the_checks_that_are_named_for_all() -> None:
    assert [check.name for check in CHECKS] == list(QUALITY_CHECKS)
    assert all(check.finding == QUALITY_CHECKS[check.name] for check in CHECKS)
    listed = "import sys; from blaid_pipelines.market.gate.checks import QUALITY_CHECKS as checks; print(len(checks)); "
    ended = subprocess.run(
        [sys.executable, "-c", listed + "print({'great_expectations', 'numpy', 'pandas'} & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.split("\n")[:2] == ["29", "set()"]


def test_clean_bars_pass() -> None:
    report = evaluate(CLEAN, MES, THRESHOLDS, LATER, (START, END))
    assert report.status == "PASS"
    assert [check.name for check in report.checks] == [check.name for check in CHECKS]
    assert {check.status for check in report.checks} == {"PASS"}
    assert report.reasons == []


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_fails_its_check_and_no_other(defect: str) -> None:
    plant, check, code = DEFECTS[defect]
    asked = ASKED.get(defect, Asked())
    few = FEW if asked.schema == "ohlcv-1d" else THRESHOLDS
    report = evaluate(
        plant(),
        asked.spec,
        few,
        asked.as_of,
        asked.covered,
        asked.schema,
        expiries=EXPIRIES if asked.spec is CRUDE else None,
    )
    assert report.status == "FAIL"
    assert {result.name: result.status for result in report.checks if result.status != "PASS"} == {check: "FAIL"}
    [reason] = report.reasons
    assert reason.code is code
    assert reason.suggested_fix
    assert reason.numbers["symbol"] == asked.spec.symbol
    assert reason.numbers["summary"].endswith(("allowed", "wanted"))


@pytest.mark.parametrize(
    "bars",
    [
        without(MIDDLE, 30),
        without(len(CLEAN) - 30, 30),
        Bars.concat([without(1365, 15), CLEAN.take([])]).take(slice(None)),
        CLEAN.take(np.r_[0:1360, 1400 : len(CLEAN)]),  # 20 minutes before the daily break and 20 after it
        changed(CLEAN, slice(MIDDLE, MIDDLE + 41), volume=0),
        repeated(20),
        repeated(60, with_volume=False),
        rolled(MIDDLE, ("MESH4", "MESM4")),
        changed(CLEAN, MIDDLE, high=int(CLEAN.high[MIDDLE]) + 380 * TICK),
        changed(CLEAN, slice(MIDDLE, MIDDLE + 2), high=int(CLEAN.high[MIDDLE]) + 1000 * TICK),
    ],
    ids=[
        "gap at the limit",
        "stale at the limit",
        "short end of session",
        "across the break",
        "quiet at the limit",
        "the same bar 20 times",
        "the same prices for an hour",
        "a roll",
        "a wick of 1.9 %",
        "a high that the next bar reaches too",
    ],
)
def test_what_is_within_the_thresholds_passes(bars: Bars) -> None:
    assert evaluate(bars, MES, THRESHOLDS, LATER, (START, END)).status == "PASS"


def test_a_verdict_needs_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "there is none"))
    assert evaluate(CLEAN, MES, THRESHOLDS, LATER, (START, END)).status == "PASS"


def test_reasons_carry_numbers_and_places() -> None:
    report = evaluate(without(MIDDLE, 240), MES, THRESHOLDS, LATER, (START, END))
    numbers = report.reasons[0].numbers
    assert numbers["worst"] == 240
    assert numbers["max_gap_minutes"] == 30
    assert numbers["sessions"] == [20240206]
    off = evaluate(changed(CLEAN, MIDDLE, high=int(CLEAN.high[MIDDLE]) + 1), MES, THRESHOLDS, LATER, (START, END))
    assert off.reasons[0].numbers["first_at"] == [from_ns(int(CLEAN.ts_open[MIDDLE])).isoformat()]
    assert off.reasons[0].numbers["unexpected_count"] == 1


def test_a_missing_session_is_a_gap_and_a_weekend_is_none() -> None:
    start, end = datetime(2024, 2, 1, 23, tzinfo=UTC), datetime(2024, 2, 6, 22, tzinfo=UTC)
    bars = clean_bars(start, end)
    assert evaluate(bars, MES, THRESHOLDS, LATER, (start, end)).status == "PASS"
    monday = (bars.ts_open >= to_ns(START)) & (bars.ts_open < to_ns(START + timedelta(hours=23)))
    report = evaluate(bars.take(~monday), MES, THRESHOLDS, LATER, (start, end))
    assert ReasonCode.SESSION_GAP in [reason.code for reason in report.reasons]


def test_an_instrument_that_may_be_negative_may() -> None:
    report = evaluate(lowered(20_000), CRUDE, THRESHOLDS, LATER, (START, END), expiries=EXPIRIES)
    assert report.status == "PASS"
    assert lowered(20_000).low.min() < 0 < lowered(20_000).high.max()


def test_two_contracts_may_share_a_time() -> None:
    second = clean_bars(contract="MESM4", seed=8)
    both = Bars.concat([CLEAN, second])
    report = evaluate(both, MES, THRESHOLDS, LATER, (START, END), one_contract=False)
    assert report.status == "PASS"
    twice = Bars.concat([both, changed(second.take([5]), 0, close=int(second.close[5]) + TICK)])
    [reason] = evaluate(twice, MES, THRESHOLDS, LATER, (START, END), one_contract=False).reasons
    assert reason.code is ReasonCode.DUPLICATE_KEY


def test_a_shared_time_is_shown_with_both_bars() -> None:
    report = evaluate(two_contracts_at_once(), MES, THRESHOLDS, LATER, (START, END))
    [reason] = report.reasons
    at = from_ns(int(CLEAN.ts_open[MIDDLE])).isoformat()
    assert reason.numbers["first_at"] == [at]
    assert [line.split()[:2] for line in reason.numbers["bars"]] == [[at, "MESH4"], [at, "MESM4"]]


def test_a_passing_check_says_how_far_it_is_from_its_limit() -> None:
    report = evaluate(without(MIDDLE, 12), MES, THRESHOLDS, LATER, (START, END))
    by_name = {check.name: check.numbers for check in report.checks}
    assert report.status == "PASS"
    assert all(numbers["summary"] for numbers in by_name.values())
    assert by_name["session_gaps"]["summary"] == "worst 12 minutes at session 20240206, 30 allowed"
    assert by_name["tick_grid"]["summary"] == f"0 of {len(CLEAN) - 12} bars, none allowed"
    assert by_name["price_spikes"]["largest_wick_at"].startswith("2024-02-0")
    assert by_name["price_jumps"]["summary"].startswith("worst 1.000")


def test_rolls_are_visible_in_the_numbers() -> None:
    report = evaluate(rolled(MIDDLE, ("MESH4", "MESM4")), MES, THRESHOLDS, LATER, (START, END))
    numbers = {check.name: check.numbers for check in report.checks}["roll_steps"]
    assert numbers["rolls"] == numbers["rolls_forward"] == 1
    [roll] = numbers["largest_rolls"]
    assert roll.startswith(f"{from_ns(int(CLEAN.ts_open[MIDDLE])).isoformat()} MESH4 to MESM4: +")


def test_a_contract_whose_expiry_nobody_knows_is_unknown() -> None:
    unknown = evaluate(CLEAN, CRUDE, THRESHOLDS, LATER, (START, END))
    assert {check.name: check.status for check in unknown.checks if check.status != "PASS"} == {
        "after_expiry": "UNKNOWN"
    }
    assert evaluate(CLEAN, CRUDE, THRESHOLDS, LATER, (START, END), expiries=EXPIRIES).status == "PASS"


def test_the_provider_s_own_expiry_beats_the_rule_in_its_own_decade() -> None:
    early = {"MESH4": to_ns(datetime(2024, 2, 6, tzinfo=UTC))}
    [reason] = evaluate(CLEAN, MES, THRESHOLDS, LATER, (START, END), expiries=early).reasons
    assert (reason.code, reason.numbers["first_at"][0]) == (ReasonCode.CONTRACT_EXPIRED, "2024-02-06T00:00:00+00:00")
    long_ago = {"MESH4": to_ns(datetime(2014, 3, 21, tzinfo=UTC))}
    assert evaluate(CLEAN, MES, THRESHOLDS, LATER, (START, END), expiries=long_ago).status == "PASS"


def test_the_thresholds_of_these_tests_are_those_of_the_default_policy() -> None:
    assert load_policy().quality == THRESHOLDS


def test_a_step_between_contracts_is_a_roll_and_no_jump() -> None:
    bars = rolled(MIDDLE, ("MESH4", "MESM4"), 20_000)
    wide = THRESHOLDS.model_copy(update={"max_roll_step_pct": 150.0})
    assert evaluate(bars, MES, wide, LATER, (START, END)).status == "PASS"


def test_what_was_not_due_yet_is_not_stale() -> None:
    half = CLEAN.take(slice(0, 2000))
    as_of = from_ns(int(half.ts_open[-1]) + MINUTE_NS)
    assert evaluate(half, MES, THRESHOLDS, as_of, (START, END)).status == "PASS"
    assert evaluate(half, MES, THRESHOLDS, LATER, (START, END)).status == "FAIL"


def test_no_bars_at_all_fail_and_pass_nothing_that_looks_at_bars() -> None:
    report = evaluate(Bars.empty(), MES, THRESHOLDS, LATER, (START, END))
    by_name = {check.name: check.status for check in report.checks}
    assert report.status == "FAIL"
    assert by_name["bar_count"] == "FAIL"
    assert {by_name[check.name] for check in CHECKS if check.frame == "bars"} == {"FAIL", "UNKNOWN"}
    assert by_name["staleness"] == "UNKNOWN"


def test_a_range_in_which_the_exchange_is_closed_is_unknown() -> None:
    saturday = (datetime(2024, 2, 3, 0, tzinfo=UTC), datetime(2024, 2, 3, 12, tzinfo=UTC))
    report = evaluate(Bars.empty(), MES, THRESHOLDS, LATER, saturday)
    assert {check.status for check in report.checks if check.name in {"session_gaps", "missing_time"}} == {"UNKNOWN"}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_check_that_cannot_be_evaluated_is_unknown(check: object) -> None:
    measures = measure(CLEAN, MES, THRESHOLDS, SCOPE)
    assert hasattr(check, "frame")
    frames = {name: dict(columns) for name, columns in measures.frames.items()}
    if check.name == "bar_count":
        broken = run_suite(
            measures, THRESHOLDS, [replace(check, rule=lambda _: ("ExpectColumnToExist", {"column": "?"}))]
        )
    else:
        column = check.column or "contract"
        frames[check.frame].pop(column)
        broken = run_suite(Measures(frames), THRESHOLDS, [check])
    assert broken[check.name].status == "UNKNOWN" if check.name != "bar_count" else broken[check.name].status != "PASS"


def test_values_that_could_not_be_measured_are_unknown() -> None:
    measures = measure(CLEAN, MES, THRESHOLDS, SCOPE)
    measures.frames["bars"]["jump_ratio"][5] = np.nan
    outcome = run_suite(measures, THRESHOLDS, [check for check in CHECKS if check.name == "price_jumps"])
    assert outcome["price_jumps"].status == "UNKNOWN"


def test_hourly_bars_have_their_own_slots() -> None:
    step = bar_nanos("ohlcv-1h")
    start, end = datetime(2024, 2, 4, tzinfo=UTC), datetime(2024, 2, 10, tzinfo=UTC)
    minutes = clean_bars(start, end)
    _, first = np.unique(minutes.ts_open // step, return_index=True)
    longer = replace(
        minutes.take(first),
        ts_open=minutes.ts_open[first] // step * step,
        high=np.maximum.reduceat(minutes.high, first),
        low=np.minimum.reduceat(minutes.low, first),
        close=minutes.close[np.append(first[1:], len(minutes)) - 1],
    )
    assert evaluate(longer, MES, FEW, LATER, (start, end), "ohlcv-1h").status == "PASS"
    holed = longer.take(np.r_[0:2, 3 : len(longer)])
    codes = [reason.code for reason in evaluate(holed, MES, FEW, LATER, (start, end), "ohlcv-1h").reasons]
    assert ReasonCode.SESSION_GAP in codes


def test_daily_bars_stand_for_sessions() -> None:
    weekdays = [5, 6, 7, 8, 9, 12, 13, 14, 15, 16]
    report = evaluate(daily(weekdays), MES, FEW, LATER, DAYS, "ohlcv-1d")
    assert report.status == "PASS", report.reasons
    [reason] = evaluate(daily([day for day in weekdays if day != 8]), MES, FEW, LATER, DAYS, "ohlcv-1d").reasons
    assert (reason.code, reason.numbers["sessions"]) == (ReasonCode.SESSION_GAP, [20240208])
    # On Friday evening the session has closed, at noon it has not.
    for hour, code in ((23, None), (18, ReasonCode.BAR_NOT_ENDED)):
        as_of = datetime(2024, 2, 16, hour, tzinfo=UTC)
        reasons = evaluate(daily(weekdays), MES, FEW, as_of, DAYS, "ohlcv-1d").reasons
        assert [reason.code for reason in reasons] == ([] if code is None else [code])
