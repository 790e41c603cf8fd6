"""Every family on real bars: a month of 6EH4 in minutes, ES in minutes and hours of 2013 and 2020 over its roll."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from blaid_pipelines.backtest.arrays import BarArrays, build_arrays
from blaid_pipelines.backtest.engine import CostModel, run_backtest
from blaid_pipelines.backtest.families.base import HOUR_NS, MINUTE_NS, bar_length_ns
from blaid_pipelines.backtest.reference import reference_trades
from blaid_pipelines.backtest.strategy import FAMILIES, check_params, get_family
from blaid_pipelines.market.bars import Bars
from blaid_pipelines.market.sessions import load_sessions
from tests.backtest.bars import ledger_rows, make_spec
from tests.backtest.family_markets import CHICAGO
from tests.backtest.test_arrays import MES
from tests.backtest.test_real_bars import COSTS, EURO

pytestmark = pytest.mark.real_data

ES = replace(MES, symbol="ES")
SMALLER: dict[str, dict[str, Any]] = {
    "ma_cross": {"fast": 10, "slow": 60},
    "zscore_reversion": {},
    "opening_range": {"max_entries": 2, "flat_at": 895},
    "vwap_reversion": {"entry_sd": 1.5, "stop_ticks": 15},
    "channel_breakout": {"entry_bars": 60, "exit_bars": 20, "hold_bars": 120},
    "time_of_day": {"stop_ticks": 12},
    "volatility_filter": {"momentum_bars": 60, "long_atr_bars": 300},
}
families = pytest.mark.parametrize("name", sorted(FAMILIES))


def frames(folder: Path, contract: str) -> pd.DataFrame:
    """Bars of one ES contract from the LEAN zips: minutes are milliseconds of a UTC day, hours are stamps."""
    parts = []
    for path in sorted(folder.glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(f"_{contract}.csv"):
                    frame = pd.read_csv(archive.open(name), header=None, names=["t", "o", "h", "l", "c", "v"])
                    if folder.name == "minute":
                        frame["t"] = pd.Timestamp(name[:8]) + pd.to_timedelta(frame["t"], unit="ms")
                    else:
                        frame["t"] = pd.to_datetime(frame["t"], format="%Y%m%d %H:%M")
                    parts.append(frame)
    return pd.concat(parts).sort_values("t")


def arrays_of_lean(folder: Path) -> BarArrays:
    """December 2013 up to its roll on the twelfth, then March 2014; bars in open sessions."""
    old, new = frames(folder, "201312"), frames(folder, "201403")
    roll = pd.Timestamp("2013-12-12 22:00")
    old, new = (
        old[old.t < roll].assign(k="ESZ3"),
        new[(new.t >= roll) & (new.t < pd.Timestamp("2014-03-01"))].assign(k="ESH4"),
    )
    both = pd.concat([old, new])
    stamps = both.t.to_numpy().astype("datetime64[ns]").astype(np.int64)
    prices = [np.rint(both[name].to_numpy() * 4).astype(np.int64) * 250_000_000 for name in "ohlc"]
    bars = Bars.build(stamps, *prices, both.v.to_numpy(), both.k.tolist())
    sessions = load_sessions(ES.session, int(stamps.min()), int(stamps.max()) + 1)
    return build_arrays(bars.take(sessions.session_of(bars.ts_open) >= 0), ES, sessions)


@pytest.fixture(scope="module")
def markets(real_data: Path) -> dict[str, BarArrays]:
    from blaid_pipelines.market.intake.files import read_bar_file

    path = next((real_data / "eurofx_6E").glob("6EH4*.csv.gz"))
    bars = read_bar_file(path, symbol="6EH4", stamp="close", tz="UTC", schema="ohlcv-1m").bars
    sessions = load_sessions(EURO.session, int(bars.ts_open.min()), int(bars.ts_open.max()) + 1)
    return {
        "euro": build_arrays(bars, EURO, sessions),
        "es": arrays_of_lean(real_data / "lean_es" / "minute"),
        "es_hours": arrays_of_lean(real_data / "lean_es" / "hour"),
    }


def test_the_bars_are_what_the_tests_think(markets: dict[str, BarArrays]) -> None:
    lengths = {name: bar_length_ns(arrays) for name, arrays in markets.items()}
    assert lengths == {"euro": MINUTE_NS, "es": MINUTE_NS, "es_hours": HOUR_NS}
    assert {name: len(arrays.contracts) for name, arrays in markets.items()} == {"euro": 1, "es": 2, "es_hours": 2}


@families
@pytest.mark.parametrize("market", ["euro", "es"])
def test_minutes_trade_as_the_plain_reference_says(markets: dict[str, BarArrays], name: str, market: str) -> None:
    arrays, family = markets[market], get_family(name)
    params = check_params(family, SMALLER[name])
    spec = make_spec(
        family=name,
        params=SMALLER[name],
        costs=COSTS if market == "euro" else CostModel(1_250_000, 350_000, 370_000, 1),
    )
    result = run_backtest(spec, arrays)
    signals = family.signals(arrays, params)
    assert result.metrics.trades >= 8
    part = arrays.slice(0, 6_000)  # the reference is slow
    assert ledger_rows(run_backtest(spec, part).trades) == reference_trades(
        spec, part, family.signals(part, params), family.warmup_bars(params)
    )
    half = len(arrays) // 2
    early = family.signals(arrays.slice(0, half), params)
    assert np.array_equal(early.side, signals.side[:half])
    warmup = family.warmup_bars(params)
    late = family.signals(arrays.slice(half, len(arrays)), params)
    assert np.array_equal(late.side[warmup - 1 :], signals.side[half + warmup - 1 :])


@families
def test_hours_decide_after_a_warm_up_of_their_own(markets: dict[str, BarArrays], name: str) -> None:
    arrays, family = markets["es_hours"], get_family(name)
    given = {
        "opening_range": {"range_start": 480, "range_minutes": 60},
        "time_of_day": {"enter_at": 780, "exit_at": 900},
        "channel_breakout": {"entry_bars": 12, "exit_bars": 6, "hold_bars": 20},
        "volatility_filter": {"momentum_bars": 6, "atr_bars": 5, "long_atr_bars": 40},
        "ma_cross": {"fast": 4, "slow": 12},
        "zscore_reversion": {"window": 12},
    }.get(name, {})
    params = check_params(family, given)
    assert np.count_nonzero(family.signals(arrays, params).side[family.warmup_for(params, HOUR_NS) :]) > 5


def test_opening_range_and_time_of_day_trade_at_chicago_times(markets: dict[str, BarArrays]) -> None:
    for market in ("euro", "es"):
        arrays = markets[market]
        for name, given, low, high in (
            ("opening_range", {"last_entry": 660}, 541, 660 + 15),
            ("time_of_day", {}, 840, 855),
        ):
            rows = run_backtest(make_spec(family=name, params=given), arrays).trades.column("entry_ts").cast("int64")
            entered = pd.to_datetime(rows.to_numpy(), utc=True).tz_convert(CHICAGO)
            minutes = entered.hour * 60 + entered.minute
            assert len(minutes) >= 4
            assert low <= minutes.min() <= minutes.max() < high  # a minute without a trade fills a little later
