"""The compiled kernel and the plain reference make the same ledger, every column, over bars that nobody would draw."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from blaid_pipelines.backtest.engine import CostModel
from tests.backtest.bars import make_bars, make_signals, make_spec, run


@st.composite
def markets(draw: st.DrawFn) -> tuple[Any, Any]:
    """Bars with gaps, sessions and rolls of any length, and signals that may do anything, distances per bar."""
    count = draw(st.integers(2, 40))
    steps = st.integers(-6, 6) | st.integers(-40, 40)
    previous, ohlc, sessions, contracts = 100, [], [], []
    session, contract = 20240102, 0
    for _ in range(count):
        open_ = previous + draw(steps)
        close = open_ + draw(steps)
        high = max(open_, close) + draw(st.integers(0, 5))
        low = min(open_, close) - draw(st.integers(0, 5))
        ohlc.append((open_, high, low, close))
        sessions.append(session)
        contracts.append(contract)
        previous = close
        session += draw(st.sampled_from([0, 0, 0, 0, 0, 1]))
        contract += draw(st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 1]))
    arrays = make_bars(ohlc, sessions=sessions, contracts=contracts, ends_session=draw(st.booleans()))
    side = draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=count, max_size=count))
    distances = st.lists(st.sampled_from([0, 0, 1, 2, 3, 5, 8, 20]), min_size=count, max_size=count)
    return arrays, make_signals(side, draw(distances), draw(distances))


specs = st.builds(
    make_spec,
    costs=st.builds(
        CostModel,
        tick_value_microusd=st.sampled_from([1_250_000, 15_625_000, 31_250_000, 3_333]),
        commission_per_side_microusd=st.sampled_from([0, 350_000, 4_999]),
        fees_per_side_microusd=st.sampled_from([0, 370_001]),
        slippage_ticks=st.integers(0, 3),
    ),
    capital_cents=st.sampled_from([5_000, 50_000, 2_500_000]),
    contracts=st.integers(1, 3),
    margin_per_contract_cents=st.sampled_from([0, 4_000, 16_000]),
    daily_loss_limit_cents=st.none() | st.integers(1, 30_000),
    flatten_sessions=st.booleans(),
    target_gap_at_open=st.booleans(),
)


@settings(max_examples=250, deadline=None)
@given(market=markets(), spec=specs, warmup_bars=st.integers(0, 5))
def test_kernel_and_reference_agree(market: tuple[Any, Any], spec: Any, warmup_bars: int) -> None:
    arrays, signals = market
    trades = run(spec, arrays, signals, warmup_bars)  # compares
    for trade in trades:
        assert trade["net_pnl_cents"] == trade["gross_pnl_cents"] - trade["commission_cents"] - trade["slippage_cents"]
        assert trade["mae_ticks"] >= 0
        assert trade["mfe_ticks"] >= 0
        assert trade["target_first_net_pnl_cents"] == trade["net_pnl_cents"] or trade["ambiguous"]
    assert all(one["exit_ts"] <= two["entry_ts"] for one, two in pairwise(trades))
