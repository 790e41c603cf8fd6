"""Trade ledgers made by hand, for tests of metrics, gates and explanations: the results are given, not simulated."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import NamedTuple

import pyarrow as pa

from blaid_pipelines.backtest.ledger import TRADE_SCHEMA

MINUTE_NS = 60_000_000_000
DAY_NS = 24 * 60 * MINUTE_NS


class Ledger(NamedTuple):
    """What ``metrics.from_trades(*ledger)`` takes."""

    trades: pa.Table
    sessions: list[int]
    capital_cents: int


def weekdays(count: int, first: date = date(2024, 1, 2)) -> list[int]:
    """``count`` week days from ``first`` on, as yyyymmdd."""
    days: list[int] = []
    day = first
    while len(days) < count:
        if day.weekday() < 5:
            days.append(day.year * 10_000 + day.month * 100 + day.day)
        day += timedelta(days=1)
    return days


def make_ledger(
    results: Sequence[Sequence[int]], capital_cents: int = 2_500_000, *, mae_cents: int | None = None
) -> Ledger:
    """One session per entry of ``results``, one trade of one contract per net result in cents, without costs.

    A trade's MAE is its loss, or ``mae_cents`` for all of them.
    """
    sessions = weekdays(len(results))
    rows = []
    for session, nets in zip(sessions, results, strict=True):
        midnight = (date(session // 10_000, session // 100 % 100, session % 100) - date(1970, 1, 1)).days * DAY_NS
        for number, net in enumerate(nets):
            entry_ts = midnight + (14 * 60 + 30 * number) * MINUTE_NS
            loss = max(-net, 0) if mae_cents is None else mae_cents
            rows.append(
                {
                    "entry_ts": entry_ts,
                    "exit_ts": entry_ts + 10 * MINUTE_NS,
                    "side": 1 if number % 2 == 0 else -1,
                    "contracts": 1,
                    "entry_ticks": 20_000,
                    "entry_price": "5000",
                    "exit_ticks": 20_000 + net // 125 * (1 if number % 2 == 0 else -1),
                    "exit_price": "5000",
                    "exit_reason": "TARGET" if net > 0 else "STOP",
                    "gross_pnl_cents": net,
                    "commission_cents": 0,
                    "slippage_cents": 0,
                    "net_pnl_cents": net,
                    "target_first_net_pnl_cents": net,
                    "mae_ticks": loss // 125,
                    "mfe_ticks": max(net, 0) // 125,
                    "mae_cents": loss,
                    "mfe_cents": max(net, 0),
                    "bars_held": 10,
                    "ambiguous": False,
                    "session_date": session,
                    "contract": "MESH4",
                }
            )
    columns = {}
    for column in TRADE_SCHEMA:
        values = pa.array([row[column.name] for row in rows])
        columns[column.name] = values.cast(column.type) if len(rows) else pa.array([], column.type)
    return Ledger(pa.Table.from_pydict(columns, schema=TRADE_SCHEMA), sessions, capital_cents)


def drawdown_ledger() -> Ledger:
    """A profitable bot over 120 sessions that lost 5,252.03 of its 25,000 dollars in a row: 21.0081 per cent.

    Eight sessions after another lose about 656.50 dollars each; all others gain. Sessions, trades, losers, win rate,
    profit factor and PSR are those of a good bot, and no day loses 3 per cent: the drawdown alone condemns it.
    """
    good = [[12_000 + 500 * (day % 7), 8_000 - 300 * (day % 5)] for day in range(120)]
    for day in range(50, 58):
        good[day] = [-32_825, -32_825]
    good[57] = [-32_825, -32_828]
    return make_ledger(good, 2_500_000)
