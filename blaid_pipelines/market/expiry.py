"""When a contract stops trading: the last-trade rule of each product root, and the names of contract months.

Pure calendar arithmetic over the exchange's business days; no store and no files. What the provider's own definition
says beats the rule (``market.contracts`` keeps those); the rule is there for contracts whose definition nobody has.

Rules as CME Group's contract specifications state them (cmegroup.com, "Termination of Trading"):

* equity index (ES, MES, NQ, MNQ, RTY, M2K, YM, MYM): 08:30 CT on the third Friday of the contract month, or on the
  first earlier business day where the index is not published on it (Good Friday 2008, Juneteenth 2026).
* CL: the third business day before the 25th of the month before the contract month, counted from the last business
  day before the 25th where that is none; 13:30 CT. MCL: one business day before CL.
* GC, MGC, SI: the third last business day of the contract month, 12:30 CT (SI 12:25 CT).
* 6E, M6E: the second business day before the third Wednesday of the contract month, 09:16 CT.
* ZN, ZB: the seventh business day before the last business day of the contract month, 12:01 CT.

Business days are the trade dates of ``pandas_market_calendars`` (``CME_TradeDate``). NYMEX and COMEX counted fewer in
the past: not the day after Thanksgiving until 2012, nor :data:`FLOOR_HOLIDAYS`. The rules say nothing of a termination
that the exchange moved by notice.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode

MONTH_LETTERS = "FGHJKMNQUVXZ"
"""January to December, as contracts name them."""

FIRST_YEAR, LAST_YEAR = 2000, 2099

_CHICAGO = ZoneInfo("America/Chicago")
_CONTRACT = re.compile(r"(?P<root>[A-Z0-9]{1,3}?)(?P<month>[FGHJKMNQUVXZ])(?P<year>\d{1,2})")
# How long after its last trade a contract's name still means that contract, not the one ten years later.
_STILL_MEANT = timedelta(days=366)

Rule = Literal["third_friday", "crude", "third_last", "fx", "treasury"]


@dataclass(frozen=True, slots=True)
class ExpiryRule:
    """How the last trading day of a root is found, and the Chicago wall-clock time trading ends on it."""

    rule: Rule
    at: time
    earlier: int = 0  # business days before what the rule says


_THIRD_FRIDAY = ExpiryRule("third_friday", time(8, 30))
_GOLD = ExpiryRule("third_last", time(12, 30))
_FX = ExpiryRule("fx", time(9, 16))
_TREASURY = ExpiryRule("treasury", time(12, 1))

RULES: dict[str, ExpiryRule] = {
    **dict.fromkeys(("ES", "MES", "NQ", "MNQ", "RTY", "M2K", "YM", "MYM"), _THIRD_FRIDAY),
    "CL": ExpiryRule("crude", time(13, 30)),
    "MCL": ExpiryRule("crude", time(13, 30), earlier=1),
    "GC": _GOLD,
    "MGC": _GOLD,
    "SI": ExpiryRule("third_last", time(12, 25)),
    "6E": _FX,
    "M6E": _FX,
    "ZN": _TREASURY,
    "ZB": _TREASURY,
}

# While its trading floor set the business days, NYMEX (and COMEX with it) closed on days that CME now counts. Seen in
# published last trade dates: CL of 2005-12 to 2012-12 and 2008-01, HO of 2003-12 and 2005-01, NG of 2004-12 to 2011-01.
FLOOR_HOLIDAYS: frozenset[date] = frozenset({date(2004, 12, 31), date(2007, 12, 24), date(2010, 12, 31)})
_LAST_CLOSED_AFTER_THANKSGIVING = 2012


def contract_of(root: str, year: int, month: int) -> str:
    """The canonical name of a contract, Databento's raw symbol with its one-digit year: (ES, 2013, 12) is ``ESZ3``."""
    return f"{root}{MONTH_LETTERS[month - 1]}{year % 10}"


def contract_month(contract: str, near: date) -> tuple[int, int]:
    """(year, month) that ``contract`` (``ESZ3``, ``ESZ13``) names to somebody who sees it on ``near``.

    A one-digit year comes back every ten years: it is the first whose month begins no more than a year before
    ``near``. So a name is understood up to a year after its month and nine years ahead of it. Raises
    :class:`InvalidRequest` (``INSTRUMENT_UNKNOWN``) for what is no contract.
    """
    match = _CONTRACT.fullmatch(contract)
    if match is None:
        raise _unknown(contract, f"{contract!r} is no futures contract")
    digits = match["year"]
    every = 10 ** len(digits)
    month = MONTH_LETTERS.index(match["month"]) + 1
    earliest = near - _STILL_MEANT
    year = earliest.year - earliest.year % every + int(digits)
    while (year, month) < (earliest.year, earliest.month):
        year += every
    return year, month


