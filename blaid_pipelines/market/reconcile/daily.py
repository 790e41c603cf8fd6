"""Minutes held against daily bars: volume and range of every whole day, whatever the daily bars call a day.

Daily bars come in three kinds: whole sessions (evening to afternoon), UTC days (Databento's ohlcv-1d), and the regular
hours of the stock exchange alone (many equity-index files; the volume is then some 12 to 20 % short of the session's).
Each kind is tried and the numbers say how each fits, so that a difference of definition is not taken for bad data, and
bad data is not excused by a definition. A stated kind is held to; ``auto`` takes the one whose ranges fit most days.

Open and close are shown and not judged: a daily close is often the settlement. What cannot be seen here: an error that
daily bars and minutes share, and a wrong day outside of the range that both cover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from blaid_pipelines.market.bars import DAY_NS, MINUTE_NS, MISSING, MISSING_VOLUME, NOT_FINITE, PRICES, Bars
from blaid_pipelines.market.reconcile.comparison import SHOWN, Comparison, concluded, looked_at
from blaid_pipelines.market.reconcile.thresholds import ReconciliationThresholds
from blaid_pipelines.market.sessions import Sessions
from blaid_pipelines.market.spans import Span
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode

Int64 = npt.NDArray[np.int64]

CONVENTIONS = ("session", "utc_day", "regular")
REGULAR_OPEN = {"CME Globex Equity": time(8, 30)}
"""Chicago time from which a calendar's regular hours run, to the session's close."""
_CHICAGO = ZoneInfo("America/Chicago")


@dataclass(frozen=True, slots=True)
class _Day:
    """One contract's day on one side; prices in nanos."""

    open: int
    high: int
    low: int
    close: int
    volume: int

    @property
    def usable(self) -> bool:
        prices = (self.open, self.high, self.low, self.close)
        return self.volume != MISSING_VOLUME and not {MISSING, NOT_FINITE} & set(prices)


_Key = tuple[str, int]  # contract, date as yyyymmdd


@dataclass(frozen=True)
class _Fit:
    """How daily bars and minutes compare under one convention."""

    convention: str
    days: list[dict[str, Any]]
    whole: int
    partial: int
    rolled: int
    without_minutes: list[list[Any]]
    without_daily: list[list[Any]]
    no_such_day: list[list[Any]]

    def summary(self) -> dict[str, Any]:
        factors = [day["factor"] for day in self.days if day["factor"] is not None]
        return {
            "days": len(self.days),
            "range_fits": sum(day["range_fits"] for day in self.days),
            "volume_fits": sum(day["volume_fits"] for day in self.days),
            "median_factor": round(median(factors), 4) if factors else None,
        }


def compare_daily(
    minute: Bars,
    daily: Bars,
    sessions: Sessions,
    thresholds: ReconciliationThresholds,
    *,
    tick_nanos: int,
    convention: str = "auto",
    covered: Span | None = None,
) -> Comparison:
    """Hold daily bars against the minutes (or hours) of the same contracts.

    ``sessions`` must span both. ``covered`` is the range that the minutes answer for, by default from the first to the
    last of them: days that are not wholly inside it are partial and not compared. Daily bars are stamped at the day's
    midnight UTC or at the session's open. Raises :class:`InvalidRequest` for a convention that is none.
    """
    known = [name for name in CONVENTIONS if name != "regular" or sessions.calendar in REGULAR_OPEN]
    if convention not in ("auto", *known):
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"daily bars by {convention!r} are not known for {sessions.calendar}",
                f"Use one of: auto, {', '.join(known)}.",
                {"convention": convention, "calendar": sessions.calendar},
            )
        )
    minute, daily = minute.ordered(), daily.ordered()
    if covered is None:
        covered = (int(minute.ts_open[0]), int(minute.ts_open[-1]) + MINUTE_NS) if len(minute) else (0, 0)
    fits = {name: _fit(name, minute, daily, sessions, thresholds, tick_nanos, covered) for name in known}
    chosen = _best(fits) if convention == "auto" else fits[convention]
    numbers = _numbers(chosen, fits, stated=convention != "auto")
    reasons = _judge(chosen, fits, thresholds, numbers)
    enough = len(chosen.days) >= thresholds.min_sessions
    return concluded("daily", reasons, enough, numbers, f"{len(chosen.days)} days are whole on both sides")


