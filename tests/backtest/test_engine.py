"""Whole backtests: refusals, equity, the result's hash, the same result on every run, in every process and thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from blaid_pipelines.backtest.diagnostics import diagnose
from blaid_pipelines.backtest.engine import ENGINE_VERSION, BacktestSpec, CostModel, run_backtest, simulate
from blaid_pipelines.backtest.ledger import EQUITY_SCHEMA, TRADE_SCHEMA, result_hash
from blaid_pipelines.backtest.reproduce import compare
from blaid_pipelines.reasons import InvalidRequest, ReasonCode, Refused
from tests.backtest.bars import make_bars, make_signals, make_spec, random_market

COSTS = CostModel(1_250_000, 390_000, 470_000, 1)
SPEC = make_spec(
    params={"fast": 5, "slow": 20, "stop_ticks": 25, "target_ticks": 40}, costs=COSTS, daily_loss_limit_cents=75_000
)
MARKET = random_market(21, 8_000, roll_at=4_000)
ROOT = Path(__file__).parents[2]


def test_a_backtest_has_trades_equity_and_metrics_that_agree() -> None:
    result = run_backtest(SPEC, MARKET)
    assert result.trades.schema == TRADE_SCHEMA
    assert result.equity.schema == EQUITY_SCHEMA
    net = result.trades.column("net_pnl_cents").to_numpy()
    equity = result.equity.column("equity_cents").to_numpy()
    assert len(net) > 200
    assert result.metrics.trades == len(net) == result.equity.column("trades").to_numpy().sum()
    assert result.metrics.net_pnl_cents == net.sum() == equity[-1] - SPEC.capital_cents
    assert result.metrics.sessions == len(equity) == len(np.unique(MARKET.session_date))
    assert result.metrics.net_pnl_cents == (
        result.metrics.gross_pnl_cents - result.metrics.commission_cents - result.metrics.slippage_cents
    )
    assert result.metrics.max_drawdown_cents >= result.equity.column("drawdown_cents").to_numpy().max()
    reasons = set(result.trades.column("exit_reason").to_pylist())
    assert {"STOP", "TARGET", "SIGNAL", "SESSION_END"} <= reasons


def test_prices_in_the_ledger_are_ticks_times_tick_size() -> None:
    trades = run_backtest(SPEC, MARKET).trades
    for name in ("entry", "exit"):
        ticks, prices = trades.column(f"{name}_ticks").to_pylist(), trades.column(f"{name}_price").to_pylist()
        assert [int(price * 4) for price in prices] == ticks
        assert all(price * 4 == tick for price, tick in zip(prices, ticks, strict=True))


def test_the_same_inputs_give_the_same_result_in_threads() -> None:
    first = run_backtest(SPEC, MARKET)
    with ThreadPoolExecutor(2) as pool:
        others = list(pool.map(lambda _: run_backtest(SPEC, MARKET), range(4)))
    assert {other.result_hash for other in others} == {first.result_hash}
    assert all(other.trades.equals(first.trades) and other.metrics == first.metrics for other in others)


@pytest.mark.parametrize(
    "change",
    [
        {"costs": CostModel(1_250_000, 390_000, 470_000, 2)},
        {"contracts": 2},
        {"capital_cents": 2_500_001},
        {"params": {"fast": 5, "slow": 20, "stop_ticks": 26, "target_ticks": 40}},
        {"target_gap_at_open": True},
    ],
)
def test_the_hash_sees_every_input(change: dict[str, Any]) -> None:
    document = SPEC.as_json() | {"costs": COSTS, **change}
    assert run_backtest(BacktestSpec(**document), MARKET).result_hash != run_backtest(SPEC, MARKET).result_hash


def test_the_hash_sees_every_value_and_no_chunking() -> None:
    result = run_backtest(SPEC, MARKET)
    again = result_hash(ENGINE_VERSION, SPEC.as_json(), _chunked(result.trades), _chunked(result.equity))
    assert again == result.result_hash
    for field in TRADE_SCHEMA:
        column = result.trades.column(field.name).combine_chunks()
        swapped = pa.concat_arrays([column[1:], column[:1]])
        if swapped.equals(column):
            continue
        position = TRADE_SCHEMA.names.index(field.name)
        changed = result.trades.set_column(position, field, swapped)
        assert result_hash(ENGINE_VERSION, SPEC.as_json(), changed, result.equity) != result.result_hash


def _chunked(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 7), table.slice(7)])


def test_a_specification_survives_json() -> None:
    document = json.loads(json.dumps(SPEC.as_json()))
    assert BacktestSpec.from_json(document) == SPEC
    assert run_backtest(BacktestSpec.from_json(document), MARKET).result_hash == run_backtest(SPEC, MARKET).result_hash


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"capital_cents": 0}, ["capital_cents"]),
        ({"contracts": 0, "margin_per_contract_cents": -1}, ["contracts", "margin_per_contract_cents"]),
        ({"contracts": 1.5}, ["contracts"]),
        ({"contracts": True}, ["contracts"]),
        ({"daily_loss_limit_cents": 0}, ["daily_loss_limit_cents"]),
        ({"costs": CostModel(0, -1, -1, -1)}, ["tick_value_microusd", "commission_per_side_microusd",
                                              "fees_per_side_microusd", "slippage_ticks"]),
    ],
)  # fmt: skip
def test_a_senseless_specification_is_refused_at_once(changes: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make_spec(**changes)
    assert [reason.numbers["field"] for reason in caught.value.reasons] == fields


def test_a_run_that_could_not_trade_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        run_backtest(SPEC, MARKET.slice(0, 21))
    assert caught.value.reason.code is ReasonCode.NOT_ENOUGH_BARS
    assert caught.value.reason.numbers == {"bars": 21, "warmup_bars": 20, "needed": 22}
    with pytest.raises(Refused) as caught:
        run_backtest(make_spec(contracts=2, margin_per_contract_cents=1_250_001), MARKET)
    assert caught.value.reason.code is ReasonCode.MARGIN_EXCEEDS_CAPITAL
    assert caught.value.reason.numbers["margin_cents"] == 2_500_002
    with pytest.raises(InvalidRequest) as unknown:
        run_backtest(make_spec(family="astrology"), MARKET)
    assert unknown.value.reason.code is ReasonCode.STRATEGY_UNKNOWN


def test_no_trade_is_a_result() -> None:
    arrays = make_bars([(100, 101, 99, 100)] * 200)
    result = run_backtest(make_spec(), arrays)
    assert len(result.trades) == 0
    assert result.metrics.trades == 0
    assert result.metrics.profit_factor is None
    assert json.dumps(diagnose(result, arrays, make_spec()), allow_nan=False)


@pytest.mark.parametrize(
    "change",
    [
        {"side": np.array([0, 2, 0, 0], np.int8)},
        {"side": np.array([0, -128, 0, 0], np.int8)},
        {"side": np.array([0, 1, 0], np.int8)},
        {"side": np.array([0, 1, 0, 0], np.int64)},
        {"stop_ticks": np.array([0, -1, 0, 0], np.int32)},
    ],
)
def test_signals_of_a_broken_strategy_are_an_error(change: dict[str, Any]) -> None:
    from dataclasses import replace

    arrays = make_bars([(100, 101, 99, 100)] * 4)
    with pytest.raises(ValueError, match="signals"):
        simulate(make_spec(), arrays, replace(make_signals([0, 1, 0, 0]), **change), 1)


def test_reproduction_is_bit_for_bit_or_says_what_differs() -> None:
    result = run_backtest(SPEC, MARKET)
    wider = result.trades.append_column("bot", pa.array(["one"] * len(result.trades)))
    metrics = json.loads(json.dumps(result.metrics.as_json()))
    fresh = run_backtest(SPEC, MARKET)
    version = ENGINE_VERSION
    assert compare(result.result_hash, wider, fresh, recorded_metrics=metrics, recorded_engine_version=version) == []

    position = TRADE_SCHEMA.names.index("exit_ticks")
    ticks = result.trades.column("exit_ticks").to_pylist()
    ticks[3] += 1
    touched = result.trades.set_column(position, TRADE_SCHEMA.field(position), pa.array(ticks, pa.int32()))
    assert compare(result.result_hash, touched, fresh) == [
        f"trade 3, exit_ticks: recorded {ticks[3]}, now {ticks[3] - 1}"
    ]
    assert compare("00", result.trades, fresh) == [f"result hash: recorded 00, now {fresh.result_hash}"]
    assert compare(result.result_hash, result.trades, fresh, recorded_engine_version="0") == [
        f"engine version: recorded 0, now {ENGINE_VERSION}"
    ]
    changed = metrics | {"psr0": 0.5}
    assert compare(result.result_hash, result.trades, fresh, recorded_metrics=changed) == [
        f"metric psr0: recorded 0.5, now {metrics['psr0']}"
    ]
    shorter = compare(result.result_hash, result.trades.slice(0, 5), fresh)
    assert shorter == [f"trades: recorded 5, now {len(result.trades)}"]
    assert "lacks" in compare(result.result_hash, result.trades.drop_columns(["side"]), fresh)[0]


@pytest.mark.slow
def test_processes_agree_and_compiled_code_is_cached_where_the_environment_says(tmp_path: Path) -> None:
    """A fresh process that compiles and one that loads what the first compiled: one result, one signature."""
    code = (
        "import json\n"
        "from blaid_pipelines.backtest import kernel\n"
        "from blaid_pipelines.backtest.engine import run_backtest\n"
        "from tests.backtest.test_engine import MARKET, SPEC\n"
        "result = run_backtest(SPEC, MARKET)\n"
        "stats = kernel.walk.stats\n"
        "cache = [stats.cache_path, sum(stats.cache_hits.values()), len(kernel.walk.signatures)]\n"
        "print(json.dumps([result.result_hash, result.metrics.as_json(), cache]))\n"
    )
    here = run_backtest(SPEC, MARKET)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    hits = []
    for _ in range(2):
        printed = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
        )
        digest, metrics, (folder, hit, signatures) = json.loads(printed.stdout)
        assert (digest, metrics) == (here.result_hash, here.metrics.as_json())
        assert folder.startswith(str(tmp_path))
        assert signatures == 1
        hits.append(hit)
    assert hits == [0, 1]


def test_the_engine_loads_without_numba() -> None:
    code = "import sys, blaid_pipelines.backtest.engine; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
