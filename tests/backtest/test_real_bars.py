"""The rules on real bars: a month of 6EH4 in minutes, with its no-trade gaps, weekends and a short holiday session."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blaid_pipelines.backtest.arrays import BarArrays, build_arrays
from blaid_pipelines.backtest.diagnostics import diagnose
from blaid_pipelines.backtest.engine import CostModel, run_backtest
from blaid_pipelines.backtest.reference import reference_trades
from blaid_pipelines.backtest.strategy import check_params, get_family
from blaid_pipelines.market.intake.files import read_bar_file
from blaid_pipelines.market.sessions import load_sessions
from tests.backtest.bars import ledger_rows, make_spec
from tests.backtest.test_arrays import MES

pytestmark = pytest.mark.real_data

EURO = replace(
    MES,
    symbol="6E",
    tick_size=Decimal("0.00005"),
    tick_nanos=50_000,
    point_value=Decimal(125_000),
    tick_value_microusd=6_250_000,
    session="CMEGlobex_FX",
)
COSTS = CostModel(6_250_000, 850_000, 1_600_000, 1)


@pytest.fixture(scope="module")
def january(real_data: Path) -> BarArrays:
    path = next((real_data / "eurofx_6E").glob("6EH4*.csv.gz"))
    bars = read_bar_file(path, symbol="6EH4", stamp="close", tz="UTC", schema="ohlcv-1m").bars
    sessions = load_sessions(EURO.session, int(bars.ts_open.min()), int(bars.ts_open.max()) + 1)
    return build_arrays(bars, EURO, sessions)


def test_every_bar_has_a_session_and_every_session_an_end(january: BarArrays) -> None:
    assert len(january) == 29_996
    dates, ends = np.unique(january.session_date), np.flatnonzero(january.flat)
    assert len(ends) in (len(dates), len(dates) - 1)  # the file may stop inside its last session
    assert np.array_equal(january.signal_close, january.close)
    assert 21_000 < january.close.min() < january.close.max() < 22_500  # 1.05 to 1.125 in ticks of 0.00005


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("ma_cross", {"fast": 5, "slow": 30, "stop_ticks": 8, "target_ticks": 12}),
        ("zscore_reversion", {"window": 30, "entry_z": 2, "stop_ticks": 10}),
    ],
)
def test_kernel_and_reference_agree_on_real_bars(january: BarArrays, name: str, params: dict[str, Any]) -> None:
    spec = make_spec(
        family=name, params=params, costs=COSTS, daily_loss_limit_cents=30_000, margin_per_contract_cents=250_000
    )
    result = run_backtest(spec, january)
    family, checked = get_family(name), check_params(get_family(name), params)
    signals = family.signals(january, checked)
    assert result.metrics.trades > 200
    assert ledger_rows(result.trades) == reference_trades(spec, january, signals, family.warmup_bars(checked))
    dates = result.trades.column("session_date").to_numpy()
    held_over = january.session_date[np.searchsorted(january.ts_open, result.trades.column("entry_ts").cast("int64"))]
    assert np.array_equal(dates, held_over)
    assert diagnose(result, january, spec)["overall"]["trades"] == result.metrics.trades
