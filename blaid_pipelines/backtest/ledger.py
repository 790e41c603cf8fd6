"""From fills to a trade ledger in exact cents, its equity by session, and the hash of both.

Money is summed in millionths of a dollar and rounded as an account's balance is: the balance after each trade is the
exact sum rounded to the cent (halves up), and a trade's cents are the difference of two balances. So the ledger adds
up to the exact total, also where a tick is worth fractions of a cent (ZN: 15.625 dollars), and a single trade is less
than a cent off its exact value.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blaid_pipelines.backtest.arrays import BarArrays
from blaid_pipelines.ids import canonical_json

if TYPE_CHECKING:
    from blaid_pipelines.backtest.engine import BacktestSpec

EXIT_REASONS = ("SIGNAL", "STOP", "TARGET", "SESSION_END", "ROLL", "DAILY_LOSS", "DATA_END")
"""Why a trade ended; the position is the kernel's code."""

_TIME = pa.timestamp("ns", tz="UTC")
_PRICE = pa.decimal128(18, 9)

TRADE_SCHEMA = pa.schema(
    [
        pa.field("entry_ts", _TIME, nullable=False),  # ts_open of the bar at whose open the entry filled
        pa.field("exit_ts", _TIME, nullable=False),  # ts_open of the bar in which the exit filled
        pa.field("side", pa.int8(), nullable=False),
        pa.field("contracts", pa.int32(), nullable=False),
        pa.field("entry_ticks", pa.int32(), nullable=False),  # fills, slippage included
        pa.field("entry_price", _PRICE, nullable=False),
        pa.field("exit_ticks", pa.int32(), nullable=False),
        pa.field("exit_price", _PRICE, nullable=False),
        pa.field("exit_reason", pa.string(), nullable=False),
        pa.field("gross_pnl_cents", pa.int64(), nullable=False),  # before commission and slippage
        pa.field("commission_cents", pa.int64(), nullable=False),  # commission and fees, both sides
        pa.field("slippage_cents", pa.int64(), nullable=False),
        pa.field("net_pnl_cents", pa.int64(), nullable=False),  # gross - commission - slippage
        pa.field("target_first_net_pnl_cents", pa.int64(), nullable=False),  # net, had the target come first
        pa.field("mae_ticks", pa.int32(), nullable=False),  # worst and best distance from the entry fill, >= 0
        pa.field("mfe_ticks", pa.int32(), nullable=False),
        pa.field("mae_cents", pa.int64(), nullable=False),
        pa.field("mfe_cents", pa.int64(), nullable=False),
        pa.field("bars_held", pa.int32(), nullable=False),  # bars whose range the position went through
        pa.field("ambiguous", pa.bool_(), nullable=False),
        pa.field("session_date", pa.int32(), nullable=False),  # yyyymmdd of the exit: where the result is booked
        pa.field("contract", pa.string(), nullable=False),
    ]
)

EQUITY_SCHEMA = pa.schema(
    [
        pa.field("session_date", pa.int32(), nullable=False),
        pa.field("net_pnl_cents", pa.int64(), nullable=False),
        pa.field("equity_cents", pa.int64(), nullable=False),  # at the session's end, realised
        pa.field("drawdown_cents", pa.int64(), nullable=False),  # below the highest session end so far, >= 0
        pa.field("trades", pa.int32(), nullable=False),
    ]
)

_MICRO_PER_CENT = 10_000


def trades_table(fills: NDArray[np.int64], spec: BacktestSpec, arrays: BarArrays) -> pa.Table:
    """The ledger of kernel ``fills`` (int64, (trades, FILL_COLUMNS)) as a table of :data:`TRADE_SCHEMA`."""
    from blaid_pipelines.backtest import kernel

    entry_bar, exit_bar = fills[:, kernel.ENTRY_BAR], fills[:, kernel.EXIT_BAR]
    side, reason = fills[:, kernel.SIDE], fills[:, kernel.REASON]
    entry, exit_ = fills[:, kernel.ENTRY], fills[:, kernel.EXIT]
    count = len(fills)
    costs = spec.costs
    tick = costs.tick_value_microusd * spec.contracts
    round_turn = 2 * (costs.commission_per_side_microusd + costs.fees_per_side_microusd) * spec.contracts
    net = _booked(side * (exit_ - entry) * tick - round_turn)
    commission = _booked(np.full(count, round_turn, dtype=np.int64))
    slippage = _booked((1 + (reason != kernel.TARGET)) * costs.slippage_ticks * tick)
    target_gain = side * (fills[:, kernel.TARGET_FIRST_EXIT] - exit_) * tick
    at_open = (reason == kernel.SIGNAL) | (reason == kernel.DAILY_LOSS)
    reasons = np.array(EXIT_REASONS)
    contracts = np.array(arrays.contracts, dtype=object)
    columns: dict[str, Any] = {
        "entry_ts": pa.array(arrays.ts_open[entry_bar]).cast(_TIME),
        "exit_ts": pa.array(arrays.ts_open[exit_bar]).cast(_TIME),
        "side": side.astype(np.int8),
        "contracts": np.full(count, spec.contracts, dtype=np.int32),
        "entry_ticks": entry.astype(np.int32),
        "entry_price": _prices(entry * arrays.tick_nanos),
        "exit_ticks": exit_.astype(np.int32),
        "exit_price": _prices(exit_ * arrays.tick_nanos),
        "exit_reason": pa.array(reasons[reason], pa.string()),
        "gross_pnl_cents": net + commission + slippage,
        "commission_cents": commission,
        "slippage_cents": slippage,
        "net_pnl_cents": net,
        "target_first_net_pnl_cents": net + _cents(target_gain),
        "mae_ticks": fills[:, kernel.ADVERSE].astype(np.int32),
        "mfe_ticks": fills[:, kernel.FAVOURABLE].astype(np.int32),
        "mae_cents": _cents(fills[:, kernel.ADVERSE] * tick),
        "mfe_cents": _cents(fills[:, kernel.FAVOURABLE] * tick),
        "bars_held": (exit_bar - entry_bar + ~at_open).astype(np.int32),
        "ambiguous": fills[:, kernel.AMBIGUOUS] != 0,
        "session_date": arrays.session_date[exit_bar],
        "contract": pa.array(contracts[arrays.contract[exit_bar]], pa.string()),
    }
    return pa.Table.from_pydict(columns, schema=TRADE_SCHEMA)


