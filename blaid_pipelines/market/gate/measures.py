"""What the quality gate looks at: bars turned into measured columns, with numpy, before any expectation is asked.

Three frames: one row a bar, one row an exchange session, one row for the series; beside them, by check, numbers that
explain what was found. Each measure says what it leaves out, so that one defect shows in one place: a bar without a
price is not also counted as off the tick grid. What bars say about their neighbours is in ``chain``, what contracts
must obey in ``contracts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from blaid_pipelines.market.bars import DAY_NS, MINUTE_NS, MISSING, MISSING_VOLUME, NOT_FINITE, PRICES, Bars
from blaid_pipelines.market.gate.chain import Chain, jumps, open_close_gap, repeats, spikes
from blaid_pipelines.market.gate.contracts import alone, contract_facts, dates_of, rolls
from blaid_pipelines.market.gate.thresholds import QualityThresholds
from blaid_pipelines.market.instruments import NANOS, InstrumentSpec
from blaid_pipelines.market.sessions import Sessions, load_sessions

Columns = dict[str, npt.NDArray[Any]]
Bools = npt.NDArray[np.bool_]

COPY_MIN_BARS = 30
"""Sessions shorter than this are not compared with their predecessor: a handful of equal bars is no copy."""


@dataclass(frozen=True)
class Measures:
    """The three frames, by name (``bars``, ``sessions``, ``series``): columns of equal length.

    ``facts`` holds JSON-ready numbers by name of the check that they explain; ``bars`` are the rows of that frame.
    """

    frames: dict[str, Columns]
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    bars: Bars | None = None

    def rows(self, frame: str) -> int:
        """Rows in a frame."""
        return len(next(iter(self.frames[frame].values())))


@dataclass(frozen=True, slots=True)
class Scope:
    """What the bars are meant to be: of ``[start_ns, end_ns)``, each ``duration_ns`` long, as known at ``as_of_ns``.

    ``one_contract``: at any time there is one contract, as in a continuous series or an outright contract.
    ``expiries``: last trade times (nanoseconds UTC) by raw symbol that the provider's definitions gave.
    """

    duration_ns: int
    start_ns: int
    end_ns: int
    as_of_ns: int
    one_contract: bool = True
    expiries: Mapping[str, int] = field(default_factory=dict)


def measure(bars: Bars, spec: InstrumentSpec, thresholds: QualityThresholds, scope: Scope) -> Measures:
    """Measure ``bars``; slots that ``scope`` does not know yet are not expected."""
    bars = bars.ordered()
    duration_ns, start_ns, end_ns = scope.duration_ns, scope.start_ns, scope.end_ns
    known_end = max(start_ns, min(end_ns, scope.as_of_ns))
    sessions = load_sessions(spec.session, _low(bars, start_ns), max(end_ns, _high(bars, end_ns) + duration_ns))
    sessions_frame, series_frame = _coverage(bars, sessions, duration_ns, start_ns, known_end)
    columns, whole = _bar_columns(bars, spec, sessions, scope)
    neighbours, facts = _neighbour_columns(bars, whole, spec, thresholds, sessions, duration_ns)
    series_frame["open_close_gap_ratio"] = neighbours.pop("open_close_gap_ratio")
    contracts, rolled = _contract_columns(bars, whole, spec, scope, series_frame)
    return Measures(
        {"bars": columns | neighbours | contracts, "sessions": sessions_frame, "series": series_frame},
        facts | rolled,
        bars,
    )


def _low(bars: Bars, default: int) -> int:
    return min(default, int(bars.ts_open[0])) if len(bars) else default


def _high(bars: Bars, default: int) -> int:
    return max(default, int(bars.ts_open[-1])) if len(bars) else default


def _bar_columns(bars: Bars, spec: InstrumentSpec, sessions: Sessions, scope: Scope) -> tuple[Columns, Bools]:
    """What each bar says by itself, and the bars whose prices may be compared with others'."""
    prices = np.stack([getattr(bars, name) for name in PRICES]) if len(bars) else np.empty((4, 0), np.int64)
    missing = (prices == MISSING).any(axis=0)
    finite = (prices != NOT_FINITE).all(axis=0)
    whole = ~missing & finite
    opens, highs, lows, closes = prices
    scale = ((prices >= int(spec.price_low * NANOS)) & (prices <= int(spec.price_high * NANOS))).all(axis=0)
    negative = (prices <= 0).any(axis=0) & (not spec.may_be_negative)
    placeholder = (prices == 0).all(axis=0) & spec.may_be_negative
    ordered = (lows <= np.minimum(opens, closes)) & (highs >= np.maximum(opens, closes))
    daily = scope.duration_ns >= DAY_NS
    columns: Columns = {
        "ts_open": bars.ts_open,
        "contract": bars.contract,
        "complete": ~missing & (bars.volume != MISSING_VOLUME),
        "finite": finite,
        "positive": ~whole | ~negative,
        "no_placeholder": ~placeholder,
        "ohlc_ordered": ~whole | ordered,
        "on_tick_grid": ~whole | (prices % spec.tick_nanos == 0).all(axis=0),
        # A price at or below zero where none may be is the sign check's finding.
        "plausible_scale": ~whole | scale | negative,
        "volume_valid": (bars.volume >= 0) | (bars.volume == MISSING_VOLUME),
        "traded": bars.volume != 0,
        "on_time_grid": bars.ts_open % scope.duration_ns == 0,
        # A daily bar stands for a session and has no hours of its own: its date is the next column's.
        "in_session": sessions.is_open(bars.ts_open, scope.duration_ns) | daily,
        "on_session_date": np.isin(dates_of(bars.ts_open), sessions.session_date)
        if daily
        else np.ones(len(bars), np.bool_),
        "ended": _ends(bars, sessions, scope.duration_ns) <= scope.as_of_ns,
        "copied": _copied(bars, sessions, scope.duration_ns),
    }
    # Bars that are wrong in themselves are another check's finding, and so would every neighbour of theirs be.
    return columns, whole & ~negative & ~placeholder & ordered & scale


