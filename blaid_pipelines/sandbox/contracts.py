"""Facts of the futures contracts that the sandbox gateway plays: ticks, units, months, expiries, lead intervals.

Deliberately a table of its own, not the product's instrument table: the gateway stands for the outside world, and the
cross-check of definitions against the product's table would prove nothing if both read one source.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

DATASET = "GLBX.MDP3"
MONTH_LETTERS = "FGHJKMNQUVXZ"
_RAW = re.compile(r"^(?P<root>[A-Z0-9]{1,3}?)(?P<month>[FGHJKMNQUVXZ])(?P<year>\d{1,2})$")


@dataclass(frozen=True, slots=True)
class Product:
    """One product root. Prices in units of 1e-9; ``volatility`` of a typical minute in 1/100 ticks."""

    root: str
    mic: str
    tick_nanos: int
    unit_qty_nanos: int
    unit: str
    months: str
    calendar: str
    expiry: str  # rule of the last trading day, see last_trading_day
    base_ticks: int
    volatility: int
    roll_step_ticks: int
    volume: int


def _product(
    root: str,
    mic: str,
    tick: int,
    qty: int,
    unit: str,
    months: str,
    calendar: str,
    expiry: str,
    *play: int,
) -> Product:
    base, volatility, roll, volume = play
    return Product(root, mic, tick, qty * 10**9, unit, months, calendar, expiry, base, volatility, roll, volume)


_EQUITY = "CME Globex Equity"
_RATES = "CME Globex Interest Rate Products"
PRODUCTS: dict[str, Product] = {
    product.root: product
    for product in (
        _product("ES", "XCME", 250_000_000, 50, "IPNT", "HMUZ", _EQUITY, "friday3", 19_200, 200, 210, 900),
        _product("MES", "XCME", 250_000_000, 5, "IPNT", "HMUZ", _EQUITY, "friday3", 19_200, 200, 210, 700),
        _product("NQ", "XCME", 250_000_000, 20, "IPNT", "HMUZ", _EQUITY, "friday3", 68_000, 900, 760, 500),
        _product("MNQ", "XCME", 250_000_000, 2, "IPNT", "HMUZ", _EQUITY, "friday3", 68_000, 900, 760, 800),
        _product("RTY", "XCME", 100_000_000, 50, "IPNT", "HMUZ", _EQUITY, "friday3", 20_100, 260, 190, 180),
        _product("M2K", "XCME", 100_000_000, 5, "IPNT", "HMUZ", _EQUITY, "friday3", 20_100, 260, 190, 150),
        _product("YM", "XCBT", 1_000_000_000, 5, "IPNT", "HMUZ", _EQUITY, "friday3", 37_800, 450, 420, 150),
        # point value 0.50: the one unit below a whole, so given in nanos here
        Product("MYM", "XCBT", 10**9, 5 * 10**8, "IPNT", "HMUZ", _EQUITY, "friday3", 37_800, 450, 420, 120),
        _product("CL", "XNYM", 10_000_000, 1000, "BBL", MONTH_LETTERS, "CMEGlobex_CL", "crude", 7_300, 220, 25, 400),
        _product("MCL", "XNYM", 10_000_000, 100, "BBL", MONTH_LETTERS, "CMEGlobex_CL", "crude", 7_300, 220, 25, 150),
        _product("GC", "XCEC", 100_000_000, 100, "TRYOZ", "GJMQVZ", "CMEGlobex_GC", "gold", 20_600, 200, 170, 350),
        _product("MGC", "XCEC", 100_000_000, 10, "TRYOZ", "GJMQVZ", "CMEGlobex_GC", "gold", 20_600, 200, 170, 120),
        _product("SI", "XCEC", 5_000_000, 5000, "TRYOZ", "HKNUZ", "CMEGlobex_SI", "gold", 4_700, 150, 40, 120),
        _product("6E", "XCME", 50_000, 125_000, "EUR", "HMUZ", "CMEGlobex_FX", "fx", 22_000, 120, 90, 260),
        _product("M6E", "XCME", 100_000, 12_500, "EUR", "HMUZ", "CMEGlobex_FX", "fx", 11_000, 70, 45, 30),
        _product("ZN", "XCBT", 15_625_000, 100_000, "USD", "HMUZ", _RATES, "note", 7_140, 60, 12, 700),
        _product("ZB", "XCBT", 31_250_000, 100_000, "USD", "HMUZ", _RATES, "note", 3_900, 80, 8, 300),
    )
}


@dataclass(frozen=True, slots=True)
class Lead:
    """A contract and the UTC dates (end exclusive) on which it is the nearest one by expiry."""

    raw_symbol: str
    instrument_id: int
    start: date
    end: date


def instrument_id(raw_symbol: str) -> int:
    """The id this gateway gives a contract: the same on every machine, below 2**31."""
    digest = hashlib.sha256(raw_symbol.encode()).digest()
    return 1_000_000 + int.from_bytes(digest[:4], "big") % 2_000_000_000


def raw_root(raw_symbol: str) -> str | None:
    """``MESH4`` -> ``MES``; None when it is not a contract of a known product."""
    match = _RAW.match(raw_symbol)
    return match["root"] if match and match["root"] in PRODUCTS else None


def last_trading_day(product: Product, year: int, month: int) -> date:
    """The last trading day of a contract month, exchange holidays heeded: bars after it would be a defect."""
    if product.expiry == "friday3":
        return _business_days_before(_nth_weekday(year, month, 4, 3) + timedelta(days=1), 1)
    if product.expiry == "fx":
        return _business_days_before(_nth_weekday(year, month, 2, 3), 2)
    if product.expiry == "crude":
        before = date(year, month, 1) - timedelta(days=1)
        return _business_days_before(date(before.year, before.month, 26), 4)
    count = {"gold": 3, "note": 8}[product.expiry]  # business days before the month ends
    following = date(year + month // 12, month % 12 + 1, 1)
    return _business_days_before(following, count)


def expiry_of(raw_symbol: str, near: date) -> datetime | None:
    """When a contract stops trading; ``near`` decides the decade of a one-digit year."""
    match = _RAW.match(raw_symbol)
    root = raw_root(raw_symbol)
    if match is None or root is None:
        return None
    digits = match["year"]
    step = 10 ** len(digits)
    year = near.year - near.year % step + int(digits)
    year = min((year - step, year, year + step), key=lambda candidate: abs(candidate - near.year))
    day = last_trading_day(PRODUCTS[root], year, MONTH_LETTERS.index(match["month"]) + 1)
    return datetime.combine(day, time(13, 30), tzinfo=UTC)


def leads(root: str, start: date, end: date) -> list[Lead]:
    """The lead contracts of ``root`` over UTC dates [start, end), each until the day of its expiry, which is excluded.

    So the last bars of a contract are those before 00:00 UTC of its last trading day, inside a session.
    """
    product = PRODUCTS[root]
    found: list[Lead] = []
    cursor = start
    for year in range(start.year, end.year + 2):
        for letter in product.months:
            last = last_trading_day(product, year, MONTH_LETTERS.index(letter) + 1)
            if last <= cursor or cursor >= end:
                continue
            symbol = f"{root}{letter}{year % 10}"
            found.append(Lead(symbol, instrument_id(symbol), cursor, min(last, end)))
            cursor = last
    return found


def _nth_weekday(year: int, month: int, weekday: int, n: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (n - 1))


def _business_days_before(day: date, count: int) -> date:
    while count:
        day -= timedelta(days=1)
        count -= day in _trade_dates(day.year)
    return day


@lru_cache(maxsize=64)
def _trade_dates(year: int) -> frozenset[date]:
    import pandas_market_calendars

    days = pandas_market_calendars.get_calendar("CME_TradeDate").valid_days(f"{year}-01-01", f"{year}-12-31")
    return frozenset(day.date() for day in days)