def session_dates(arrays: BarArrays) -> NDArray[np.int32]:
    """The sessions that have bars, in order, as yyyymmdd."""
    return np.unique(arrays.session_date).astype(np.int32)


def equity_table(trades: pa.Table, sessions: NDArray[np.int32], capital_cents: int) -> pa.Table:
    """One row per session of ``sessions``; sessions without a trade have 0. Of :data:`EQUITY_SCHEMA`.

    Raises ``ValueError`` for a trade of a session that is not in the list.
    """
    row = session_rows(trades, sessions)
    net = np.zeros(len(sessions), dtype=np.int64)
    np.add.at(net, row, trades.column("net_pnl_cents").to_numpy())
    equity = capital_cents + np.cumsum(net)
    peak = np.maximum.accumulate(np.concatenate([[capital_cents], equity]))[1:]
    columns = {
        "session_date": sessions.astype(np.int32),
        "net_pnl_cents": net,
        "equity_cents": equity,
        "drawdown_cents": peak - equity,
        "trades": np.bincount(row, minlength=len(sessions)).astype(np.int32),
    }
    return pa.Table.from_pydict(columns, schema=EQUITY_SCHEMA)


def session_rows(trades: pa.Table, sessions: NDArray[np.int32]) -> NDArray[np.int64]:
    """Index into ``sessions`` (ascending) of each trade. ``ValueError`` when one is not in the list."""
    dates = trades.column("session_date").to_numpy()
    row = np.searchsorted(sessions, dates)
    if len(dates) and (len(sessions) == 0 or (sessions[np.minimum(row, len(sessions) - 1)] != dates).any()):
        raise ValueError("a trade belongs to a session that is not in the list")
    return np.asarray(row, dtype=np.int64)


def result_hash(engine_version: str, spec_json: dict[str, Any], trades: pa.Table, equity: pa.Table) -> str:
    """sha256 over the engine's version, the specification and every value of trades and equity, bit for bit.

    Computed from values, not from a file: how a table is chunked or stored does not matter.
    """
    digest = hashlib.sha256(b"blaid-result-1|")
    digest.update(f"{engine_version}|{canonical_json(spec_json)}|".encode())
    for table, schema in ((trades, TRADE_SCHEMA), (equity, EQUITY_SCHEMA)):
        digest.update(f"{len(table)}|".encode())
        for column in schema:
            digest.update(f"{column.name}|".encode())
            digest.update(_column_bytes(table.column(column.name), column.type))
    return digest.hexdigest()


def _column_bytes(column: pa.ChunkedArray, kind: pa.DataType) -> bytes:
    if pa.types.is_string(kind) or pa.types.is_decimal(kind):
        return "\0".join(str(value) for value in column.to_pylist()).encode()
    whole = column.cast(pa.int64()) if pa.types.is_timestamp(kind) or pa.types.is_boolean(kind) else column
    data: bytes = whole.to_numpy().astype("<i8").tobytes()
    return data


def _cents(micro: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole cents of each amount, halves up."""
    return (micro + _MICRO_PER_CENT // 2) // _MICRO_PER_CENT


def _booked(micro: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cents of each amount as differences of the rounded running balance."""
    balance = _cents(np.cumsum(micro, dtype=np.int64))
    return np.asarray(np.diff(balance, prepend=np.int64(0)), dtype=np.int64)


def _prices(nanos: NDArray[np.int64]) -> pa.Array:
    """int64 prices in 1e-9 as decimal128(18, 9): its 16 bytes are the integer itself, low word first."""
    words = np.empty((len(nanos), 2), dtype="<i8")
    words[:, 0] = nanos
    words[:, 1] = nanos >> 63
    return pa.Array.from_buffers(_PRICE, len(nanos), [None, pa.py_buffer(words.tobytes())])