def _ends(bars: Bars, sessions: Sessions, duration_ns: int) -> npt.NDArray[np.int64]:
    """When each bar was complete: a daily bar of a session date at the session's close, any other after its length."""
    ends = bars.ts_open + duration_ns
    if duration_ns >= DAY_NS and len(sessions):
        dates = dates_of(bars.ts_open)
        index = np.minimum(np.searchsorted(sessions.session_date, dates), len(sessions) - 1)
        ends = np.where(sessions.session_date[index] == dates, sessions.close_ns[index], ends)
    return ends


def _neighbour_columns(
    bars: Bars,
    usable: Bools,
    spec: InstrumentSpec,
    thresholds: QualityThresholds,
    sessions: Sessions,
    duration_ns: int,
) -> tuple[Columns, dict[str, dict[str, Any]]]:
    """What bars say about the bar before them; the gap ratio is of the series and has one row."""
    chain = Chain.of(bars, usable)
    ratio, share = jumps(chain, spec)
    # A day may stand alone (crude oil on 2020-04-20 did): daily bars have jumps and no spikes.
    limit_pct = thresholds.max_spike_pct if duration_ns < DAY_NS else float("inf")
    wick, seen = spikes(chain, spec, limit_pct, thresholds.max_spike_ranges)
    identical, unchanged = repeats(chain)
    gap_ratio, gap_facts = open_close_gap(chain, sessions, duration_ns)
    columns: Columns = {
        "jump_ratio": chain.spread(ratio, 1.0),
        "jump_range_pct": chain.spread(share, 0.0),
        "spike_pct": chain.spread(wick, 0.0),
        "identical_bars": chain.spread(identical, 1),
        "unchanged_bars": chain.spread(unchanged, 1),
        "open_close_gap_ratio": np.array([gap_ratio if len(bars) else np.nan]),
    }
    facts = {
        "price_spikes": {**seen, "max_spike_ranges": thresholds.max_spike_ranges},
        "open_close_order": gap_facts,
    }
    return columns, facts


def _contract_columns(
    bars: Bars, usable: Bools, spec: InstrumentSpec, scope: Scope, series_frame: Columns
) -> tuple[Columns, dict[str, dict[str, Any]]]:
    """What contracts must obey; roll counts go into the frame of the series. Several contracts at a time have none."""
    after_expiry, month = contract_facts(bars, spec, scope.expiries)
    single = alone(bars)
    backward, step, facts = (
        rolls(bars, single & usable, month, spec)
        if scope.one_contract
        else (0.0, 0.0, {"rolls": 0, "several_contracts_at_a_time": True})
    )
    nothing = not len(bars)
    series_frame["backward_rolls"] = np.array([np.nan if nothing else backward])
    series_frame["roll_step_pct"] = np.array([np.nan if nothing else step])
    columns: Columns = {
        # A bar that opens at the last trade time is the first that is too late; NaN, not known, stays NaN.
        "minutes_after_expiry": np.where(after_expiry < 0, 0.0, after_expiry + 1.0),
        "alone": single | (not scope.one_contract),
    }
    return columns, {"roll_order": facts, "roll_steps": facts}


