"""From bars to ticks: exact, flagged where positions must end, rolls out of the signal prices, bad bars refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blaid_pipelines.backtest.arrays import BarArrays, build_arrays
from blaid_pipelines.market.bars import MISSING, MISSING_VOLUME, NOT_FINITE, Bars
from blaid_pipelines.market.expiry import contract_of
from blaid_pipelines.market.instruments import InstrumentSpec
from blaid_pipelines.market.rolls import RollStep
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.reasons import ReasonCode, Refused
from tests.backtest.bars import make_bars, make_signals, make_spec, run

MINUTE_NS = 60_000_000_000
HOUR_NS = 60 * MINUTE_NS
# 2024-01-03, a Wednesday: the session that opened at 17:00 Chicago the evening before
NOON = (date(2024, 1, 3) - date(1970, 1, 1)).days * 24 * HOUR_NS + 18 * HOUR_NS
CLOSE = NOON + 4 * HOUR_NS  # 16:00 Chicago

MES = InstrumentSpec(
    symbol="MES",
    name="Micro E-mini S&P 500",
    exchange="CME",
    mic="XCME",
    tick_size=Decimal("0.25"),
    tick_nanos=250_000_000,
    point_value=Decimal(5),
    tick_value_microusd=1_250_000,
    currency="USD",
    min_qty=1,
    max_qty=100,
    session="CME Globex Equity",
    contract_months="HMUZ",
    price_low=Decimal(100),
    price_high=Decimal(50_000),
    may_be_negative=False,
)


def price(text: str) -> int:
    return int(Decimal(text) * 1_000_000_000)


def bars(stamps: list[int], rows: list[tuple[str, str, str, str]], contract: Any = "MESH4") -> Bars:
    columns = [[price(row[each]) for row in rows] for each in range(4)]
    return Bars.build(stamps, *columns, [7] * len(stamps), contract)


def build(held: Bars, spec: InstrumentSpec = MES) -> BarArrays:
    stamps = held.ts_open
    return build_arrays(held, spec, load_sessions(spec.session, int(stamps.min()), int(stamps.max()) + MINUTE_NS))


ROW = ("4750.25", "4751.00", "4749.75", "4750.50")


def test_prices_are_ticks() -> None:
    arrays = build(bars([NOON, NOON + MINUTE_NS], [ROW, ROW]))
    assert arrays.open.tolist() == [19_001, 19_001]
    assert (arrays.high[0], arrays.low[0], arrays.close[0]) == (19_004, 18_999, 19_002)
    assert arrays.open.dtype == np.int32
    assert arrays.session_date.tolist() == [20240103, 20240103]
    assert arrays.flat.tolist() == [0, 0]
    assert arrays.volume.tolist() == [7, 7]


def test_the_last_bar_of_a_session_is_flagged_also_at_the_end_of_the_data() -> None:
    evening = CLOSE + HOUR_NS
    arrays = build(bars([CLOSE - 2 * MINUTE_NS, CLOSE - MINUTE_NS, evening, evening + MINUTE_NS], [ROW] * 4))
    assert arrays.session_date.tolist() == [20240103, 20240103, 20240104, 20240104]
    assert arrays.flat.tolist() == [0, 1, 0, 0]
    assert build(bars([CLOSE - 2 * MINUTE_NS, CLOSE - MINUTE_NS], [ROW] * 2)).flat.tolist() == [0, 1]


def test_a_session_that_trades_no_last_minute_ends_on_the_last_bar_it_has() -> None:
    arrays = build(bars([CLOSE - 9 * MINUTE_NS, CLOSE - 5 * MINUTE_NS, CLOSE + HOUR_NS], [ROW] * 3))
    assert arrays.flat.tolist() == [0, 1, 0]


def test_an_early_close_ends_a_session() -> None:
    # 2024-07-03: CME equity closes at 12:15 Chicago
    early = (date(2024, 7, 3) - date(1970, 1, 1)).days * 24 * HOUR_NS + 17 * HOUR_NS + 15 * MINUTE_NS
    assert build(bars([early - 2 * MINUTE_NS, early - MINUTE_NS], [ROW] * 2)).flat.tolist() == [0, 1]


def test_a_roll_is_flagged_and_taken_out_of_the_signal_prices_alone() -> None:
    rows = [ROW, ROW, ("4800.00", "4801.00", "4799.50", "4800.75"), ROW]
    arrays = build(bars([NOON + i * MINUTE_NS for i in range(4)], rows, ["MESH4", "MESH4", "MESM4", "MESM4"]))
    step = 19_200 - 19_002  # first open of MESM4 minus last close of MESH4
    assert arrays.flat.tolist() == [0, 2, 0, 0]
    assert arrays.open.tolist() == [19_001, 19_001, 19_200, 19_001]
    assert arrays.signal_open.tolist() == [19_001, 19_001, 19_200 - step, 19_001 - step]
    assert arrays.signal_close.tolist() == [19_002, 19_002, 19_203 - step, 19_002 - step]
    assert [arrays.contracts[code] for code in arrays.contract] == ["MESH4", "MESH4", "MESM4", "MESM4"]
    # what comes after a bar changes nothing of it
    assert build(bars([NOON, NOON + MINUTE_NS], rows[:2])).signal_open.tolist() == arrays.signal_open[:2].tolist()


def test_ticks_below_a_cent_are_exact() -> None:
    zn = replace(MES, symbol="ZN", tick_size=Decimal("0.015625"), tick_nanos=15_625_000)
    rows = [("110.015625", "110.031250", "110.000000", "110.015625")] * 2
    assert build(bars([NOON, NOON + MINUTE_NS], rows), zn).open.tolist() == [7_041, 7_041]
    below_zero = [("-37.75", "-37.50", "-38.00", "-37.75")] * 2
    assert build(bars([NOON, NOON + MINUTE_NS], below_zero)).open.tolist() == [-151, -151]


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("open", MISSING, ReasonCode.FIELD_MISSING),
        ("volume", MISSING_VOLUME, ReasonCode.FIELD_MISSING),
        ("close", NOT_FINITE, ReasonCode.VALUE_NOT_FINITE),
        ("close", price("4750.30"), ReasonCode.OFF_TICK_GRID),
        ("high", price("4750.25"), ReasonCode.OHLC_ORDER),
        ("low", price("4750.50"), ReasonCode.OHLC_ORDER),
        ("high", price("900000000"), ReasonCode.PRICE_SCALE),
        ("ts_open", NOON, ReasonCode.DUPLICATE_KEY),
        ("ts_open", CLOSE + 10 * MINUTE_NS, ReasonCode.OUTSIDE_SESSION),
    ],
)
def test_what_cannot_be_traded_exactly_is_refused(column: str, value: int, code: ReasonCode) -> None:
    good = bars([NOON, NOON + MINUTE_NS, NOON + 2 * MINUTE_NS], [ROW] * 3)
    changed = getattr(good, column).copy()
    changed[1] = value
    with pytest.raises(Refused) as caught:
        build(replace(good, **{column: changed}))
    assert [reason.code for reason in caught.value.reasons] == [code]
    assert caught.value.reason.numbers["bars"] == 1
    assert caught.value.reason.suggested_fix


def test_two_contracts_at_one_time_are_refused() -> None:
    with pytest.raises(Refused) as caught:
        build(bars([NOON, NOON], [ROW] * 2, ["MESH4", "MESM4"]))
    assert caught.value.reason.code is ReasonCode.DUPLICATE_KEY


def test_arrays_that_break_their_promises_cannot_be_made() -> None:
    good = make_bars([(1, 1, 1, 1)] * 4, sessions=[20240102] * 2 + [20240103] * 2, contracts=[0, 0, 0, 1])
    assert good.flat.tolist() == [0, 1, 2, 0]
    for change in (
        {"flat": np.zeros(4, np.uint8)},
        {"ts_open": good.ts_open[::-1].copy()},
        {"open": good.open.astype(np.int64)},
        {"close": good.close[:2]},
    ):
        with pytest.raises(ValueError):
            replace(good, **change)


def test_no_bars_make_empty_arrays() -> None:
    empty = build_arrays(Bars.empty(), MES, load_sessions(MES.session, 0, 0))
    assert len(empty) == 0


def rolled(contracts: str = "HHMM", opens: tuple[str, ...] = ("4750.00", "4751.00", "4800.00", "4802.00")) -> Bars:
    names = {"H": "MESH4", "M": "MESM4", "U": "MESU4"}
    rows = [(text, text, text, text) for text in opens]
    return bars([NOON + i * MINUTE_NS for i in range(len(opens))], rows, [names[letter] for letter in contracts])


def built(held: Bars, steps: list[RollStep] | None = None) -> BarArrays:
    stamps = held.ts_open
    sessions = load_sessions(MES.session, int(stamps.min()), int(stamps.max()) + MINUTE_NS)
    return build_arrays(held, MES, sessions, steps)


def test_a_step_seen_at_the_same_time_replaces_the_estimate() -> None:
    step = RollStep(NOON + 2 * MINUTE_NS, "MESH4", "MESM4", price("48.00"), "same_time")
    arrays = built(rolled(), [step])
    assert (arrays.open - arrays.signal_open).tolist() == [0, 0, 192, 192]
    # the move of 1.00 that the market made over the roll is seen by signals, and is lost in the estimate
    assert np.diff(arrays.signal_close).tolist() == [4, 4, 8]
    assert np.diff(built(rolled()).signal_close).tolist() == [4, 0, 8]
    assert arrays.open.tolist() == built(rolled()).open.tolist(), "fills never see a step"


@pytest.mark.parametrize(
    "other",
    [
        RollStep(NOON + 2 * MINUTE_NS, "MESZ3", "MESH4", price("48.00"), "same_time"),
        RollStep(NOON + 9 * MINUTE_NS, "MESH4", "MESM4", price("48.00"), "same_time"),
        RollStep(NOON + 2 * MINUTE_NS, "MESH4", "MESM4", None, "unknown"),
    ],
)
def test_a_step_of_another_roll_changes_nothing(other: RollStep) -> None:
    assert built(rolled(), [other]).signal_open.tolist() == built(rolled()).signal_open.tolist()


def test_a_step_off_the_tick_grid_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        built(rolled(), [RollStep(NOON + 2 * MINUTE_NS, "MESH4", "MESM4", price("48.10"), "same_time")])
    assert caught.value.reason.code is ReasonCode.OFF_TICK_GRID


@given(
    st.lists(st.tuples(st.integers(-40, 40), st.booleans()), min_size=2, max_size=30),
    st.lists(st.integers(-400, 400), min_size=30, max_size=30),
    st.integers(1, 29),
)
@settings(max_examples=50, deadline=None)
def test_signals_move_as_the_held_contract_and_the_future_moves_nothing(
    moves: list[tuple[int, bool]], spreads: list[int], cut: int
) -> None:
    """Prices walk; some bars begin a new contract at a spread. Signals see the walk alone, and never the spread."""
    walk = 19_000 + np.cumsum([move for move, _ in moves])
    contract = np.cumsum([0, *(new for _, new in moves[1:])])
    spread = np.cumsum([0, *(spreads[i] if moves[i][1] else 0 for i in range(1, len(moves)))])
    closes = (walk + spread) * MES.tick_nanos
    months = [(2024 + int(code) // 4, (int(code) % 4 + 1) * 3) for code in contract]
    names = [f"{contract_of('MES', year, month)[:-1]}{year % 100}" for year, month in months]
    stamps = [NOON + i * MINUTE_NS for i in range(len(moves))]
    given_bars = Bars.build(stamps, closes, closes, closes, closes, [1] * len(moves), names)
    steps = [
        RollStep(stamps[i], names[i - 1], names[i], int(spread[i] - spread[i - 1]) * MES.tick_nanos, "same_time")
        for i in range(1, len(moves))
        if contract[i] != contract[i - 1]
    ]
    arrays = built(given_bars, steps)
    assert arrays.signal_close.tolist() == walk.tolist()
    assert arrays.close.tolist() == (walk + spread).tolist()
    cut = min(cut, len(moves))
    past = built(given_bars.take(slice(0, cut)), steps)
    assert past.signal_close.tolist() == arrays.signal_close[:cut].tolist()
    assert past.close.tolist() == arrays.close[:cut].tolist()


def test_a_position_before_a_roll_ends_at_the_last_bar_of_its_contract_at_its_true_price() -> None:
    step = RollStep(NOON + 4 * MINUTE_NS, "MESH4", "MESM4", price("48.00"), "same_time")
    prices = ("4750.00", "4750.00", "4751.00", "4752.00", "4800.00", "4802.00", "4803.00")
    arrays = built(rolled("HHHHMMM", prices), [step])
    # long throughout; nothing but the roll ends the position
    [trade] = run(make_spec(), arrays, make_signals([0, 1, 1, 1, 1, 1, 1]))
    assert (trade["entry_ts"], trade["exit_ts"]) == (NOON + 2 * MINUTE_NS, NOON + 3 * MINUTE_NS)
    assert trade["exit_ticks"] == int(arrays.close[3]) == 19_008, "the true price of the old contract"
    assert (trade["exit_reason"], trade["contract"]) == ("ROLL", "MESH4")
