"""Massive's REST protocol for futures, answered from series: path and query in, status and body out.

No sockets here (``gateway`` has them). Contracts only: a series of a continuous symbol is served as the contracts that
it is made of, each for the dates on which it led. Pages, cursors, the shapes of errors and the session bars follow the
service's documentation; the product's adapter is not consulted, and the official client reads these answers in a test.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.providers.databento.dbn import MISSING_PRICE
from blaid_pipelines.sandbox.contracts import DATASET, PRODUCTS, expiry_of, raw_root
from blaid_pipelines.sandbox.databento import Reply, json_reply
from blaid_pipelines.sandbox.series import DAY, I64, PRICES, Series, utc_nanos

AGGS = "futures/v1/aggs"
CONTRACTS = "futures/v1/contracts"
STATUS = "v1/marketstatus/now"
PATHS = (f"/{AGGS}", f"/{CONTRACTS}", f"/{STATUS}")

DEFAULT_LIMIT, MAX_LIMIT = 1000, 50_000
_RESOLUTION = re.compile(r"([1-9]\d*)(sec|min|hour|session|week|month|quarter|year)")
_SERVED = {"1min": "ohlcv-1m", "1hour": "ohlcv-1h"}


class _Denied(Exception):
    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def endpoint_of(path: str) -> str | None:
    """The endpoint that a request path belongs to, without its contract; None for other paths."""
    name = path.strip("/")
    if name.startswith(f"{AGGS}/"):
        return AGGS
    return name if name in {CONTRACTS, STATUS} or name.startswith(("futures/v1/", "v1/marketstatus/")) else None


def error_reply(status: int, text: str, request_id: str) -> Reply:
    """An error as Massive words it."""
    if status == 403:
        return json_reply({"status": "NOT_AUTHORIZED", "request_id": request_id, "message": text}, status)
    if status == 404:
        return json_reply({"status": "NOT_FOUND", "request_id": request_id, "message": text}, status)
    return json_reply({"status": "ERROR", "request_id": request_id, "error": text}, status)


def key_of(authorization: str, params: Mapping[str, str]) -> str | None:
    """The key that a request brings, as a bearer token or as ``apiKey``."""
    kind, _, value = authorization.partition(" ")
    return value.strip() if kind.lower() == "bearer" and value.strip() else params.get("apiKey")


class MassiveService:
    """Answers requests over a fixed list of one-minute series."""

    def __init__(self, series: Sequence[Series]) -> None:
        # A contract that is served as a series of its own comes before the same contract inside a continuous one.
        self._series = sorted(series, key=lambda item: "." in item.symbol)

    def answer(
        self, method: str, path: str, params: Mapping[str, str], base_url: str, request_id: str, now: datetime
    ) -> Reply:
        """The reply to ``method`` on ``path`` with query ``params``; next pages are named under ``base_url``."""
        endpoint = endpoint_of(path)
        if method != "GET":
            return error_reply(405, "Method not allowed.", request_id)
        try:
            if endpoint == AGGS:
                return self._aggs(unquote(path.strip("/").rpartition("/")[2]), params, base_url, request_id)
            if endpoint == CONTRACTS:
                return self._contracts(params, base_url, request_id)
            if endpoint == STATUS:
                return json_reply(_market_status(now))
        except _Denied as denied:
            return denied.reply
        return error_reply(404, "Page not found.", request_id)

    # aggregates

    def _aggs(self, ticker: str, given: Mapping[str, str], base_url: str, request_id: str) -> Reply:
        params = _with_cursor(given, request_id)
        resolution = params.get("resolution", "1session")
        limit = _limit(params, request_id)
        descending = _descending(params.get("sort", "window_start.desc"), "window_start", request_id)
        if _RESOLUTION.fullmatch(resolution) is None or resolution not in {*_SERVED, "1session"}:
            raise _Denied(error_reply(400, f"resolution value is not allowed: {resolution}", request_id))
        bars = self._bars(ticker)
        if resolution != "1session":
            bars = bars.resampled(_SERVED[resolution])
            bars = bars.take(_inside(bars.ts_open, params, request_id))
            bars = bars.take(np.arange(len(bars))[::-1]) if descending else bars
            first = int(params.get("_from", "0"))
            rows = _bar_rows(ticker, bars.take(np.arange(first, min(first + limit, len(bars)))))
            return _reply(f"{AGGS}/{quote(ticker)}", params, rows, first + limit, len(bars), base_url, request_id)
        rows = _session_rows(ticker, bars)
        kept = _inside(np.array([row["window_start"] for row in rows], np.int64), params, request_id)
        rows = [row for row, keep in zip(rows, kept, strict=True) if keep]
        if descending:
            rows.reverse()
        return _page(f"{AGGS}/{quote(ticker)}", params, rows, limit, base_url, request_id)

    def _bars(self, ticker: str) -> Series:
        """The minutes of a contract in the order of time; none for one that is not known, as for one without trades."""
        for series in self._series:
            own = [lead.instrument_id for lead in series.leads if lead.raw_symbol == ticker]
            if own:
                bars = series.take(np.isin(series.instrument_id, own))
                return bars.take(np.argsort(bars.ts_open, kind="stable"))
        none = np.empty(0, np.int64)
        return Series(DATASET, ticker, "ohlcv-1m", none, none, none, none, none, none, none, ())

    # contracts

    def _contracts(self, given: Mapping[str, str], base_url: str, request_id: str) -> Reply:
        params = _with_cursor(given, request_id)
        limit = _limit(params, request_id, 100)
        found: dict[str, dict[str, Any]] = {}
        for series in self._series:
            for lead in series.leads:
                found.setdefault(lead.raw_symbol, _contract(lead.raw_symbol, lead.start, lead.end))
        rows = [found[name] for name in sorted(found)]
        for name in ("product_code", "ticker"):
            rows = [row for row in rows if params.get(name) in (None, row[name])]
        on = params.get("date")
        if on is not None:
            rows = [row for row in rows if str(row["first_trade_date"]) <= on <= str(row["last_trade_date"])]
        if _descending(params.get("sort", "ticker.asc"), "ticker", request_id):
            rows.reverse()
        return _page(CONTRACTS, params, rows, limit, base_url, request_id)


def _page(
    path: str, params: Mapping[str, str], rows: list[dict[str, Any]], limit: int, base_url: str, request_id: str
) -> Reply:
    first = int(params.get("_from", "0"))
    return _reply(path, params, rows[first : first + limit], first + limit, len(rows), base_url, request_id)


def _reply(
    path: str,
    params: Mapping[str, str],
    rows: list[dict[str, Any]],
    following: int,
    count: int,
    base_url: str,
    request_id: str,
) -> Reply:
    body: dict[str, Any] = {"status": "OK", "request_id": request_id, "results": rows}
    if following < count:
        state = {**params, "_from": str(following)}
        cursor = base64.urlsafe_b64encode(json.dumps(state).encode()).decode()
        body["next_url"] = f"{base_url}/{path}?cursor={quote(cursor)}"
    return json_reply(body)


def _with_cursor(given: Mapping[str, str], request_id: str) -> dict[str, str]:
    params = {name: value for name, value in given.items() if name not in {"apiKey", "_from"}}
    cursor = params.pop("cursor", None)
    if cursor is None:
        return params
    try:
        state = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return {str(name): str(value) for name, value in state.items()}
    except (ValueError, AttributeError):
        raise _Denied(error_reply(400, "cursor is not valid.", request_id)) from None


def _limit(params: Mapping[str, str], request_id: str, default: int = DEFAULT_LIMIT) -> int:
    text = params.get("limit", str(default))
    if not text.isdigit() or not 1 <= int(text) <= MAX_LIMIT:
        raise _Denied(error_reply(400, f"limit must be between 1 and {MAX_LIMIT}.", request_id))
    return int(text)


def _descending(sort: str, column: str, request_id: str) -> bool:
    name, _, order = sort.partition(".")
    if (name, order) in {(column, "asc"), (column, ""), ("asc", "")}:
        return False
    if (name, order) in {(column, "desc"), ("desc", "")}:
        return True
    raise _Denied(error_reply(400, f"sort is not allowed: {sort}", request_id))


def _inside(stamps: I64, params: Mapping[str, str], request_id: str) -> npt.NDArray[np.bool_]:
    """Which times the filters of a request let through. A date stands for its midnight UTC."""
    tests = {"gt": np.greater, "gte": np.greater_equal, "lt": np.less, "lte": np.less_equal}
    kept = np.ones(len(stamps), np.bool_)
    for name, test in tests.items():
        text = params.get(f"window_start.{name}")
        if text is not None:
            kept &= test(stamps, _moment(text, request_id))
    exact = params.get("window_start")
    if exact is not None:
        moment = _moment(exact, request_id)
        kept &= (stamps >= moment) & (stamps < moment + (DAY if "-" in exact else 1))
    return kept


def _moment(text: str, request_id: str) -> int:
    """Nanoseconds of a date or of a number of nanoseconds."""
    if text.isdigit():
        return int(text)
    try:
        return utc_nanos(date.fromisoformat(text))
    except ValueError:
        raise _Denied(error_reply(400, f"window_start is no date or timestamp: {text}", request_id)) from None


def _bar_rows(ticker: str, bars: Series) -> list[dict[str, Any]]:
    dates, _ = _sessions(ticker, bars)
    return [
        _row(ticker, bars, slice(number, number + 1), int(bars.ts_open[number]), dates[number])
        for number in range(len(bars))
    ]


def _session_rows(ticker: str, bars: Series) -> list[dict[str, Any]]:
    if not len(bars):
        return []
    dates, opens = _sessions(ticker, bars)
    edges = [0, *(n for n in range(1, len(bars)) if dates[n] != dates[n - 1]), len(bars)]
    rows = []
    for first, last in pairwise(edges):
        row = _row(ticker, bars, slice(first, last), opens[first], dates[first])
        rows.append({**row, "settlement_price": row.get("close")})
    return rows


def _row(ticker: str, bars: Series, rows: slice, stamp: int, session: str) -> dict[str, Any]:
    """One row; a price that is missing in any minute is left out."""
    picks = {
        "open": int(bars.open[rows][0]),
        "high": int(bars.high[rows].max()),
        "low": int(bars.low[rows].min()),
        "close": int(bars.close[rows][-1]),
    }
    gone = {name for name in PRICES if (getattr(bars, name)[rows] == MISSING_PRICE).any()}
    volume = int(bars.volume[rows].sum())
    prices = {name: _number(value) for name, value in picks.items() if name not in gone}
    return {
        "ticker": ticker,
        **prices,
        "volume": volume,
        "dollar_volume": 0 if gone else _number(picks["close"] * volume),
        "transactions": min(volume, 1 + volume // 3),
        "window_start": stamp,
        "session_end_date": session,
    }


def _number(nanos: int) -> int | float:
    """A price as JSON writes it: whole without a point, else the shortest decimal."""
    value = Decimal(nanos).scaleb(-9)
    return int(value) if value == value.to_integral_value() else float(value)


def _sessions(ticker: str, bars: Series) -> tuple[list[str], list[int]]:
    """Date and opening time of the session of each bar; the UTC day where no calendar is known or it says closed."""
    opens = [int(stamp) // DAY * DAY for stamp in bars.ts_open]
    dates = [str(np.datetime64(stamp, "ns").astype("datetime64[D]")) for stamp in opens]
    product = PRODUCTS.get(raw_root(ticker) or "")
    if product is None or not len(bars):
        return dates, opens
    sessions = load_sessions(product.calendar, int(bars.ts_open.min()), int(bars.ts_open.max()) + 1)
    for number, position in enumerate(sessions.session_of(bars.ts_open)):
        if position >= 0:
            text = str(int(sessions.session_date[position]))
            dates[number] = f"{text[:4]}-{text[4:6]}-{text[6:]}"
            opens[number] = int(sessions.open_ns[position])
    return dates, opens


def _contract(ticker: str, first: date, last: date) -> dict[str, Any]:
    root = raw_root(ticker)
    product = PRODUCTS.get(root or "")
    expiry = expiry_of(ticker, first)
    last_trade = expiry.date() if expiry is not None else last - timedelta(days=1)
    row: dict[str, Any] = {
        "ticker": ticker,
        "product_code": root or ticker,
        "type": "single",
        "active": True,
        "date": first.isoformat(),
        "first_trade_date": first.isoformat(),
        "last_trade_date": last_trade.isoformat(),
        "settlement_date": last_trade.isoformat(),
        "min_order_quantity": 1,
    }
    if product is not None:
        tick = _number(product.tick_nanos)
        row |= {"trading_venue": product.mic, "name": f"{root} futures", "trade_tick_size": tick}
        row |= {"settlement_tick_size": tick}
    return row


def _market_status(now: datetime) -> dict[str, Any]:
    """Sessions of the equity index futures stand for the market."""
    stamp = int(now.astimezone(UTC).timestamp()) * 10**9
    sessions = load_sessions("CME Globex Equity", stamp, stamp + 1)
    is_open = bool(sessions.is_open(np.array([stamp], np.int64), 1)[0]) if len(sessions) else False
    return {
        "market": "open" if is_open else "closed",
        "serverTime": now.astimezone(UTC).isoformat(timespec="seconds"),
        "afterHours": False,
        "earlyHours": False,
        "exchanges": {},
        "currencies": {},
    }
