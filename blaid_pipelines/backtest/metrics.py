"""Metrics of a trade ledger: what the gates and the score read. Undefined is None, never NaN and never 0.

Everything is computed from the ledger and the list of sessions, so that whoever holds both can check a number. Which
value is good enough is policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blaid_pipelines.backtest.ledger import equity_table
from blaid_pipelines.backtest.statistics import moments, psr


@dataclass(frozen=True, slots=True)
class Metrics:
    """Money in cents, shares in per cent, Sharpe per session (not annualised).

    Drawdowns are falls below the highest balance so far, the capital at the start included. ``max_drawdown_cents``
    looks at the balance after each trade, ``max_drawdown_intrabar_cents`` also at each trade's worst open moment (its
    MAE). ``max_drawdown_pct`` is per cent of the bot's capital, not of the peak.
    """

    sessions: int
    trades: int
    winners: int
    losers: int
    win_rate_pct: float | None  # of all trades
    profit_factor: float | None  # gains over losses, net; None without a loss
    payoff_ratio: float | None  # mean gain over mean loss
    net_pnl_cents: int
    gross_pnl_cents: int
    commission_cents: int
    slippage_cents: int
    expectancy_cents: float | None  # mean net result of a trade
    max_drawdown_cents: int
    max_drawdown_pct: float
    max_drawdown_intrabar_cents: int
    max_drawdown_intrabar_pct: float
    max_drawdown_sessions: int  # longest stretch of sessions that end below an earlier high
    recovered: bool  # whether the balance ends at its highest
    worst_day_cents: int | None
    best_day_cents: int | None
    winning_days: int
    losing_days: int
    longest_losing_streak: int  # trades in a row
    sharpe_daily: float | None
    skewness_daily: float | None
    kurtosis_daily: float | None  # non-excess
    psr0: float | None
    ambiguous_trades: int
    ambiguous_share: float | None  # of all trades, 0 to 1
    net_pnl_target_first_cents: int
    exposure_pct: float | None  # bars in the market; None when the number of bars is not known
    turnover_contracts: int  # contracts bought plus sold
    average_bars_held: float | None

    def as_json(self) -> dict[str, Any]:
        """JSON-ready values in a fixed order."""
        return asdict(self)

    @staticmethod
    def from_json(document: dict[str, Any]) -> Metrics:
        """The inverse of :meth:`as_json`; ``KeyError`` for an absent field."""
        return Metrics(**{each.name: document[each.name] for each in fields(Metrics)})


def from_trades(
    trades: pa.Table, sessions: Sequence[int] | NDArray[np.int32], capital_cents: int, *, bars: int | None = None
) -> Metrics:
    """The metrics of ``trades`` (columns of ``ledger.TRADE_SCHEMA``, in order of exit).

    ``sessions``: every session of the range as ascending yyyymmdd, also those without a trade; ``bars``: how many bars
    the range has, for the exposure. Raises ``ValueError`` for a trade of an unlisted session or capital below a cent.
    """
    if capital_cents < 1:
        raise ValueError("capital must be at least one cent")
    dates = np.asarray(sessions, dtype=np.int32)
    equity = equity_table(trades, dates, capital_cents)
    daily = equity.column("net_pnl_cents").to_numpy()
    column = {name: trades.column(name).to_numpy() for name in _READ}
    net = column["net_pnl_cents"]
    count = len(net)
    gains, losses = int(net[net > 0].sum()), -int(net[net < 0].sum())
    winners, losers = int((net > 0).sum()), int((net < 0).sum())
    drawdown, intrabar = _drawdowns(net, column["mae_cents"], column["commission_cents"], capital_cents)
    below = equity.column("drawdown_cents").to_numpy() > 0
    days = moments([cents / capital_cents for cents in daily.tolist()])
    ambiguous = int(trades.column("ambiguous").to_numpy().sum())
    held = int(column["bars_held"].sum())
    return Metrics(
        sessions=len(dates),
        trades=count,
        winners=winners,
        losers=losers,
        win_rate_pct=_ratio(100 * winners, count),
        profit_factor=_ratio(gains, losses),
        payoff_ratio=_ratio(gains * losers, losses * winners),
        net_pnl_cents=int(net.sum()),
        gross_pnl_cents=int(column["gross_pnl_cents"].sum()),
        commission_cents=int(column["commission_cents"].sum()),
        slippage_cents=int(column["slippage_cents"].sum()),
        expectancy_cents=_ratio(int(net.sum()), count),
        max_drawdown_cents=drawdown,
        max_drawdown_pct=100 * drawdown / capital_cents,
        max_drawdown_intrabar_cents=intrabar,
        max_drawdown_intrabar_pct=100 * intrabar / capital_cents,
        max_drawdown_sessions=_longest_run(below),
        recovered=not (len(below) and bool(below[-1])),
        worst_day_cents=int(daily.min()) if len(daily) else None,
        best_day_cents=int(daily.max()) if len(daily) else None,
        winning_days=int((daily > 0).sum()),
        losing_days=int((daily < 0).sum()),
        longest_losing_streak=_longest_run(net < 0),
        sharpe_daily=None if days is None else days.sharpe,
        skewness_daily=None if days is None else days.skewness,
        kurtosis_daily=None if days is None else days.kurtosis,
        psr0=None if days is None else psr(days.sharpe, days.count, days.skewness, days.kurtosis),
        ambiguous_trades=ambiguous,
        ambiguous_share=_ratio(ambiguous, count),
        net_pnl_target_first_cents=int(column["target_first_net_pnl_cents"].sum()),
        exposure_pct=None if bars is None else _ratio(100 * held, bars),
        turnover_contracts=2 * int(column["contracts"].sum()),
        average_bars_held=_ratio(held, count),
    )


_READ = (
    "net_pnl_cents",
    "gross_pnl_cents",
    "commission_cents",
    "slippage_cents",
    "target_first_net_pnl_cents",
    "mae_cents",
    "bars_held",
    "contracts",
)


def _drawdowns(
    net: NDArray[np.int64], mae: NDArray[np.int64], commission: NDArray[np.int64], capital_cents: int
) -> tuple[int, int]:
    """Deepest fall of the balance after trades, and of the balance with each trade's worst open moment in it."""
    if len(net) == 0:
        return 0, 0
    after = capital_cents + np.cumsum(net)
    before = after - net
    peak = np.maximum.accumulate(np.concatenate([[capital_cents], after]))
    at_close = int((peak[1:] - after).max())
    # at its worst a trade has paid one side: half of its commission
    at_worst = int((peak[:-1] - (before - mae - commission // 2)).max())
    return max(at_close, 0), max(at_close, at_worst, 0)


def _longest_run(flags: NDArray[np.bool_]) -> int:
    """Length of the longest stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


def _ratio(numerator: int, denominator: int) -> float | None:
    """The quotient; None where it is undefined."""
    if denominator == 0:
        return None
    value = numerator / denominator
    return value if math.isfinite(value) else None
