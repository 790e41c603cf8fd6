"""What Massive's answers hold, typed and checked: bars, session bars, contracts, the market's status.

Prices are read as the decimals they are written as and become int64 nanos; no float is ever made of them. What an
answer leaves out of a bar stays visible as a sentinel for the quality gate; what contradicts the request (another
ticker, a time outside the range, an order that is none) makes the whole answer unusable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from blaid_pipelines.providers.massive.errors import bad_response, not_entitled
from blaid_pipelines.reasons import BlaidError

Int64 = npt.NDArray[np.int64]

MISSING_PRICE = int(np.iinfo(np.int64).min)
"""A price that the answer leaves out."""
NOT_A_PRICE = 10**18 - 1
"""A price of a billion or more."""
MISSING_VOLUME = -1
PRICES = ("open", "high", "low", "close")
GOOD = ("OK", "DELAYED")
"""A delayed plan is a success; that the newest minutes are not there yet is the caller's business."""


@dataclass(frozen=True, eq=False)
class MassiveBars:
    """Bars of one contract in the order of time. ``ts_open`` nanoseconds UTC, prices int64 in units of 1e-9."""

    ticker: str
    ts_open: Int64
    open: Int64
    high: Int64
    low: Int64
    close: Int64
    volume: Int64
    delayed: bool
    simulated: bool

    def __len__(self) -> int:
        return len(self.ts_open)


@dataclass(frozen=True, slots=True)
class SessionBar:
    """One whole session of one contract; ``window_start`` (ns UTC) is the evening before ``session_end_date``."""

    ticker: str
    session_end_date: date
    window_start: int
    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    close: Decimal | None
    volume: int | None
    settlement_price: Decimal | None


@dataclass(frozen=True, slots=True)
class Contract:
    """One contract as Massive lists it."""

    ticker: str
    product_code: str
    trading_venue: str | None
    active: bool | None
    first_trade_date: date | None
    last_trade_date: date | None
    trade_tick_size: Decimal | None


@dataclass(frozen=True, slots=True)
class MarketStatus:
    """Whether markets are open, by Massive's own clock."""

    market: str
    server_time: str


def read_object(endpoint: str, body: bytes) -> dict[str, Any]:
    """The JSON object of an answer with status 200, its decimals exact."""
    try:
        value = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise bad_response(endpoint, f"is not JSON: {type(error).__name__}", length=len(body)) from None
    if not isinstance(value, dict):
        raise bad_response(endpoint, "is no object", kind=type(value).__name__)
    return value


def read_results(endpoint: str, body: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], bool]:
    """The rows of a list answer, and whether they are delayed; an answer without rows may leave the list out."""
    status = body.get("status")
    if status == "NOT_AUTHORIZED":
        said = str(body.get("message") or body.get("error") or "")[:300]
        raise not_entitled(endpoint, said, {"endpoint": endpoint, "status": status})
    if status not in GOOD:
        raise bad_response(endpoint, "does not say that it is good", status=str(status)[:80])
    rows = body.get("results", [])
    rows = [] if rows is None else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise bad_response(endpoint, "holds no list of rows", kind=type(rows).__name__)
    return rows, status == "DELAYED"


def read_bars(
    endpoint: str, rows: Sequence[Mapping[str, Any]], ticker: str, start_ns: int, end_ns: int, step_ns: int, after: int
) -> npt.NDArray[np.int64]:
    """Rows of bars as an (n, 6) array: time, four prices, volume. Times ascend, the first lies after ``after``."""
    table = np.empty((len(rows), 6), np.int64)
    for number, row in enumerate(rows):
        stamp = _stamp(endpoint, row)
        if row.get("ticker") != ticker:
            raise bad_response(endpoint, "holds another contract", asked=ticker, found=str(row.get("ticker"))[:40])
        if not start_ns <= stamp < end_ns or stamp % step_ns:
            raise bad_response(endpoint, "holds a bar outside of the range or grid asked for", window_start=stamp)
        if stamp <= after:
            raise bad_response(endpoint, "is not in the order of time", window_start=stamp, after=after)
        after = stamp
        table[number] = (stamp, *(_nanos(endpoint, row, name) for name in PRICES), _volume(endpoint, row))
    return table