def _best(fits: Mapping[str, _Fit]) -> _Fit:
    def quality(fit: _Fit) -> tuple[int, int, float, int]:
        summary = fit.summary()
        off = abs(summary["median_factor"] - 1) if summary["median_factor"] is not None else 1e9
        missing = len(fit.without_minutes) + len(fit.without_daily)
        return summary["range_fits"], summary["volume_fits"], -off, -missing

    return max(fits.values(), key=quality)  # the first of equals: sessions before UTC days before regular hours


def _fit(
    convention: str,
    minute: Bars,
    daily: Bars,
    sessions: Sessions,
    thresholds: ReconciliationThresholds,
    tick_nanos: int,
    covered: Span,
) -> _Fit:
    spans = _spans(convention, sessions, covered)
    whole = {day for day, (left, right) in spans.items() if covered[0] <= left and right <= covered[1]}
    one_at_a_time = len(np.unique(minute.ts_open)) == len(minute)
    ours, rolled = _minute_days(minute, spans, whole, one_at_a_time)
    theirs = _daily_days(daily, convention, sessions)
    contracts = {contract for contract, _ in theirs}
    bounds = {
        contract: (
            min(day for name, day in theirs if name == contract),
            max(day for name, day in theirs if name == contract),
        )
        for contract in contracts
    }
    left_out = {key for key in ours if key[0] in bounds and bounds[key[0]][0] <= key[1] <= bounds[key[0]][1]}
    days = [
        _compared(key, ours[key], theirs[key], thresholds, tick_nanos) for key in sorted(ours.keys() & theirs.keys())
    ]
    traded = {key for key, day in theirs.items() if day.volume > 0}
    held = {contract for contract, _ in ours}
    # Nothing is missing where the series rolls within the day, or holds another contract that is there to compare with.
    whose = rolled | {day for _, day in ours.keys() & theirs.keys()} if one_at_a_time else rolled
    without_minutes = {key for key in traded - ours.keys() if key[1] in whole - whose and key[0] in held}
    return _Fit(
        convention,
        days,
        whole=len(ours) + len(rolled),
        partial=len({day for _, day in theirs if day in spans and day not in whole}),
        rolled=len(rolled),
        without_minutes=[list(key) for key in sorted(without_minutes)],
        without_daily=[list(key) for key in sorted(left_out - theirs.keys()) if ours[key].volume > 0],
        no_such_day=[list(key) for key in sorted(theirs) if key[1] not in spans and _inside(key[1], covered)],
    )


def _spans(convention: str, sessions: Sessions, covered: Span) -> dict[int, Span]:
    """Each day (yyyymmdd) that begins in reach of the range, with the stretch that its bar is made of."""
    if convention == "utc_day":
        first, last = covered[0] // DAY_NS, -(-covered[1] // DAY_NS)
        return {_yyyymmdd(day * DAY_NS): (day * DAY_NS, (day + 1) * DAY_NS) for day in range(first, last)}
    spans = {}
    for open_ns, close_ns, day in zip(sessions.open_ns, sessions.close_ns, sessions.session_date, strict=True):
        left, right = int(open_ns), int(close_ns)
        if convention == "regular":
            left = max(left, _chicago_ns(int(day), REGULAR_OPEN[sessions.calendar]))
        if left < right and left < covered[1] and covered[0] < right:
            spans[int(day)] = (left, right)
    return spans


def _minute_days(
    minute: Bars, spans: Mapping[int, Span], whole: set[int], one_at_a_time: bool
) -> tuple[dict[_Key, _Day], set[int]]:
    """The day of each contract made of its minutes, and the days that hold a roll and are left out."""
    found: dict[_Key, _Day] = {}
    rolled: set[int] = set()
    for day in sorted(whole):
        first, last = np.searchsorted(minute.ts_open, spans[day])
        part = minute.take(slice(int(first), int(last)))
        codes = np.unique(part.contract)
        if one_at_a_time and len(codes) > 1:
            rolled.add(day)
            continue
        for code in codes:
            found[minute.contracts[code], day] = _made_of(part.take(part.contract == code))
    return found, rolled


