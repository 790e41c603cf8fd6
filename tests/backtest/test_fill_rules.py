"""One test per row of docs/reference/fill-rules.md: bars and results made by hand, kernel and reference both asked."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from blaid_pipelines.backtest.engine import CostModel, simulate
from tests.backtest.bars import FREE, MINUTE_NS, make_bars, make_signals, make_spec, run

FLAT = (100, 101, 99, 100)
SLIP = CostModel(
    tick_value_microusd=1_250_000, commission_per_side_microusd=0, fees_per_side_microusd=0, slippage_ticks=2
)


def brief(trades: list[dict[str, Any]]) -> list[tuple[int, int, int, int, int, str]]:
    """(entry bar, exit bar, side, entry, exit, reason) of each trade."""
    names = ("entry_ts", "exit_ts", "side", "entry_ticks", "exit_ticks", "exit_reason")
    rows = [tuple(trade[name] for name in names) for trade in trades]
    return [(entry // MINUTE_NS, exit_ // MINUTE_NS, *rest) for entry, exit_, *rest in rows]


def mirrored(ohlc: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """The same bars upside down around 100."""
    return [(200 - o, 200 - low, 200 - high, 200 - c) for o, high, low, c in ohlc]


def both_sides(
    ohlc: list[tuple[int, int, int, int]],
    side: list[int],
    expected: list[tuple[int, int, int, int, int, str]],
    *,
    stop: int = 0,
    target: int = 0,
    sessions: list[int] | None = None,
    contracts: list[int] | None = None,
    ends_session: bool = False,
    **spec: Any,
) -> list[dict[str, Any]]:
    """Run the bars, and run them upside down with the opposite side: the same trades mirrored. Returns the first."""
    shape: dict[str, Any] = {"sessions": sessions, "contracts": contracts, "ends_session": ends_session}
    trades = run(make_spec(**spec), make_bars(ohlc, **shape), make_signals(side, stop, target))
    assert brief(trades) == expected
    opposite = run(
        make_spec(**spec), make_bars(mirrored(ohlc), **shape), make_signals([-s for s in side], stop, target)
    )
    assert brief(opposite) == [(a, b, -s, 200 - x, 200 - y, why) for a, b, s, x, y, why in expected]
    for name in ("net_pnl_cents", "mae_ticks", "mfe_ticks", "ambiguous", "target_first_net_pnl_cents", "bars_held"):
        assert [t[name] for t in opposite] == [t[name] for t in trades]
    return trades


def test_every_row_of_the_table_has_a_test() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "fill-rules.md"
    rules = set(re.findall(r"^\| `(\w+)` \|", page.read_text(), flags=re.MULTILINE))
    tests = {name.removeprefix("test_rule_") for name in globals() if name.startswith("test_rule_")}
    assert rules == tests


def test_rule_entry_at_next_open() -> None:
    bars = [FLAT, FLAT, (104, 106, 103, 105), (105, 106, 104, 105)]
    both_sides(bars, [0, 1, 1, 1], [(2, 3, 1, 106, 103, "DATA_END")], costs=SLIP)


def test_rule_entry_only_on_change() -> None:
    bars = [FLAT, FLAT, (100, 100, 90, 95), *[FLAT] * 5]
    both_sides(
        bars,
        [0, 1, 1, 1, 0, 1, 1, 1],
        [(2, 2, 1, 100, 95, "STOP"), (6, 7, 1, 100, 100, "DATA_END")],
        stop=5,
    )


def test_rule_entry_not_in_warmup() -> None:
    arrays, signals = make_bars([FLAT] * 8), make_signals([0, 0, 1, 1, 0, 0, -1, -1])
    assert [t["side"] for t in run(make_spec(), arrays, signals, warmup_bars=2)] == [1, -1]
    assert [t["side"] for t in run(make_spec(), arrays, signals, warmup_bars=3)] == [-1]
    assert run(make_spec(), arrays, signals, warmup_bars=7) == []


def test_rule_entry_not_into_next_session() -> None:
    both_sides([FLAT] * 6, [0, 0, 1, 1, 1, 1], [], sessions=[20240102] * 3 + [20240103] * 3)


def test_rule_entry_not_on_last_bar() -> None:
    both_sides([FLAT] * 6, [0, 1, 1, 1, 1, 1], [], sessions=[20240102] * 3 + [20240103] * 3)
    both_sides([FLAT] * 6, [0, 1, 1, 1, 1, 1], [], contracts=[0] * 3 + [1] * 3)
    both_sides([FLAT] * 3, [0, 1, 1], [], ends_session=True)


def test_rule_levels_from_entry_fill() -> None:
    # filled at 102: the stop is at 97, not at 95; the distance is that of the deciding bar, not of later ones
    bars = make_bars([FLAT, FLAT, (100, 101, 98, 100), (100, 101, 97, 100)])
    trades = run(make_spec(costs=SLIP), bars, make_signals([0, 1, 1, 1], [9, 5, 1, 1], 0))
    assert brief(trades) == [(2, 3, 1, 102, 95, "STOP")]
    bars = make_bars([FLAT, FLAT, (100, 106, 99, 100), (100, 107, 99, 100)])
    trades = run(make_spec(costs=SLIP), bars, make_signals([0, 1, 1, 1], 0, [9, 5, 1, 1]))
    assert brief(trades) == [(2, 3, 1, 102, 107, "TARGET")]


def test_rule_exit_on_signal() -> None:
    bars = [FLAT, FLAT, FLAT, FLAT, (110, 112, 109, 111), FLAT]
    both_sides(bars, [0, 1, 1, 0, 0, 0], [(2, 4, 1, 102, 108, "SIGNAL")], costs=SLIP)


def test_rule_reversal_at_one_open() -> None:
    bars = [FLAT, FLAT, FLAT, FLAT, (110, 112, 109, 111), (111, 112, 110, 111)]
    expected = [(2, 4, 1, 102, 108, "SIGNAL"), (4, 5, -1, 108, 113, "DATA_END")]
    both_sides(bars, [0, 1, 1, -1, -1, -1], expected, costs=SLIP)


def test_rule_signal_exit_before_stop() -> None:
    below = [FLAT, FLAT, FLAT, FLAT, (90, 92, 88, 90), FLAT]
    both_sides(below, [0, 1, 1, 0, 0, 0], [(2, 4, 1, 100, 90, "SIGNAL")], stop=5)
    above = [FLAT, FLAT, FLAT, FLAT, (110, 112, 108, 110), FLAT]
    both_sides(above, [0, 1, 1, 0, 0, 0], [(2, 4, 1, 100, 110, "SIGNAL")], target=5)


def test_rule_stop_on_touch() -> None:
    bars = [FLAT, FLAT, FLAT, (100, 100, 96, 98), (98, 99, 95, 97), FLAT]
    both_sides(bars, [0, 1, 1, 1, 1, 1], [(2, 4, 1, 100, 95, "STOP")], stop=5)
    both_sides(bars, [0, 1, 1, 1, 1, 1], [(2, 3, 1, 102, 95, "STOP")], stop=5, costs=SLIP)


def test_rule_stop_live_on_entry_bar() -> None:
    both_sides([FLAT, FLAT, (100, 103, 95, 102), FLAT], [0, 1, 1, 1], [(2, 2, 1, 100, 95, "STOP")], stop=5)
    both_sides([FLAT, FLAT, (100, 105, 99, 102), FLAT], [0, 1, 1, 1], [(2, 2, 1, 100, 105, "TARGET")], target=5)
    # slippage as wide as the stop: the open is at the stop already
    both_sides([FLAT, FLAT, FLAT, FLAT], [0, 1, 1, 1], [(2, 2, 1, 102, 98, "STOP")], stop=2, costs=SLIP)


def test_rule_stop_gap() -> None:
    bars = [FLAT, FLAT, FLAT, (90, 93, 89, 92), FLAT]
    both_sides(bars, [0, 1, 1, 1, 1], [(2, 3, 1, 100, 90, "STOP")], stop=5)
    both_sides(bars, [0, 1, 1, 1, 1], [(2, 3, 1, 102, 88, "STOP")], stop=5, costs=SLIP)


def test_rule_target_on_touch() -> None:
    bars = [FLAT, FLAT, FLAT, (100, 104, 99, 103), (103, 105, 102, 104), FLAT]
    both_sides(bars, [0, 1, 1, 1, 1, 1], [(2, 4, 1, 100, 105, "TARGET")], target=5)
    trades = both_sides(bars, [0, 1, 1, 1, 1, 1], [(2, 4, 1, 102, 105, "TARGET")], target=3, costs=SLIP)
    assert trades[0]["slippage_cents"] == 250  # the entry's two ticks alone


def test_rule_target_gap() -> None:
    bars = [FLAT, FLAT, FLAT, (110, 112, 109, 111), FLAT]
    both_sides(bars, [0, 1, 1, 1, 1], [(2, 3, 1, 100, 105, "TARGET")], target=5)
    both_sides(bars, [0, 1, 1, 1, 1], [(2, 3, 1, 100, 110, "TARGET")], target=5, target_gap_at_open=True)


def test_rule_both_touched() -> None:
    bars = [FLAT, FLAT, FLAT, (100, 106, 94, 101), FLAT]
    expected = [(2, 3, 1, 100, 95, "STOP")]
    trades = both_sides(bars, [0, 1, 1, 1, 1], expected, stop=5, target=4)
    assert trades[0]["ambiguous"]
    assert (trades[0]["net_pnl_cents"], trades[0]["target_first_net_pnl_cents"]) == (-625, 500)
    # with slippage: the stop at 97 fills at 95, the target at 106 would have filled there
    expected = [(2, 3, 1, 102, 95, "STOP")]
    trades = both_sides(bars, [0, 1, 1, 1, 1], expected, stop=5, target=4, costs=SLIP)
    assert (trades[0]["net_pnl_cents"], trades[0]["target_first_net_pnl_cents"]) == (-875, 500)


@pytest.mark.parametrize("first", [94, 95])  # beyond the stop, and exactly at it
def test_rule_both_touched_open_beyond_stop(first: int) -> None:
    bars = [FLAT, FLAT, FLAT, (first, 106, 93, 101), FLAT]
    trades = both_sides(bars, [0, 1, 1, 1, 1], [(2, 3, 1, 100, first, "STOP")], stop=5, target=4)
    assert not trades[0]["ambiguous"]
    assert trades[0]["target_first_net_pnl_cents"] == trades[0]["net_pnl_cents"] == 125 * (first - 100)


@pytest.mark.parametrize(("at_open", "target_first_cents"), [(False, 500), (True, 750)])
def test_rule_both_touched_open_beyond_target(at_open: bool, target_first_cents: int) -> None:
    bars = [FLAT, FLAT, FLAT, (106, 107, 94, 101), FLAT]
    expected = [(2, 3, 1, 100, 95, "STOP")]
    trades = both_sides(bars, [0, 1, 1, 1, 1], expected, stop=5, target=4, target_gap_at_open=at_open)
    assert trades[0]["ambiguous"]
    assert trades[0]["target_first_net_pnl_cents"] == target_first_cents


def test_rule_session_end() -> None:
    sessions = [20240102] * 4 + [20240103] * 2
    bars = [FLAT, FLAT, FLAT, (100, 103, 97, 102), FLAT, FLAT]
    both_sides(bars, [0, 1, 1, 1, 1, 1], [(2, 3, 1, 102, 100, "SESSION_END")], sessions=sessions, costs=SLIP)
    both_sides(bars, [0, 1, 1, 1, 1, 1], [(2, 3, 1, 100, 103, "TARGET")], sessions=sessions, target=3)
    both_sides(bars, [0, 1, 1, 1, 1, 1], [(2, 3, 1, 100, 97, "STOP")], sessions=sessions, stop=3)
    both_sides(bars[:4], [0, 1, 1, 1], [(2, 3, 1, 100, 102, "SESSION_END")], ends_session=True)


def test_rule_session_end_off() -> None:
    sessions = [20240102] * 4 + [20240103] * 2
    held = [(2, 5, 1, 100, 100, "DATA_END")]
    both_sides([FLAT] * 6, [0, 1, 1, 1, 1, 1], held, sessions=sessions, flatten_sessions=False)
    filled = [(4, 5, 1, 100, 100, "DATA_END")]
    both_sides([FLAT] * 6, [0, 0, 0, 1, 1, 1], filled, sessions=sessions, flatten_sessions=False)


@pytest.mark.parametrize("flatten", [True, False])
def test_rule_roll(flatten: bool) -> None:
    contracts = [0] * 4 + [1] * 4
    rolled = [FLAT, FLAT, FLAT, FLAT, *[(150, 151, 149, 150)] * 4]
    spec: dict[str, Any] = {"contracts": contracts, "flatten_sessions": flatten}
    both_sides(rolled, [0, 1, 1, 1, 1, 1, 1, 1], [(2, 3, 1, 102, 98, "ROLL")], costs=SLIP, **spec)
    both_sides(rolled, [0, 0, 0, 1, 1, 1, 1, 1], [], **spec)
    # the session ends on the same bar: still a roll
    sessions = [20240102] * 4 + [20240103] * 4
    trades = both_sides(rolled, [0, 1] + [1] * 6, [(2, 3, 1, 100, 100, "ROLL")], sessions=sessions, **spec)
    assert trades[0]["contract"] == "C0"


def test_rule_data_end() -> None:
    bars = [FLAT, FLAT, FLAT, (100, 105, 99, 104)]
    both_sides(bars, [0, 1, 1, 1], [(2, 3, 1, 102, 102, "DATA_END")], costs=SLIP)
    both_sides(bars, [0, 0, 0, 1], [])  # a change on the last bar of all has no next open


def test_rule_daily_loss_open() -> None:
    # 8 ticks are 10 dollars: reached at the close of bar 4, filled at the open of bar 5
    bars = [FLAT, FLAT, FLAT, (100, 100, 90, 93), (93, 93, 91, 92), (91, 95, 91, 95), FLAT]
    side = [0, 1, 1, 1, 1, 1, 1]
    both_sides(bars, side, [(2, 5, 1, 100, 91, "DAILY_LOSS")], daily_loss_limit_cents=1_000)
    both_sides(bars, side, [(2, 5, 1, 102, 89, "DAILY_LOSS")], daily_loss_limit_cents=1_200, costs=SLIP)
    both_sides(bars, side, [(2, 6, 1, 100, 100, "DATA_END")], daily_loss_limit_cents=1_001)


def test_rule_daily_loss_blocks_entries() -> None:
    bars = [FLAT, FLAT, FLAT, (100, 100, 92, 92), (92, 92, 91, 92), *[FLAT] * 8]
    side = [0, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1]
    sessions = [20240102] * 8 + [20240103] * 5
    expected = [(2, 4, 1, 100, 92, "DAILY_LOSS"), (11, 12, 1, 100, 100, "DATA_END")]
    both_sides(bars, side, expected, sessions=sessions, daily_loss_limit_cents=1_000)


def test_rule_daily_loss_realised() -> None:
    # two stops of 4 ticks (5 dollars each); costs of 0.50 a side make that 12, and 12.50 with the third entry's side
    bars = [FLAT, FLAT, (100, 100, 96, 100), FLAT, FLAT, (100, 100, 96, 100), FLAT, FLAT, FLAT]
    side = [0, 1, 0, 0, 1, 0, 1, 1, 1]
    first_two = [(2, 2, 1, 100, 96, "STOP"), (5, 5, 1, 100, 96, "STOP")]
    third = [(7, 8, 1, 100, 100, "DATA_END")]
    both_sides(bars, side, first_two, stop=4, daily_loss_limit_cents=1_000)
    both_sides(bars, side, first_two + third, stop=4, daily_loss_limit_cents=1_001)
    paid = CostModel(1_250_000, 300_000, 200_000, 0)
    both_sides(bars, side, first_two + third, stop=4, daily_loss_limit_cents=1_251, costs=paid)
    both_sides(bars, side, first_two, stop=4, daily_loss_limit_cents=1_200, costs=paid)


def test_rule_daily_loss_before_signal() -> None:
    bars = [FLAT, FLAT, FLAT, (100, 100, 90, 92), FLAT, FLAT]
    both_sides(bars, [0, 1, 1, -1, -1, -1], [(2, 4, 1, 100, 100, "DAILY_LOSS")], daily_loss_limit_cents=1_000)
    # a loss that a signal exit realises at an open does not stop the reversal at that open: no close between them
    bars = [FLAT, FLAT, FLAT, FLAT, (92, 92, 92, 92), (92, 92, 92, 92), (92, 92, 92, 92)]
    expected = [(2, 4, 1, 100, 92, "SIGNAL"), (4, 5, -1, 92, 92, "DAILY_LOSS")]
    both_sides(bars, [0, 1, 1, -1, -1, -1, -1], expected, daily_loss_limit_cents=1_000)


def test_rule_daily_loss_across_sessions() -> None:
    sessions = [20240102] * 4 + [20240103] * 4
    down = [FLAT, FLAT, FLAT, (100, 100, 94, 94), (94, 94, 90, 90), (90, 90, 86, 86), FLAT, FLAT]
    side = [0, 1, 1, 1, 1, 1, 1, 1]
    both_sides(
        down,
        side,
        [(2, 6, 1, 100, 100, "DAILY_LOSS")],  # 8 ticks below the mark of 94, 14 below the entry
        sessions=sessions,
        flatten_sessions=False,
        daily_loss_limit_cents=1_000,
    )


def test_rule_costs() -> None:
    costs = CostModel(1_250_000, commission_per_side_microusd=390_000, fees_per_side_microusd=470_000, slippage_ticks=1)
    bars = [FLAT, FLAT, FLAT, FLAT, (110, 112, 109, 111), FLAT]
    trade = both_sides(bars, [0, 1, 1, 0, 0, 0], [(2, 4, 1, 101, 109, "SIGNAL")], costs=costs)[0]
    assert trade["commission_cents"] == 172
    assert trade["slippage_cents"] == 250
    assert trade["gross_pnl_cents"] == 1_250
    assert trade["net_pnl_cents"] == 1_250 - 250 - 172


def test_rule_size_and_margin() -> None:
    arrays, signals = make_bars([FLAT, FLAT, (100, 110, 100, 110), FLAT]), make_signals([0, 1, 0, 0])
    costs = CostModel(1_250_000, 500_000, 0, 0)
    trade = run(make_spec(contracts=3, costs=costs), arrays, signals)[0]
    assert (trade["contracts"], trade["net_pnl_cents"], trade["commission_cents"]) == (3, -300, 300)
    fits = make_spec(contracts=2, capital_cents=10_000, margin_per_contract_cents=5_000)
    assert len(run(fits, arrays, signals)) == 1
    # a first loss of 10 ticks leaves 87.50 of 100 dollars: too little for a margin of 90
    losing = make_bars([FLAT, FLAT, (100, 100, 90, 90), (90, 90, 90, 90), FLAT, FLAT, FLAT])
    again = make_signals([0, 1, 0, 0, 1, 0, 0])
    small = make_spec(capital_cents=10_000, margin_per_contract_cents=8_751)
    assert len(run(small, losing, again)) == 1
    assert len(run(make_spec(capital_cents=10_000, margin_per_contract_cents=8_750), losing, again)) == 2


def test_rule_cents_exact() -> None:
    # ZN: a tick of 1/64 is worth 15.625 dollars; five trades of one tick are 78.125, not five times 15.63
    costs = CostModel(15_625_000, 0, 0, 0)
    bars = make_bars([FLAT, FLAT] + [(100, 101, 100, 101), (101, 101, 100, 100)] * 5 + [FLAT], tick_nanos=15_625_000)
    table = simulate(make_spec(costs=costs), bars, make_signals([0, 1, 0] + [1, 0] * 4 + [0, 0]), 1)
    trades = run(make_spec(costs=costs), bars, make_signals([0, 1, 0] + [1, 0] * 4 + [0, 0]))
    assert [t["net_pnl_cents"] for t in trades] == [1563, 1562, 1563, 1562, 1563]
    assert sum(t["net_pnl_cents"] for t in trades) == 7_813
    assert table.column("entry_price")[0].as_py() == Decimal("1.5625")
    assert table.column("exit_price")[0].as_py() == Decimal("1.578125")
    # commissions below a cent add up, too: 3 trades of 2 x 0.003 are 1.8 cents
    tiny = make_spec(costs=CostModel(1_250_000, 3_000, 0, 0))
    trades = run(tiny, make_bars([FLAT] * 9), make_signals([0, 1, 0, 1, 0, 1, 0, 0, 0]))
    assert [t["commission_cents"] for t in trades] == [1, 0, 1]
    assert all(t["net_pnl_cents"] == t["gross_pnl_cents"] - t["commission_cents"] for t in trades)


@pytest.mark.parametrize(
    ("last_bar", "side", "stop", "target", "mae", "mfe"),
    [
        pytest.param((99, 120, 95, 100), [0, 1, 1, 1, 1], 5, 0, 5, 3, id="stop: best up to the open alone"),
        pytest.param((90, 120, 80, 100), [0, 1, 1, 1, 1], 5, 0, 10, 3, id="gap through stop: the open"),
        pytest.param((101, 120, 96, 100), [0, 1, 1, 1, 1], 0, 10, 4, 10, id="target: worst in full"),
        pytest.param((101, 120, 80, 100), [0, 1, 1, 0, 0], 0, 0, 2, 3, id="signal: the open alone"),
        pytest.param((101, 120, 80, 100), [0, 1, 1, 1, 1], 0, 0, 20, 20, id="close: the whole bar"),
    ],
)
def test_rule_excursions(
    last_bar: tuple[int, int, int, int], side: list[int], stop: int, target: int, mae: int, mfe: int
) -> None:
    bars = [FLAT, FLAT, (100, 101, 98, 100), (100, 103, 99, 100), last_bar]
    arrays = make_bars(bars)
    trade = run(make_spec(contracts=2), arrays, make_signals(side, stop, target))[0]
    assert (trade["mae_ticks"], trade["mfe_ticks"]) == (mae, mfe)
    assert (trade["mae_cents"], trade["mfe_cents"]) == (250 * mae, 250 * mfe)


def test_rule_bars_held() -> None:
    def held(side: list[int], stop: int = 0) -> list[int]:
        bars = [FLAT, FLAT, FLAT, FLAT, (100, 101, 90, 100), FLAT]
        return [t["bars_held"] for t in run(make_spec(), make_bars(bars), make_signals(side, stop))]

    assert held([0, 1, 0, 0, 0, 0]) == [1]  # in at the open of bar 2, out at the open of bar 3
    assert held([0, 1, 1, 1, 1, 1], stop=5) == [3]  # bars 2, 3, 4
    assert held([0, 1, 1, 1, 1, 1]) == [4]


def test_rule_booking() -> None:
    sessions = [20240102] * 4 + [20240103] * 3
    spec, signals = make_spec(flatten_sessions=False), make_signals([0, 1, 1, 1, 0, 0, 0])
    trade = run(spec, make_bars([FLAT] * 7, sessions=sessions), signals)[0]
    assert (trade["session_date"], trade["contract"]) == (20240103, "C0")
    assert (trade["entry_ts"], trade["exit_ts"]) == (2 * MINUTE_NS, 5 * MINUTE_NS)
    assert trade["slippage_cents"] == FREE.slippage_ticks == 0