def read_session_bars(endpoint: str, rows: Sequence[Mapping[str, Any]], ticker: str) -> list[SessionBar]:
    """Rows of session bars, in the order of time."""
    found: list[SessionBar] = []
    for row in rows:
        if row.get("ticker") != ticker:
            raise bad_response(endpoint, "holds another contract", asked=ticker, found=str(row.get("ticker"))[:40])
        session = _date(endpoint, row, "session_end_date")
        if session is None or (found and session <= found[-1].session_end_date):
            raise bad_response(endpoint, "is not in the order of sessions", session=str(row.get("session_end_date")))
        volume = _volume(endpoint, row)
        prices = {name: _decimal(endpoint, row, name) for name in (*PRICES, "settlement_price")}
        found.append(
            SessionBar(
                ticker=ticker,
                session_end_date=session,
                window_start=_stamp(endpoint, row),
                volume=None if volume == MISSING_VOLUME else volume,
                **prices,
            )
        )
    return found


def read_contracts(endpoint: str, rows: Sequence[Mapping[str, Any]], product: str) -> list[Contract]:
    """Rows of contracts of one product."""
    found = []
    for row in rows:
        ticker, code, active = row.get("ticker"), row.get("product_code"), row.get("active")
        if not isinstance(ticker, str) or not ticker or code != product:
            raise bad_response(endpoint, "holds a contract of something else", asked=product, found=str(code)[:40])
        venue = row.get("trading_venue")
        found.append(
            Contract(
                ticker,
                product,
                venue if isinstance(venue, str) else None,
                active if isinstance(active, bool) else None,
                _date(endpoint, row, "first_trade_date"),
                _date(endpoint, row, "last_trade_date"),
                _decimal(endpoint, row, "trade_tick_size"),
            )
        )
    return found


def read_market_status(endpoint: str, body: Mapping[str, Any]) -> MarketStatus:
    """The market's status; an answer without it is none."""
    market, server_time = body.get("market"), body.get("serverTime")
    if not isinstance(market, str) or not isinstance(server_time, str):
        raise bad_response(endpoint, "holds no market status")
    return MarketStatus(market, server_time)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _bad_field(endpoint: str, name: str, value: Any) -> BlaidError:
    return bad_response(endpoint, f"holds a {name} that is none", field=name, value=str(value)[:80])


def _stamp(endpoint: str, row: Mapping[str, Any]) -> int:
    value = row.get("window_start")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**62:
        raise _bad_field(endpoint, "window_start", value)
    return value


def _decimal(endpoint: str, row: Mapping[str, Any], name: str) -> Decimal | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _bad_field(endpoint, name, value)
    return Decimal(value)


def _nanos(endpoint: str, row: Mapping[str, Any], name: str) -> int:
    value = _decimal(endpoint, row, name)
    if value is None:
        return MISSING_PRICE
    if abs(value) >= 10**9:
        return NOT_A_PRICE
    # A trailing digit beyond the ninth is how a binary fraction prints; it is never a price.
    return int((value * 10**9).to_integral_value(ROUND_HALF_EVEN))


def _volume(endpoint: str, row: Mapping[str, Any]) -> int:
    value = _decimal(endpoint, row, "volume")
    if value is None:
        return MISSING_VOLUME
    if not 0 <= value < 2**62 or value != value.to_integral_value():
        raise _bad_field(endpoint, "volume", value)
    return int(value)


def _date(endpoint: str, row: Mapping[str, Any], name: str) -> date | None:
    value = row.get(name)
    if value is None:
        return None
    try:
        return date.fromisoformat(value[:10])
    except (TypeError, ValueError):
        raise _bad_field(endpoint, name, value) from None
