"""What every strategy family must keep, whatever its rule: :class:`TestConformance`, run on parameter sets of each.

A new family gets its rows in ``CASES``; a test fails while it has none.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.backtest.engine import run_backtest
from blaid_pipelines.backtest.families.base import DAY_NS, HOUR_NS, MINUTE_NS, Signals, StrategyFamily
from blaid_pipelines.backtest.strategy import FAMILIES, check_params, get_family, params_hash
from blaid_pipelines.reasons import InvalidRequest, ReasonCode, Refused
from tests.backtest.bars import ledger_rows, make_bars, make_spec, run
from tests.backtest.family_markets import AUTUMN, arrays_of, clock_market, disturbed, ohlc_of

COLUMNS = ("side", "stop_ticks", "target_ticks")


class Case(NamedTuple):
    """A family and one parameter set; ``market`` as in ``MARKETS``."""

    family: str
    given: dict[str, Any]
    market: str = "minutes"

    @property
    def rule(self) -> StrategyFamily:
        return get_family(self.family)

    @property
    def params(self) -> dict[str, Any]:
        return check_params(self.rule, self.given)


MARKETS = {
    # the weekend on which clocks go forward, a roll, minutes without a trade
    "minutes": clock_market(11, sessions=8, keep=0.6, roll_session=4, roll_step=500),
    "hours": clock_market(12, first=AUTUMN, sessions=40, bar_minutes=60, keep=0.97, roll_session=20, roll_step=-800),
}
CASES = [
    Case("ma_cross", {"fast": 3, "slow": 12, "stop_ticks": 15, "target_ticks": 25}),
    Case("ma_cross", {"fast": 2, "slow": 9, "stop_ticks": 60}, "hours"),
    Case("zscore_reversion", {"window": 15, "entry_z": 1.2, "stop_ticks": 15}),
    Case("zscore_reversion", {"window": 8, "entry_z": 1.0}, "hours"),
    Case("opening_range", {}),
    Case(
        "opening_range",
        {"range_start": -1, "range_minutes": 15, "max_entries": 3, "exit_inside": 1, "stop_ranges": 0.5},
    ),
    Case("opening_range", {"max_entries": 4, "last_entry": 660, "flat_at": 895, "stop_ticks": 9, "target_ranges": 1.5}),
    Case("opening_range", {"range_start": 480, "range_minutes": 120, "max_entries": 2, "buffer_ticks": 0}, "hours"),
    Case("vwap_reversion", {"entry_sd": 1.5, "stop_ticks": 25}),
    Case("vwap_reversion", {"anchor": 510, "entry_sd": 0, "entry_ticks": 12, "last_entry": 840, "flat_at": 899}),
    Case("vwap_reversion", {"anchor": 1020, "entry_sd": 1, "settle_minutes": 120, "stop_ticks": 0}, "hours"),
    Case("channel_breakout", {"entry_bars": 20, "exit_bars": 10, "hold_bars": 30, "stop_ticks": 20}),
    Case("channel_breakout", {"entry_bars": 40, "exit_bars": 5, "hold_bars": 90, "each_session": 0, "buffer_ticks": 2}),
    Case("channel_breakout", {"entry_bars": 10, "exit_bars": 5, "hold_bars": 12, "stop_ticks": 0}, "hours"),
    Case("time_of_day", {"stop_ticks": 12}),
    Case("time_of_day", {"enter_at": 900, "exit_at": 510, "side": -1, "weekdays": 13}),
    Case("time_of_day", {"enter_at": 1320, "exit_at": 300, "target_ticks": 80}, "hours"),
    Case("volatility_filter", {"momentum_bars": 20, "atr_bars": 10, "long_atr_bars": 90, "ratio_low": 0.6}),
    Case("volatility_filter", {"momentum_bars": 9, "atr_bars": 5, "long_atr_bars": 40, "each_session": 0}, "hours"),
]
LENGTHS = {"minutes": MINUTE_NS, "hours": HOUR_NS}
cases = pytest.mark.parametrize("case", CASES, ids=[f"{case.family}-{n}" for n, case in enumerate(CASES)])
families = pytest.mark.parametrize("name", sorted(FAMILIES))


def warmup_of(case: Case) -> int:
    """The shorter of the two promises: it must hold on bars of this length."""
    return case.rule.warmup_for(case.params, LENGTHS[case.market])


def assert_same(one: Signals, two: Signals, first: slice, second: slice) -> None:
    for name in COLUMNS:
        assert np.array_equal(getattr(one, name)[first], getattr(two, name)[second]), name


def test_every_family_has_cases_on_minutes_and_on_hours() -> None:
    assert {(case.family, case.market) for case in CASES} == {(f, m) for f in FAMILIES for m in MARKETS}


class TestConformance:
    """The contract in the docstring of ``StrategyFamily``, sentence by sentence."""

    @cases
    def test_shape_type_and_range_are_those_the_engine_takes(self, case: Case) -> None:
        market = MARKETS[case.market]
        signals = case.rule.signals(market, case.params)
        for name, dtype in zip(COLUMNS, (np.int8, np.int32, np.int32), strict=True):
            column = getattr(signals, name)
            assert (column.dtype, column.shape, column.flags.c_contiguous) == (dtype, (len(market),), True)
        assert set(np.unique(signals.side)) <= {-1, 0, 1}
        assert min(signals.stop_ticks.min(), signals.target_ticks.min()) >= 0

    @cases
    def test_the_case_decides_something(self, case: Case) -> None:
        market = MARKETS[case.market]
        side = case.rule.signals(market, case.params).side
        decided = side[warmup_of(case) :]
        assert 4 <= np.count_nonzero(np.diff(decided)) < len(decided) / 2

    @cases
    def test_the_same_input_gives_the_same_output_and_stays_as_it_was(self, case: Case) -> None:
        market = MARKETS[case.market]
        arrays = [each.name for each in fields(market) if isinstance(getattr(market, each.name), np.ndarray)]
        kept = {name: getattr(market, name).copy() for name in arrays}
        everything = slice(None)
        one, params = case.rule.signals(market, case.params), case.params
        again = type(case.rule)().signals(market.slice(0, len(market)), params)
        assert_same(one, again, everything, everything)
        assert params == case.params
        assert all(np.array_equal(kept[name], getattr(market, name)) for name in arrays)

    @cases
    @settings(max_examples=12, deadline=None)
    @given(data=st.data(), seed=st.integers(100, 10_000))
    def test_a_disturbed_future_changes_no_past_decision_and_no_past_trade(
        self, case: Case, data: st.DataObject, seed: int
    ) -> None:
        market = MARKETS[case.market]
        cut = data.draw(st.integers(60, len(market) - 2))
        past, other = slice(0, cut), disturbed(market, cut, seed)
        full = case.rule.signals(market, case.params)
        assert_same(full, case.rule.signals(other, case.params), past, past)
        assert_same(full, case.rule.signals(market.slice(0, cut), case.params), past, past)
        if cut > case.rule.warmup_bars(case.params) + 2:
            before = int(market.ts_open[cut - 1])
            spec = make_spec(family=case.family, params=case.given, daily_loss_limit_cents=15_000)

            def done(arrays: BarArrays) -> list[dict[str, Any]]:
                rows = ledger_rows(run_backtest(spec, arrays).trades)
                return [row for row in rows if row["exit_ts"] <= before and row["exit_reason"] != "DATA_END"]

            assert done(market) == done(other) == done(market.slice(0, cut))

    @cases
    @settings(max_examples=12, deadline=None)
    @given(data=st.data())
    def test_a_later_start_decides_the_same_after_the_warm_up(self, case: Case, data: st.DataObject) -> None:
        market, warmup = MARKETS[case.market], warmup_of(case)
        start = data.draw(st.integers(1, len(market) - warmup - 10))
        late = case.rule.signals(market.slice(start, len(market)), case.params)
        full = case.rule.signals(market, case.params)
        # from the bar before the first that may decide: a change compares two of them
        assert_same(full, late, slice(start + warmup - 1, None), slice(warmup - 1, None))

    @cases
    def test_the_trailing_window_of_the_warm_up_is_enough(self, case: Case) -> None:
        market, warmup = MARKETS[case.market], warmup_of(case)
        full = case.rule.signals(market, case.params)
        for last in range(warmup, len(market), 37):
            window = case.rule.signals(market.slice(last - warmup, last + 1), case.params)
            assert_same(full, window, slice(last, last + 1), slice(-1, None))

    @cases
    def test_only_differences_of_prices_matter(self, case: Case) -> None:
        market = MARKETS[case.market]
        everything, ohlc = slice(None), ohlc_of(market)
        higher = arrays_of(market.ts_open, ohlc + 1_000_003, market.volume, market.session_date, market.contract)
        assert_same(
            case.rule.signals(market, case.params), case.rule.signals(higher, case.params), everything, everything
        )

    @cases
    @pytest.mark.parametrize("step", [-3_000, 40, 3_000])
    def test_the_step_of_a_roll_is_no_signal(self, case: Case, step: int) -> None:
        market = MARKETS[case.market]
        everything, ohlc = slice(None), ohlc_of(market)
        ohlc[market.contract == 1] += step
        rolled = arrays_of(market.ts_open, ohlc, market.volume, market.session_date, market.contract)
        assert_same(
            case.rule.signals(market, case.params), case.rule.signals(rolled, case.params), everything, everything
        )

    @cases
    def test_kernel_and_reference_agree_on_its_signals(self, case: Case) -> None:
        market = MARKETS[case.market]
        signals = case.rule.signals(market, case.params)
        spec = make_spec(family=case.family, params=case.given, daily_loss_limit_cents=20_000)
        trades = run(spec, market, signals, warmup_of(case))  # compares
        assert len(trades) >= 2
        assert all(trade["session_date"] in market.session_date for trade in trades)

    @cases
    def test_params_hash_is_that_of_the_values(self, case: Case) -> None:
        base = params_hash(case.family, case.params)
        texts = {name: str(value) for name, value in case.params.items()}
        assert params_hash(case.family, check_params(case.rule, texts)) == base
        seen = {base}
        for name, value in case.params.items():
            seen.add(params_hash(case.family, case.params | {name: value + case.rule.parameters[name].step}))
        assert len(seen) == len(case.params) + 1

    @families
    def test_an_empty_or_short_series_decides_nothing(self, name: str) -> None:
        params = check_params(get_family(name), {})
        for count in (0, 1, 5):
            signals = get_family(name).signals(make_bars([(10, 10, 10, 10)] * count), params)
            assert not signals.side.any()
            assert len(signals.stop_ticks) == len(signals.target_ticks) == count

    @families
    def test_bars_it_is_not_suited_to_are_refused_with_the_reason(self, name: str) -> None:
        family = get_family(name)
        params = check_params(family, {})
        days = clock_market(5, sessions=90, bar_minutes=23 * 60)
        seconds = clock_market(5, sessions=1)
        seconds = arrays_of(seconds.ts_open // 60, ohlc_of(seconds), seconds.volume, seconds.session_date)
        assert family.unsuited(params, MINUTE_NS) == []
        for bar_ns, market in ((DAY_NS, days), (MINUTE_NS // 60, seconds)):
            reasons = family.unsuited(params, bar_ns)
            assert {reason.code for reason in reasons} <= {ReasonCode.BARS_UNSUITED}
            if reasons:
                with pytest.raises(Refused) as caught:
                    family.signals(market, params)
                assert caught.value.reasons == tuple(reasons)
                assert all(reason.suggested_fix for reason in reasons)
            else:
                family.signals(market, params)

    @families
    def test_bad_parameters_are_refused_all_at_once(self, name: str) -> None:
        family = get_family(name)
        for wrong in ("x", None, True, "nan", "inf", "-inf", 1e300, "0.123456"):
            with pytest.raises(InvalidRequest) as caught:
                check_params(family, {**dict.fromkeys(family.parameters, wrong), "moon": 1})
            assert {reason.numbers["parameter"] for reason in caught.value.reasons} == {*family.parameters, "moon"}
        for each, parameter in family.parameters.items():
            for wrong in (parameter.low - parameter.step, parameter.high + parameter.step):
                with pytest.raises(InvalidRequest) as caught:
                    check_params(family, {each: wrong})
                assert [reason.numbers["parameter"] for reason in caught.value.reasons] == [each]
                assert caught.value.reason.code is ReasonCode.PARAMETER_INVALID

    @families
    def test_it_describes_itself(self, name: str) -> None:
        family = get_family(name)
        assert family.name == name
        assert name.isidentifier()
        assert name == name.lower()
        assert family.title
        assert family.doc.endswith(".")
        assert check_params(family, {}) == {key: each.default for key, each in family.parameters.items()}
        for parameter in family.parameters.values():
            assert parameter.low <= parameter.default <= parameter.high
            assert parameter.doc.endswith(".")
        params = check_params(family, {})
        assert family.warmup_bars(params) >= 1
        for bar_ns in (MINUTE_NS, HOUR_NS):
            assert 1 <= family.warmup_for(params, bar_ns) <= family.warmup_bars(params)

    @families
    def test_its_hash_covers_every_helper_it_reads(self, name: str) -> None:
        family = get_family(name)
        own = inspect.getmodule(type(family))
        assert own is not None
        helpers, todo = set(), [own]
        while todo:
            for helper in _helpers(todo.pop()) - helpers:
                helpers.add(helper)
                todo.append(helper)
        assert helpers == set(family.uses)
        assert len(family.source_hash) == 64


def _helpers(module: ModuleType) -> set[ModuleType]:
    """Modules beside the families that ``module`` imports, without the contract itself."""
    package = "blaid_pipelines.backtest.families"
    names = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            names |= {f"{package}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            names.add(str(node.module))
    return {__import__(each, fromlist=["_"]) for each in names if each != f"{package}.base"}


def test_no_two_families_share_a_hash() -> None:
    assert len({family.source_hash for family in FAMILIES.values()}) == len(FAMILIES)
