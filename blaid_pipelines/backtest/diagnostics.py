"""Diagnostics of a backtest: where its result comes from, each number with its count and interval.

Breakdowns by what was known at entry (side, hour, weekday, volatility, trend, roll) and by how it ended (exit reason,
holding time). They describe; no gate reads them. Regimes use bars up to the one that decided the entry and no later.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from blaid_pipelines.backtest.arrays import LAST_OF_CONTRACT, BarArrays
from blaid_pipelines.backtest.families.windows import window_sum
from blaid_pipelines.backtest.ledger import session_dates, session_rows
from blaid_pipelines.backtest.statistics import mean_interval, stationary_indices, wilson_interval

if TYPE_CHECKING:
    import pyarrow as pa

    from blaid_pipelines.backtest.engine import BacktestResult, BacktestSpec

EXCHANGE_ZONE = "America/Chicago"  # of all instruments in the table: CME, CBOT, NYMEX and COMEX give hours in it
CONFIDENCE = 0.95
RESAMPLES = 500
SESSIONS_A_YEAR = 252

_VOLATILITY_BARS = 60
_LEAST_VOLATILITY_SAMPLES = 30
_TREND_BARS = 240
_TREND_EFFICIENCY = 0.15  # a random walk of 240 bars travels about 0.08 of its path
_ROLL_WEEK_SESSIONS = 5
_HOLDING = ((1, "1"), (5, "2-5"), (15, "6-15"), (60, "16-60"), (240, "61-240"))
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def diagnose(result: BacktestResult, arrays: BarArrays, spec: BacktestSpec) -> dict[str, Any]:
    """JSON-ready diagnostics of ``result``; None wherever a number is undefined for want of trades.

    Keys: ``overall``, ``breakdown`` (one list of buckets per view), ``excursions``, ``intervals`` (stationary
    bootstrap over sessions, seeded by the result's hash), ``worst_day``, ``exposure_pct``, ``turnover_contracts``.
    """
    trades, metrics = result.trades, result.metrics
    net = trades.column("net_pnl_cents").to_numpy()
    return {
        "confidence": CONFIDENCE,
        "zone": EXCHANGE_ZONE,
        "overall": _bucket("all", net) | {"payoff_ratio": metrics.payoff_ratio, "tail_ratio": _tail_ratio(result)},
        "breakdown": _breakdowns(trades, arrays, net),
        "excursions": _excursions(trades, net),
        "intervals": _intervals(trades, arrays, result.result_hash),
        "worst_day": _worst_day(result, spec),
        "exposure_pct": metrics.exposure_pct,
        "turnover_contracts": metrics.turnover_contracts,
        "ambiguous_trades": metrics.ambiguous_trades,
    }


def _bucket(label: str, net: NDArray[np.int64]) -> dict[str, Any]:
    """Count, result, expectancy and win rate of some trades, with intervals."""
    values = net.tolist()
    count, winners = len(values), int((net > 0).sum())
    losses = -int(net[net < 0].sum())
    mean = mean_interval(values, CONFIDENCE)
    share = wilson_interval(winners, count, CONFIDENCE)
    return {
        "bucket": label,
        "trades": count,
        "net_pnl_cents": int(net.sum()),
        "expectancy_cents": int(net.sum()) / count if count else None,
        "expectancy_interval_cents": None if mean is None else list(mean),
        "win_rate_pct": 100 * winners / count if count else None,
        "win_rate_interval_pct": None if share is None else [100 * share[0], 100 * share[1]],
        "profit_factor": int(net[net > 0].sum()) / losses if losses else None,
    }


def _breakdowns(trades: pa.Table, arrays: BarArrays, net: NDArray[np.int64]) -> dict[str, list[dict[str, Any]]]:
    entry_ns = trades.column("entry_ts").cast("int64").to_numpy()
    signal_bar = np.searchsorted(arrays.ts_open, entry_ns) - 1
    zone = ZoneInfo(EXCHANGE_ZONE)
    local = [datetime.fromtimestamp(ns // 1_000_000_000, UTC).astimezone(zone) for ns in entry_ns.tolist()]
    dates = trades.column("session_date").to_pylist()
    views: dict[str, Sequence[str]] = {
        "side": ["LONG" if side > 0 else "SHORT" for side in trades.column("side").to_pylist()],
        "exit_reason": trades.column("exit_reason").to_pylist(),
        "session_part": [_session_part(moment) for moment in local],
        "hour": [f"{moment.hour:02d}" for moment in local],
        "weekday": [_WEEKDAYS[_weekday(session)] for session in dates],
        "month": [f"{session // 10_000}-{session // 100 % 100:02d}" for session in dates],
        "bars_held": [_holding(held) for held in trades.column("bars_held").to_pylist()],
        "volatility": _volatility(arrays, signal_bar),
        "trend": _trend(arrays, signal_bar),
        "roll": _roll(arrays, dates),
    }
    return {view: _grouped(labels, net, _ORDER.get(view)) for view, labels in views.items()}


_ORDER: dict[str, Callable[[str], int]] = {
    "weekday": _WEEKDAYS.index,
    "bars_held": [*(label for _, label in _HOLDING), ">240"].index,
    "volatility": ["LOW", "MIDDLE", "HIGH", "UNKNOWN"].index,
    "trend": ["UP", "RANGE", "DOWN", "UNKNOWN"].index,
}


def _grouped(labels: Sequence[str], net: NDArray[np.int64], order: Callable[[str], int] | None) -> list[dict[str, Any]]:
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    names = sorted(rows) if order is None else sorted(rows, key=order)
    return [_bucket(name, net[rows[name]]) for name in names]


def _session_part(moment: datetime) -> str:
    """Cash hours of US equities (08:30-15:00), the hour after, the European morning (02:00-08:30), else the night."""
    minute = moment.hour * 60 + moment.minute
    if 510 <= minute < 900:
        return "US"
    if 900 <= minute < 1020:
        return "US_CLOSE"
    return "EUROPE" if 120 <= minute < 510 else "ASIA"


def _weekday(session: int) -> int:
    return datetime(session // 10_000, session // 100 % 100, session % 100, tzinfo=UTC).weekday()


def _holding(bars_held: int) -> str:
    return next((label for most, label in _HOLDING if bars_held <= most), ">240")


def _volatility(arrays: BarArrays, signal_bar: NDArray[np.int64]) -> list[str]:
    """Third of the bar range of the last hour of bars among all such hours seen until then."""
    total = window_sum((arrays.high - arrays.low).astype(np.int64), _VOLATILITY_BARS)
    seen: list[int] = []
    next_sample = _VOLATILITY_BARS - 1
    labels = []
    for bar in signal_bar.tolist():
        while next_sample <= bar:
            insort(seen, int(total[next_sample]))
            next_sample += _VOLATILITY_BARS
        if len(seen) < _LEAST_VOLATILITY_SAMPLES:
            labels.append("UNKNOWN")
        else:
            labels.append(("LOW", "MIDDLE", "HIGH")[min(3 * bisect_left(seen, int(total[bar])) // len(seen), 2)])
    return labels


def _trend(arrays: BarArrays, signal_bar: NDArray[np.int64]) -> list[str]:
    """Direction of the last 240 bars, where the way made is a good part of the path walked (Kaufman's efficiency)."""
    close = arrays.signal_close.astype(np.int64)
    path = window_sum(np.abs(np.diff(close, prepend=close[:1])), _TREND_BARS)
    labels = []
    for bar in signal_bar.tolist():
        if bar < _TREND_BARS:
            labels.append("UNKNOWN")
            continue
        move, walked = int(close[bar] - close[bar - _TREND_BARS]), int(path[bar])
        trending = walked > 0 and abs(move) >= _TREND_EFFICIENCY * walked
        labels.append(("UP" if move > 0 else "DOWN") if trending else "RANGE")
    return labels


def _roll(arrays: BarArrays, dates: Sequence[int]) -> list[str]:
    """Whether a session is one of the last five before (and with) a roll seen in the data."""
    sessions = session_dates(arrays)
    rolls = np.searchsorted(sessions, arrays.session_date[arrays.flat == LAST_OF_CONTRACT])
    rows = np.searchsorted(sessions, np.asarray(dates, dtype=np.int32))
    until = rolls[np.minimum(np.searchsorted(rolls, rows), len(rolls) - 1)] - rows if len(rolls) else rows * 0 - 1
    return ["ROLL_WEEK" if 0 <= left < _ROLL_WEEK_SESSIONS else "OTHER" for left in until.tolist()]


def _excursions(trades: pa.Table, net: NDArray[np.int64]) -> dict[str, Any]:
    """Quantiles of MAE and MFE in ticks, of all trades and of winners and losers apart."""
    picks = {"all": net == net, "winners": net > 0, "losers": net < 0}
    result: dict[str, Any] = {}
    for name in ("mae_ticks", "mfe_ticks"):
        ticks = trades.column(name).to_numpy()
        result[name] = {label: _quantiles(ticks[rows]) for label, rows in picks.items()}
    return result


def _quantiles(values: NDArray[np.int32]) -> dict[str, Any]:
    points = ("p25", "p50", "p75", "p95", "max")
    if len(values) == 0:
        return {"trades": 0} | dict.fromkeys(points)
    found = np.quantile(values, [0.25, 0.5, 0.75, 0.95, 1.0])
    return {"trades": len(values)} | dict(zip(points, found.tolist(), strict=True))


def _tail_ratio(result: BacktestResult) -> float | None:
    """95th percentile of the daily result over the size of the 5th; None unless one is a gain and one a loss."""
    daily = result.equity.column("net_pnl_cents").to_numpy()
    if len(daily) == 0:
        return None
    low, high = np.quantile(daily, [0.05, 0.95]).tolist()
    return high / -low if low < 0 < high else None


def _intervals(trades: pa.Table, arrays: BarArrays, result_hash: str) -> dict[str, Any]:
    """Percentile intervals from resampled sessions (not trades: trades of a day share its fate)."""
    sessions = session_dates(arrays)
    names = ("profit_factor", "expectancy_cents", "max_drawdown_cents", "mar")
    if len(sessions) < 2 or len(trades) == 0:
        return {"sessions": len(sessions), "resamples": 0} | dict.fromkeys(names)
    row = session_rows(trades, sessions)
    net = trades.column("net_pnl_cents").to_numpy()
    count = np.bincount(row, minlength=len(sessions))
    gain = np.bincount(row, np.maximum(net, 0), len(sessions))
    loss = np.bincount(row, np.maximum(-net, 0), len(sessions))
    pick = stationary_indices(len(sessions), RESAMPLES, int(result_hash[:16], 16))
    daily = (gain - loss)[pick]
    balance = np.cumsum(daily, axis=1)
    peak = np.maximum(np.maximum.accumulate(balance, axis=1), 0)
    drawdown = (peak - balance).max(axis=1)
    samples = {
        "profit_factor": _quotients(gain[pick].sum(axis=1), loss[pick].sum(axis=1)),
        "expectancy_cents": _quotients(daily.sum(axis=1), count[pick].sum(axis=1)),
        "max_drawdown_cents": drawdown,
        "mar": _quotients(daily.mean(axis=1) * SESSIONS_A_YEAR, drawdown),
    }
    tail = (1 - CONFIDENCE) / 2
    result: dict[str, Any] = {"sessions": len(sessions), "resamples": RESAMPLES}
    for name in names:
        # resamples without a trade or a loss have no value; an interval of what is left would flatter
        whole = len(samples[name]) == RESAMPLES
        result[name] = np.quantile(samples[name], [tail, 1 - tail]).tolist() if whole else None
    return result


def _quotients(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.float64]:
    usable = below > 0
    return np.asarray(above[usable] / below[usable], dtype=np.float64)


def _worst_day(result: BacktestResult, spec: BacktestSpec) -> dict[str, Any]:
    """The worst session against the daily loss limit; the limit acts at closes, so a day may end beyond it."""
    daily = result.equity.column("net_pnl_cents").to_numpy()
    worst = int(daily.argmin()) if len(daily) else None
    limit = spec.daily_loss_limit_cents
    return {
        "sessions": len(daily),
        "session_date": None if worst is None else int(result.equity.column("session_date")[worst].as_py()),
        "net_pnl_cents": None if worst is None else int(daily[worst]),
        "daily_loss_limit_cents": limit,
        "sessions_beyond_limit": None if limit is None else int((daily < -limit).sum()),
        "sessions_with_daily_loss_exit": len(
            {
                session
                for session, reason in zip(
                    result.trades.column("session_date").to_pylist(),
                    result.trades.column("exit_reason").to_pylist(),
                    strict=True,
                )
                if reason == "DAILY_LOSS"
            }
        ),
    }