def contract_root(contract: str) -> str:
    """``ES`` of ``ESZ3``. Raises :class:`InvalidRequest` for what is no contract."""
    match = _CONTRACT.fullmatch(contract)
    if match is None:
        raise _unknown(contract, f"{contract!r} is no futures contract")
    return match["root"]


def expiry_ns(spec_symbol: str, contract: str, near: date) -> int:
    """Last trade time (nanoseconds UTC) of ``contract``, a contract of the root ``spec_symbol``, by the root's rule.

    ``near`` is a date on which it trades, or up to a year after: it settles the decade of a one-digit year. Bars of
    the contract open before this time. Raises :class:`InvalidRequest` (``INSTRUMENT_UNKNOWN``) for a root without a
    rule, a contract of another root, or a year outside 2000 to 2099.
    """
    rule = RULES.get(spec_symbol)
    if rule is None:
        raise _unknown(contract, f"no expiry rule is known for {spec_symbol}")
    if contract_root(contract) != spec_symbol:
        raise _unknown(contract, f"{contract} is no contract of {spec_symbol}")
    year, month = contract_month(contract, near)
    moment = datetime.combine(last_trading_day(spec_symbol, year, month), rule.at, _CHICAGO)
    return int(moment.timestamp()) * 1_000_000_000


@lru_cache(maxsize=4096)
def last_trading_day(root: str, year: int, month: int) -> date:
    """The last trading day of the contract month by the rule of ``root``. Raises as :func:`expiry_ns`."""
    rule = RULES.get(root)
    if rule is None or not (FIRST_YEAR < year < LAST_YEAR and 1 <= month <= 12):
        raise _unknown(f"{root} {year}-{month:02d}", f"no last trading day is known for {root} of {year}-{month:02d}")
    days = _business_days(rule.rule in {"crude", "third_last"})
    return days[_position(days, rule.rule, year, month) - rule.earlier]


def _position(days: tuple[date, ...], rule: Rule, year: int, month: int) -> int:
    """Index into ``days`` of the last trading day."""
    following = date(year + month // 12, month % 12 + 1, 1)
    if rule == "third_friday":
        return bisect_left(days, _nth_weekday(year, month, 4, 3) + timedelta(days=1)) - 1
    if rule == "fx":
        return bisect_left(days, _nth_weekday(year, month, 2, 3)) - 2
    if rule == "third_last":
        return bisect_left(days, following) - 3
    if rule == "treasury":
        return bisect_left(days, following) - 1 - 7
    before = date(year, month, 1) - timedelta(days=1)
    from_day = before.replace(day=25)
    # the last business day on or before the 25th, then three back
    return bisect_left(days, from_day + timedelta(days=1)) - 1 - 3


def _nth_weekday(year: int, month: int, weekday: int, n: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (n - 1))


@lru_cache(maxsize=2)
def _business_days(floor: bool) -> tuple[date, ...]:
    """Trade dates of all years; ``floor`` leaves out what NYMEX and COMEX did not count while they had a floor."""
    import pandas_market_calendars

    calendar = pandas_market_calendars.get_calendar("CME_TradeDate")
    days = [each.date() for each in calendar.valid_days(f"{FIRST_YEAR}-01-01", f"{LAST_YEAR}-12-31")]
    if not floor:
        return tuple(days)
    closed = FLOOR_HOLIDAYS | {
        _nth_weekday(year, 11, 3, 4) + timedelta(days=1)
        for year in range(FIRST_YEAR, _LAST_CLOSED_AFTER_THANKSGIVING + 1)
    }
    return tuple(day for day in days if day not in closed)


def _unknown(contract: str, message: str) -> InvalidRequest:
    return InvalidRequest(
        Reason(
            ReasonCode.INSTRUMENT_UNKNOWN,
            message,
            f"Give a contract such as ESZ3 of one of: {', '.join(sorted(RULES))}.",
            {"contract": contract},
        )
    )