def _copied(bars: Bars, sessions: Sessions, duration_ns: int) -> Bools:
    """True for bars of a session whose prices and volumes repeat the session before; daily bars: none."""
    flags = np.zeros(len(bars), np.bool_)
    if duration_ns >= DAY_NS:
        return flags
    owner = sessions.session_of(bars.ts_open)
    previous: slice | None = None
    edges = [0, *(np.flatnonzero(owner[1:] != owner[:-1]) + 1).tolist(), len(bars)] if len(bars) else [0]
    for left, right in pairwise(edges):
        now = slice(left, right)
        if right - left >= COPY_MIN_BARS:
            if previous is not None and _same(bars, previous, now):
                flags[now] = True
            previous = now
    return flags


def _same(bars: Bars, left: slice, right: slice) -> bool:
    columns = (*PRICES, "volume")
    return all(np.array_equal(getattr(bars, name)[left], getattr(bars, name)[right]) for name in columns)


def _coverage(
    bars: Bars, sessions: Sessions, duration_ns: int, start_ns: int, known_end: int
) -> tuple[Columns, Columns]:
    """Per session the longest run of open market without a bar up to the last bar; for the series what is missing.

    After the last bar, missing time counts as staleness and not as a gap. A daily bar stands for the session of its
    date.
    """
    if duration_ns >= DAY_NS:
        slots, owner, market_ns = _session_days(sessions, start_ns, known_end)
    else:
        slots, owner, market_ns = sessions.expected_slots(start_ns, known_end, duration_ns)
    # Bars are in time order: a search is ten times as fast as a set of them.
    filled = bars.ts_open // duration_ns * duration_ns
    index = np.minimum(np.searchsorted(filled, slots), max(len(filled) - 1, 0))
    present = filled[index] == slots if len(filled) else np.zeros(len(slots), np.bool_)
    last = int(bars.ts_open[-1]) if len(bars) else start_ns - 1
    inner = slots <= last
    lost = np.where(present, 0, market_ns)
    ids = np.unique(owner)
    position = np.searchsorted(ids, owner)
    longest, expected, found = (np.zeros(len(ids), np.int64) for _ in range(3))
    np.add.at(expected, position, market_ns)
    np.add.at(found, position, np.where(present, market_ns, 0))
    if len(slots):
        # A run ends at a bar, at the end of a session, and where staleness takes over.
        breaks = np.concatenate([[True], present[1:] | present[:-1] | (owner[1:] != owner[:-1]) | ~inner[1:]])
        starts = np.flatnonzero(breaks)
        runs = np.add.reduceat(np.where(inner, lost, 0), starts)
        np.maximum.at(longest, position[starts], runs)
    dates = sessions.session_date[ids] if len(ids) else np.empty(0, np.int32)
    sessions_frame: Columns = {
        "session_date": dates,
        "expected_minutes": expected / MINUTE_NS,
        "present_minutes": found / MINUTE_NS,
        "longest_gap_minutes": longest / MINUTE_NS,
    }
    total = int(market_ns.sum())
    series_frame: Columns = {
        "bars": np.array([len(bars)], np.int64),
        "missing_pct": np.array([100.0 * int(lost.sum()) / total if total else np.nan]),
        "stale_minutes": np.array([int(np.where(inner, 0, market_ns).sum()) / MINUTE_NS if len(bars) else np.nan]),
    }
    return sessions_frame, series_frame


def _session_days(
    sessions: Sessions, start_ns: int, known_end: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The daily bars that are due: 00:00 UTC of each session date in the range whose session has closed."""
    dates = sessions.session_date.astype(np.int64)
    text = [f"{day // 10_000:04d}-{day // 100 % 100:02d}-{day % 100:02d}" for day in dates.tolist()]
    slots = np.array(text, "datetime64[ns]").astype(np.int64)
    market = np.zeros(len(sessions), np.int64)
    np.add.at(market, sessions.segment_session, sessions.segment_close_ns - sessions.segment_open_ns)
    due = (slots >= start_ns) & (sessions.close_ns <= known_end)
    return slots[due], np.flatnonzero(due).astype(np.int32), market[due]