def _made_of(bars: Bars) -> _Day:
    prices = np.stack([getattr(bars, name) for name in PRICES])
    if np.isin(prices, (MISSING, NOT_FINITE)).any() or (bars.volume == MISSING_VOLUME).any():
        return _Day(MISSING, MISSING, MISSING, MISSING, MISSING_VOLUME)
    volume, high, low = int(bars.volume.sum()), int(bars.high.max()), int(bars.low.min())
    return _Day(int(bars.open[0]), high, low, int(bars.close[-1]), volume)


def _daily_days(daily: Bars, convention: str, sessions: Sessions) -> dict[_Key, _Day]:
    position = np.searchsorted(sessions.open_ns, daily.ts_open)
    found = {}
    for row in range(len(daily)):
        stamp, at = int(daily.ts_open[row]), int(position[row])
        at_open = convention != "utc_day" and at < len(sessions) and int(sessions.open_ns[at]) == stamp
        day = int(sessions.session_date[at]) if at_open else _yyyymmdd(stamp)
        prices = {name: int(getattr(daily, name)[row]) for name in PRICES}
        found[daily.contracts[daily.contract[row]], day] = _Day(**prices, volume=int(daily.volume[row]))
    return found


def _compared(
    key: _Key, ours: _Day, theirs: _Day, thresholds: ReconciliationThresholds, tick_nanos: int
) -> dict[str, Any]:
    """One day on both sides; differences in ticks are daily minus minutes."""
    row: dict[str, Any] = {"contract": key[0], "day": _iso(key[1])}
    if not (ours.usable and theirs.usable):
        return {**row, "usable": False, "factor": None, "range_fits": False, "volume_fits": False}
    ticks = {f"{name}_ticks": _ticks(getattr(theirs, name) - getattr(ours, name), tick_nanos) for name in PRICES}
    factor = None if not ours.volume else round(theirs.volume / ours.volume, 4)
    low, high = thresholds.min_daily_volume_factor, thresholds.max_daily_volume_factor
    limit = thresholds.max_daily_range_ticks
    volume_fits = low <= factor <= high if factor is not None else theirs.volume == 0
    return {
        **row,
        "usable": True,
        "minute_volume": ours.volume,
        "daily_volume": theirs.volume,
        "factor": factor,
        **ticks,
        "range_fits": abs(ticks["high_ticks"]) <= limit and abs(ticks["low_ticks"]) <= limit,
        "volume_fits": volume_fits,
    }


def _numbers(chosen: _Fit, fits: Mapping[str, _Fit], *, stated: bool) -> dict[str, Any]:
    differing = [day for day in chosen.days if not (day["range_fits"] and day["volume_fits"])]
    shown = differing or chosen.days
    return {
        "convention": chosen.convention,
        "convention_stated": stated,
        "conventions": {name: fit.summary() for name, fit in fits.items()},
        "sessions": len(chosen.days),
        **looked_at(_looked_at(chosen), len(chosen.days), chosen.whole),
        "differing": len(differing),
        "partial": chosen.partial,
        "rolled": chosen.rolled,
        "without_minutes": len(chosen.without_minutes),
        "without_daily": len(chosen.without_daily),
        "no_such_day": len(chosen.no_such_day),
        "first_without_minutes": chosen.without_minutes[:SHOWN],
        "first_without_daily": chosen.without_daily[:SHOWN],
        "first_no_such_day": chosen.no_such_day[:SHOWN],
        "worst": sorted(shown, key=_badness, reverse=True)[:SHOWN],
    }


