"""Two lists of the same bars: every difference found and named, and nothing called a difference that is none."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blaid_pipelines.market.bars import MINUTE_NS, MISSING, Bars
from blaid_pipelines.market.reconcile import ReconciliationThresholds, compare_bars
from blaid_pipelines.policy.load import load_policy
from blaid_pipelines.reasons import ReasonCode
from tests.market.helpers import TICK, changed, clean_bars

LIMITS: ReconciliationThresholds = load_policy().reconciliation
WHOLE = clean_bars()


def codes(comparison: object) -> list[ReasonCode]:
    return [reason.code for reason in comparison.reasons]  # type: ignore[attr-defined]


def without(bars: Bars, *rows: int) -> Bars:
    return bars.take(~np.isin(np.arange(len(bars)), rows))


@pytest.mark.parametrize("kind", ["overlap", "backup"])
def test_equal_bars_pass(kind: str) -> None:
    found = compare_bars(WHOLE, WHOLE.take(np.arange(len(WHOLE))[::-1]), LIMITS, tick_nanos=TICK, kind=kind)  # type: ignore[arg-type]
    assert (found.status, found.reasons, found.kind) == ("PASS", (), kind)
    assert (found.numbers["common"], found.numbers["volume_factor"]) == (len(WHOLE), 1.0)


@pytest.mark.parametrize(
    ("field", "code"),
    [("open", ReasonCode.BARS_DIFFER), ("close", ReasonCode.BARS_DIFFER), ("volume", ReasonCode.BARS_DIFFER)],
)
def test_one_value_of_one_bar_differs_in_a_copy(field: str, code: ReasonCode) -> None:
    other = changed(WHOLE, 77, **{field: int(getattr(WHOLE, field)[77]) + 1})
    found = compare_bars(WHOLE, other, LIMITS, tick_nanos=TICK, kind="overlap")
    assert (found.status, codes(found)) == ("FAIL", [code])
    (bar,) = found.numbers["first_differing"]
    assert bar["contract"] == "MESH4"
    assert bar["ts"].startswith("2024-02-05T00:17")
    assert bar["ours"] != bar["other"]


def test_every_differing_bar_of_a_copy_is_named() -> None:
    rows = sorted(random.Random(3).sample(range(len(WHOLE)), 300))
    other = changed(WHOLE, np.array(rows), volume=7_777)  # type: ignore[arg-type]
    found = compare_bars(WHOLE, other, LIMITS, tick_nanos=TICK, kind="overlap")
    assert len(found.numbers["first_differing"]) == 300
    assert all(bar["other"]["volume"] == 7_777 for bar in found.numbers["first_differing"])


def test_a_bar_that_one_copy_lacks() -> None:
    found = compare_bars(WHOLE, without(WHOLE, 5, 900), LIMITS, tick_nanos=TICK, kind="overlap")
    assert (found.status, codes(found)) == ("FAIL", [ReasonCode.BARS_MISSING])
    assert [bar["ts"] for bar in found.numbers["first_only_ours"]] == [
        "2024-02-04T23:05:00+00:00",
        "2024-02-05T14:00:00+00:00",
    ]
    back = compare_bars(without(WHOLE, 5), WHOLE, LIMITS, tick_nanos=TICK, kind="overlap")
    assert (back.numbers["only_ours"], back.numbers["only_other"]) == (0, 1)


def test_the_same_minute_of_another_contract_is_another_bar() -> None:
    other = Bars(**{name: getattr(WHOLE, name) for name in ("ts_open", "open", "high", "low", "close", "volume")},
                 contract=WHOLE.contract, contracts=("MESM4",))  # fmt: skip
    found = compare_bars(WHOLE, other, LIMITS, tick_nanos=TICK, kind="overlap")
    assert found.status == "FAIL"
    assert (found.numbers["common"], found.numbers["only_ours"]) == (0, len(WHOLE))


def test_providers_may_differ_by_little_and_not_by_more() -> None:
    few = len(WHOLE) // 250
    at = np.arange(few)
    other = changed(WHOLE, at, close=int(WHOLE.close[0]) + 5 * TICK)  # type: ignore[arg-type]
    found = compare_bars(WHOLE, other, LIMITS, tick_nanos=TICK)
    assert found.status == "PASS"
    assert 0 < found.numbers["price_differs"] <= few
    many = changed(WHOLE, np.arange(len(WHOLE) // 100), close=int(WHOLE.close.max()) + 1000 * TICK)  # type: ignore[arg-type]
    assert codes(compare_bars(WHOLE, many, LIMITS, tick_nanos=TICK)) == [ReasonCode.BARS_DIFFER]
    assert codes(compare_bars(WHOLE, without(WHOLE, *range(60)), LIMITS, tick_nanos=TICK)) == [ReasonCode.BARS_MISSING]
    assert compare_bars(WHOLE, without(WHOLE, *range(30)), LIMITS, tick_nanos=TICK).status == "PASS"


@pytest.mark.parametrize(("factor", "status"), [(2, "FAIL"), (1, "PASS")])
def test_a_volume_that_is_counted_twice(factor: int, status: str) -> None:
    other = Bars(WHOLE.ts_open, WHOLE.open, WHOLE.high, WHOLE.low, WHOLE.close, WHOLE.volume * factor, WHOLE.contract,
                 WHOLE.contracts)  # fmt: skip
    found = compare_bars(WHOLE, other, LIMITS, tick_nanos=TICK)
    assert found.status == status
    assert found.numbers["volume_factor"] == float(factor)
    assert codes(found) == ([ReasonCode.VOLUME_DIFFERS] if factor == 2 else [])


def test_bars_without_volume_that_the_other_leaves_out_are_no_difference_between_providers() -> None:
    quiet = changed(WHOLE, np.arange(0, len(WHOLE), 3), volume=0)  # type: ignore[arg-type]
    other = quiet.take(quiet.volume > 0)
    found = compare_bars(quiet, other, LIMITS, tick_nanos=TICK)
    assert found.status == "PASS"
    assert found.numbers["untraded_on_one_side"] == len(quiet) - len(other)
    assert compare_bars(quiet, other, LIMITS, tick_nanos=TICK, kind="overlap").status == "FAIL"


def test_a_price_that_only_one_side_has_is_a_difference() -> None:
    other = changed(WHOLE, 9, close=MISSING)
    found = compare_bars(WHOLE, other, LIMITS, tick_nanos=TICK, kind="overlap")
    assert found.status == "FAIL"
    assert found.numbers["first_differing"][0]["other"]["close"] is None
    assert compare_bars(other, other, LIMITS, tick_nanos=TICK, kind="overlap").status == "PASS"


def test_a_key_that_is_there_twice_fails() -> None:
    twice = WHOLE.take(np.r_[np.arange(len(WHOLE)), 4])
    found = compare_bars(WHOLE, twice, LIMITS, tick_nanos=TICK)
    assert (found.status, codes(found)) == ("FAIL", [ReasonCode.DUPLICATE_KEY])


@pytest.mark.parametrize(("ours", "other"), [(Bars.empty(), Bars.empty()), (WHOLE.slice(0, 1), WHOLE.slice(0, 1))])
def test_nothing_to_compare_is_unknown(ours: Bars, other: Bars) -> None:
    for kind in ("overlap", "backup"):
        found = compare_bars(ours, other, LIMITS, tick_nanos=TICK, kind=kind)  # type: ignore[arg-type]
        assert (found.status, codes(found)) == ("UNKNOWN", [ReasonCode.RECONCILIATION_UNKNOWN])


def test_too_few_common_bars_of_two_providers_are_unknown() -> None:
    few = WHOLE.take(slice(0, LIMITS.min_common_bars - 1))
    assert compare_bars(few, few, LIMITS, tick_nanos=TICK).status == "UNKNOWN"
    enough = WHOLE.take(slice(0, LIMITS.min_common_bars))
    assert compare_bars(enough, enough, LIMITS, tick_nanos=TICK).status == "PASS"


def test_one_side_without_any_bar_fails() -> None:
    assert codes(compare_bars(WHOLE, Bars.empty(), LIMITS, tick_nanos=TICK)) == [ReasonCode.BARS_MISSING]
    assert codes(compare_bars(Bars.empty(), WHOLE, LIMITS, tick_nanos=TICK, kind="overlap")) == [
        ReasonCode.BARS_MISSING
    ]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_was_changed_is_what_is_found(data: st.DataObject) -> None:
    """Drop, change and shuffle bars of a copy: the comparison counts exactly these."""
    bars = WHOLE.take(slice(0, 200))
    gone = data.draw(st.sets(st.integers(0, 199), max_size=20))
    moved = data.draw(st.sets(st.integers(0, 199), max_size=20)) - gone
    other = bars
    for row in sorted(moved):
        other = changed(other, row, low=int(bars.low[row]) - TICK)
    kept = np.array(data.draw(st.permutations(sorted(set(range(200)) - gone))), np.int64)
    found = compare_bars(bars, other.take(kept), LIMITS, tick_nanos=TICK, kind="overlap")
    assert (found.numbers["only_ours"], found.numbers["only_other"]) == (len(gone), 0)
    assert found.numbers["price_differs"] == len(moved) == len(found.numbers["first_differing"])
    assert found.status == ("FAIL" if gone or moved else "PASS")
    assert (found.numbers["max_price_ticks"] == 1.0) == bool(moved)


def test_minutes_apart_are_different_bars() -> None:
    later = changed(WHOLE, slice(None), volume=1)
    shifted = Bars(later.ts_open + MINUTE_NS, later.open, later.high, later.low, later.close, WHOLE.volume,
                   later.contract, later.contracts)  # fmt: skip
    found = compare_bars(WHOLE, shifted, LIMITS, tick_nanos=TICK)
    assert found.status == "FAIL"
    assert ReasonCode.BARS_DIFFER in codes(found)
