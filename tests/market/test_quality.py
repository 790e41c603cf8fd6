"""The gate: clean bars pass, each planted defect fails its own check, what cannot be decided never passes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from blaid_pipelines.market.bars import MINUTE_NS, MISSING, MISSING_VOLUME, NOT_FINITE, Bars, from_ns, to_ns
from blaid_pipelines.market.gate.checks import QUALITY_CHECKS
from blaid_pipelines.market.gate.measures import Measures, measure
from blaid_pipelines.market.gate.quality import evaluate
from blaid_pipelines.market.gate.suite import CHECKS, run_suite
from blaid_pipelines.reasons import ReasonCode
from tests.market.helpers import END, MES, START, THRESHOLDS, TICK, changed, clean_bars

LATER = datetime(2024, 6, 1, tzinfo=UTC)
CLEAN = clean_bars()
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
    assert ended.stdout.split("\n")[:2] == ["17", "set()"]


def test_clean_bars_pass() -> None:
    report = evaluate(CLEAN, MES, THRESHOLDS, LATER, (START, END))
    assert report.status == "PASS"
    assert [check.name for check in report.checks] == [check.name for check in CHECKS]
    assert {check.status for check in report.checks} == {"PASS"}
    assert report.reasons == []


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_fails_its_check_and_no_other(defect: str) -> None:
    plant, check, code = DEFECTS[defect]
    bars = plant()
    covered = (START, from_ns(int(bars.ts_open[-1]) + MINUTE_NS)) if check == "bar_count" else (START, END)
    report = evaluate(bars, MES, THRESHOLDS, LATER, covered)
    assert report.status == "FAIL"
    assert {result.name: result.status for result in report.checks if result.status != "PASS"} == {check: "FAIL"}
    [reason] = report.reasons
    assert reason.code is code
    assert reason.suggested_fix
    assert reason.numbers["symbol"] == "MES"


@pytest.mark.parametrize(
    "bars",
    [
        without(MIDDLE, 30),
        without(len(CLEAN) - 30, 30),
        Bars.concat([without(1365, 15), CLEAN.take([])]).take(slice(None)),
        CLEAN.take(np.r_[0:1360, 1400 : len(CLEAN)]),  # 20 minutes before the daily break and 20 after it
        changed(CLEAN, slice(MIDDLE, MIDDLE + 41), volume=0),
    ],
    ids=["gap at the limit", "stale at the limit", "short end of session", "across the break", "quiet at the limit"],
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
    crude = replace(MES, may_be_negative=True, price_low=MES.price_low * -1)
    bars = changed(CLEAN, MIDDLE, low=-37 * TICK)
    assert evaluate(bars, crude, THRESHOLDS, LATER, (START, END)).status == "PASS"


def test_two_contracts_may_share_a_time() -> None:
    second = clean_bars(contract="MESM4", seed=8)
    assert evaluate(Bars.concat([CLEAN, second]), MES, THRESHOLDS, LATER, (START, END)).status == "PASS"


def test_a_step_between_contracts_is_a_roll_and_no_jump() -> None:
    bars = jump()
    codes = (np.arange(len(bars)) >= MIDDLE).astype(np.int32)
    rolled = replace(bars, contract=codes, contracts=("MESH4", "MESM4"))
    assert evaluate(rolled, MES, THRESHOLDS, LATER, (START, END)).status == "PASS"


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
    measures = measure(CLEAN, MES, MINUTE_NS, to_ns(START), to_ns(END), to_ns(LATER))
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
    measures = measure(CLEAN, MES, MINUTE_NS, to_ns(START), to_ns(END), to_ns(LATER))
    measures.frames["bars"]["jump_ratio"][5] = np.nan
    outcome = run_suite(measures, THRESHOLDS, [check for check in CHECKS if check.name == "price_jumps"])
    assert outcome["price_jumps"].status == "UNKNOWN"


@pytest.mark.parametrize("schema", ["ohlcv-1h", "ohlcv-1d"])
def test_longer_bars_have_their_own_slots(schema: str) -> None:
    from blaid_pipelines.market.bars import bar_nanos

    step = bar_nanos(schema)
    start, end = datetime(2024, 2, 4, tzinfo=UTC), datetime(2024, 2, 10, tzinfo=UTC)
    minutes = clean_bars(start, end)
    _, first = np.unique(minutes.ts_open // step, return_index=True)
    longer = changed(minutes.take(first), slice(None))
    longer = replace(longer, ts_open=longer.ts_open // step * step)
    few = THRESHOLDS.model_copy(update={"min_bars": 5})
    assert evaluate(longer, MES, few, LATER, (start, end), schema).status == "PASS"
    holed = longer.take(np.r_[0:2, 3 : len(longer)])
    codes = [reason.code for reason in evaluate(holed, MES, few, LATER, (start, end), schema).reasons]
    assert ReasonCode.SESSION_GAP in codes
