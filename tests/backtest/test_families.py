"""Strategy families: pure, no look at the future, the same decisions from a later start; registry and parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.engine import run_backtest
from blaid_pipelines.backtest.strategy import FAMILIES, check_params, get_family, params_hash
from blaid_pipelines.reasons import InvalidRequest, ReasonCode
from tests.backtest.bars import ledger_rows, make_bars, make_spec, random_market

SMALL: dict[str, dict[str, Any]] = {
    "ma_cross": {"fast": 3, "slow": 12, "stop_ticks": 15, "target_ticks": 25},
    "zscore_reversion": {"window": 15, "entry_z": 1.2, "stop_ticks": 15},
}
families = pytest.mark.parametrize("name", sorted(FAMILIES))
MARKET = random_market(11, 1_500, session_bars=200, roll_at=800)


def disturbed(arrays: BarArrays, cut: int, seed: int) -> BarArrays:
    """The same bars up to ``cut``, others after it (same sessions and contracts)."""
    other = random_market(seed, len(arrays), session_bars=200, roll_at=800)
    columns = {}
    for name in ("open", "high", "low", "close"):
        shift = int(arrays.close[cut - 1]) - int(other.close[cut - 1])
        columns[name] = np.concatenate([getattr(arrays, name)[:cut], getattr(other, name)[cut:] + shift])
    ohlc = np.stack([columns[name] for name in ("open", "high", "low", "close")], axis=1).tolist()
    return make_bars(ohlc, sessions=arrays.session_date.tolist(), contracts=arrays.contract.tolist())


@families
@settings(max_examples=25, deadline=None)
@given(cut=st.integers(50, 1_450), seed=st.integers(100, 10_000))
def test_a_disturbed_future_changes_no_past_decision_and_no_past_trade(name: str, cut: int, seed: int) -> None:
    family, params = get_family(name), check_params(get_family(name), SMALL[name])
    one, two = family.signals(MARKET, params), family.signals(disturbed(MARKET, cut, seed), params)
    cut_off = family.signals(MARKET.slice(0, cut), params)
    for column in ("side", "stop_ticks", "target_ticks"):
        assert np.array_equal(getattr(one, column)[:cut], getattr(two, column)[:cut])
        assert np.array_equal(getattr(one, column)[:cut], getattr(cut_off, column))
    spec = make_spec(family=name, params=SMALL[name], daily_loss_limit_cents=15_000)
    before = int(MARKET.ts_open[cut - 1])

    def past(arrays: BarArrays) -> list[dict[str, Any]]:
        return [t for t in ledger_rows(run_backtest(spec, arrays).trades) if t["exit_ts"] <= before]

    full = past(MARKET)
    assert past(disturbed(MARKET, cut, seed)) == full
    if cut > family.warmup_bars(params) + 2:
        # an exit that the end of the cut data forces is no decision
        assert [t for t in past(MARKET.slice(0, cut)) if t["exit_reason"] != "DATA_END"] == full


@families
@settings(max_examples=25, deadline=None)
@given(start=st.integers(1, 1_300))
def test_a_later_start_decides_the_same_after_the_warm_up(name: str, start: int) -> None:
    family, params = get_family(name), check_params(get_family(name), SMALL[name])
    warmup = family.warmup_bars(params)
    full, late = family.signals(MARKET, params), family.signals(MARKET.slice(start, len(MARKET)), params)
    # from the bar before the first that may decide: a change compares two of them
    assert np.array_equal(late.side[warmup - 1 :], full.side[start + warmup - 1 :])
    spec = make_spec(family=name, params=SMALL[name])
    known_from = int(MARKET.session_date[start + warmup])

    def trades(arrays: BarArrays) -> list[dict[str, Any]]:
        return [t for t in ledger_rows(run_backtest(spec, arrays).trades) if t["session_date"] > known_from]

    assert trades(MARKET.slice(start, len(MARKET))) == trades(MARKET)


@families
def test_the_warm_up_is_as_short_as_it_can_be_trusted(name: str) -> None:
    family, params = get_family(name), check_params(get_family(name), SMALL[name])
    warmup = family.warmup_bars(params)
    for last in range(warmup, 400, 7):
        window = MARKET.slice(last - warmup, last + 1)
        assert family.signals(window, params).side[-1] == family.signals(MARKET, params).side[last]


@families
def test_signals_do_not_change_with_the_level_of_prices_or_their_input(name: str) -> None:
    family, params = get_family(name), check_params(get_family(name), SMALL[name])
    ohlc = np.stack([MARKET.open, MARKET.high, MARKET.low, MARKET.close], axis=1)
    higher = make_bars((ohlc + 1_000_003).tolist(), sessions=MARKET.session_date.tolist())
    lower = make_bars(ohlc.tolist(), sessions=MARKET.session_date.tolist())
    kept = lower.signal_close.copy()
    assert np.array_equal(family.signals(higher, params).side, family.signals(lower, params).side)
    assert np.array_equal(lower.signal_close, kept)


def test_ma_cross_by_hand() -> None:
    closes = [10, 10, 10, 13, 13, 7, 7, 7]
    arrays = make_bars([(c, c, c, c) for c in closes])
    params = check_params(get_family("ma_cross"), {"fast": 1, "slow": 3})
    # mean of three: -, -, 10, 11, 12, 11, 9, 7
    assert get_family("ma_cross").signals(arrays, params).side.tolist() == [0, 0, 0, 1, 1, -1, -1, 0]


def test_zscore_by_hand() -> None:
    closes = [10, 10, 10, 10, 20, 16, 12, 11, 11, 11, 11, 11]
    arrays = make_bars([(c, c, c, c) for c in closes])
    params = check_params(get_family("zscore_reversion"), {"window": 5, "entry_z": 1.5})
    # bar 4: mean 12, deviation 4, z = 2: short; bar 5: mean 13.2, still over it; bar 6: 12 is under the mean of 13.6
    assert get_family("zscore_reversion").signals(arrays, params).side.tolist() == [
        0,
        0,
        0,
        0,
        -1,
        -1,
        0,
        0,
        0,
        0,
        0,
        0,
    ]


def test_zscore_gives_a_signal_up_after_one_window() -> None:
    closes = [0] * 10 + [100] + [100 + 3 * i for i in range(1, 12)]
    arrays = make_bars([(c, c, c, c) for c in closes])
    params = check_params(get_family("zscore_reversion"), {"window": 10, "entry_z": 2.9})
    side = get_family("zscore_reversion").signals(arrays, params).side
    assert side[10:20].tolist() == [-1] * 10
    assert side[20] == 0


def test_an_empty_or_short_series_decides_nothing() -> None:
    for name, family in FAMILIES.items():
        params = check_params(family, SMALL[name])
        for count in (0, 1, 5):
            assert not family.signals(make_bars([(10, 10, 10, 10)] * count), params).side.any()


@pytest.mark.parametrize(
    ("name", "given_params", "bad"),
    [
        ("ma_cross", {"fast": "x"}, ["fast"]),
        ("ma_cross", {"fast": "2.5"}, ["fast"]),
        ("ma_cross", {"fast": True}, ["fast"]),
        ("ma_cross", {"fast": None}, ["fast"]),
        ("ma_cross", {"fast": "nan", "slow": "inf"}, ["fast", "slow"]),
        ("ma_cross", {"fast": 0, "slow": 99_999, "colour": 1}, ["colour", "fast", "slow"]),
        ("ma_cross", {"fast": 50, "slow": 50}, ["fast"]),
        ("zscore_reversion", {"entry_z": "2.05"}, ["entry_z"]),
        ("zscore_reversion", {"entry_z": "-2"}, ["entry_z"]),
    ],
)
def test_bad_parameters_are_named_all_at_once(name: str, given_params: dict[str, Any], bad: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_params(get_family(name), given_params)
    assert [reason.numbers["parameter"] for reason in caught.value.reasons] == bad
    assert {reason.code for reason in caught.value.reasons} == {ReasonCode.PARAMETER_INVALID}
    assert all(reason.suggested_fix for reason in caught.value.reasons)


def test_text_and_numbers_are_one_parameter_set() -> None:
    family = get_family("zscore_reversion")
    text = check_params(family, {"window": "30", "entry_z": "1.30"})
    assert text == {"window": 30, "entry_z": 1.3, "stop_ticks": 40, "target_ticks": 0}
    assert params_hash(family.name, text) == params_hash(
        family.name, check_params(family, {"window": 30, "entry_z": 1.3})
    )
    assert params_hash(family.name, text) != params_hash("ma_cross", text)


def test_an_unknown_family_names_those_there_are() -> None:
    with pytest.raises(InvalidRequest) as caught:
        get_family("astrology")
    assert caught.value.reason.code is ReasonCode.STRATEGY_UNKNOWN
    assert caught.value.reason.numbers["known"] == ["ma_cross", "zscore_reversion"]


def test_families_describe_themselves_and_have_their_own_hash() -> None:
    hashes = {family.source_hash for family in FAMILIES.values()}
    assert len(hashes) == len(FAMILIES)
    for family in FAMILIES.values():
        assert family.title
        assert family.doc
        assert len(family.source_hash) == 64
        assert check_params(family, {}) == {name: each.default for name, each in family.parameters.items()}
        assert all(each.low <= each.default <= each.high and each.doc for each in family.parameters.values())
