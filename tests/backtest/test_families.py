"""The registry of families, the checks of parameters, and the two first families on bars made by hand.

What all families must keep is in ``test_families_conformance.py``; the clock's and the breakouts' rules have files of
their own.
"""

from __future__ import annotations

from typing import Any

import pytest

from blaid_pipelines.backtest.strategy import FAMILIES, check_params, get_family, params_hash
from blaid_pipelines.reasons import InvalidRequest, ReasonCode
from tests.backtest.bars import make_bars


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
    assert caught.value.reason.numbers["known"] == list(FAMILIES)


def test_families_are_listed_by_name() -> None:
    assert list(FAMILIES) == sorted(FAMILIES)
    assert {"ma_cross", "zscore_reversion"} < set(FAMILIES)