def _looked_at(fit: _Fit) -> list[Span]:
    """From each contract's first to its last day that was compared or is missing, days as dates of any convention."""
    days: dict[str, list[date]] = {}
    for day in fit.days:
        days.setdefault(day["contract"], []).append(date.fromisoformat(day["day"]))
    for contract, number in (*fit.without_minutes, *fit.without_daily):
        days.setdefault(contract, []).append(_date(number))
    since = date(1970, 1, 1)
    return [((min(own) - since).days * DAY_NS, ((max(own) - since).days + 1) * DAY_NS) for own in days.values()]


def _badness(day: Mapping[str, Any]) -> tuple[bool, float]:
    if not day["usable"] or day["factor"] is None:
        return True, 0.0
    factor = float(day["factor"])
    off = max(factor, 1 / factor) - 1 if factor > 0 else float("1e9")
    return not (day["range_fits"] and day["volume_fits"]), off


def _judge(
    chosen: _Fit, fits: Mapping[str, _Fit], thresholds: ReconciliationThresholds, numbers: dict[str, Any]
) -> list[Reason]:
    reasons = []
    allowed = len(chosen.days) * thresholds.max_differing_sessions_pct / 100
    if numbers["differing"] > allowed:
        unusable = [day for day in chosen.days if not day["usable"]]
        volume = [day for day in chosen.days if day["usable"] and not day["volume_fits"]]
        ranges = [day for day in chosen.days if day["usable"] and not day["range_fits"]]
        low, high = thresholds.min_daily_volume_factor, thresholds.max_daily_volume_factor
        for code, days, text in (
            (ReasonCode.FIELD_MISSING, unusable, "prices or volumes are missing"),
            (ReasonCode.VOLUME_DIFFERS, volume, f"the daily volume is not {low} to {high} times the minutes' volume"),
            (
                ReasonCode.RANGE_DIFFERS,
                ranges,
                f"high or low is more than {thresholds.max_daily_range_ticks} ticks from the minutes'",
            ),
        ):
            if days:
                reasons.append(_reason(code, f"{text} on {len(days)} of {len(chosen.days)} days", days, chosen, fits))
    missing = [("without minutes", chosen.without_minutes), ("without a daily bar", chosen.without_daily)]
    for text, keys in missing:
        if keys:
            rows = [{"contract": contract, "day": _iso(day)} for contract, day in keys]
            reasons.append(_reason(ReasonCode.BARS_MISSING, f"{len(keys)} traded days {text}", rows, chosen, fits))
    return reasons


def _reason(
    code: ReasonCode, text: str, days: Sequence[Mapping[str, Any]], chosen: _Fit, fits: Mapping[str, _Fit]
) -> Reason:
    better = _best(fits)
    hint = f" (as {better.convention} bars they would fit)" if better is not chosen else ""
    return Reason(
        code,
        f"{text}, read as {chosen.convention} bars{hint}",
        "Find out which of the two is wrong: what a day is there, bars counted twice, bars that were lost.",
        {
            "convention": chosen.convention,
            "conventions": {name: fit.summary() for name, fit in fits.items()},
            "days": len(days),
            "first": [dict(day) for day in days[:3]],
        },
    )


def _ticks(difference: int, tick_nanos: int) -> float:
    return round(difference / tick_nanos, 4)


def _yyyymmdd(stamp_ns: int) -> int:
    day = date(1970, 1, 1) + timedelta(days=stamp_ns // DAY_NS)
    return day.year * 10_000 + day.month * 100 + day.day


def _date(yyyymmdd: int) -> date:
    return date(yyyymmdd // 10_000, yyyymmdd // 100 % 100, yyyymmdd % 100)


def _iso(yyyymmdd: int) -> str:
    return _date(yyyymmdd).isoformat()


def _inside(yyyymmdd: int, covered: Span) -> bool:
    start = (_date(yyyymmdd) - date(1970, 1, 1)).days * DAY_NS
    return covered[0] <= start and start + DAY_NS <= covered[1]


@lru_cache(maxsize=4096)
def _chicago_ns(yyyymmdd: int, wall: time) -> int:
    return int(datetime.combine(_date(yyyymmdd), wall, _CHICAGO).timestamp()) * 1_000_000_000
