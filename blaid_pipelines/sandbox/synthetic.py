"""Synthetic one-minute futures bars, seeded from the symbol: sessions, rolls, quiet minutes, edges and defects.

Everything is integer arithmetic on raw 64-bit words of the Philox generator, whose stream is fixed by its definition:
the same symbol gives the same bars on every machine and with every numpy. What is drawn is a random walk with a daily
rhythm, a step at each roll and minutes without trades in quiet hours. A planted edge adds slow drifts inside sessions
that a trend follower can earn on; planted defects are the ones a quality gate must catch. No real prices are here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.providers.databento.dbn import MISSING_PRICE
from blaid_pipelines.sandbox.contracts import DATASET, PRODUCTS, Lead, leads
from blaid_pipelines.sandbox.series import MINUTE, PRICES, Series, lead_ids, utc_nanos

I64 = npt.NDArray[np.int64]
_FINE = 1024  # sub-ticks in a tick
_SUBSTEPS = 4  # path points in a minute: its open, two between, its close
_NORMAL_SD = 37_837  # of the sum of four 16-bit words: 65,536 * sqrt(4 / 12)
# (minutes since the session's open, volatility in per cent): Asia, Europe, New York, last hour
_RHYTHM = ((0, 60), (540, 85), (930, 130), (1260, 75))


@dataclass(frozen=True, slots=True)
class Edge:
    """Slow drifts inside each session, up and down in turn.

    ``drift`` is in sub-ticks (1/1024 tick) a minute, a drift lasts between ``shortest`` and ``longest`` minutes, and
    ``calm_pct`` scales the noise around it.
    """

    drift: int
    shortest: int
    longest: int
    calm_pct: int


@dataclass(frozen=True, slots=True)
class Defect:
    """A planted defect: ``kind`` is gap, off_tick, missing, duplicate or scale; at ``at`` (nanoseconds UTC).

    ``minutes`` is how many minute bars from there on it touches (for ``gap``: removes).
    """

    kind: str
    at: int
    minutes: int = 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to make: a continuous symbol (``MES.c.0``) on UTC dates [start, end); ``salt`` gives another walk."""

    symbol: str
    start: date
    end: date
    edge: Edge | None = None
    defects: tuple[Defect, ...] = ()
    salt: int = 0


@lru_cache(maxsize=32)
def synthesise(recipe: Recipe) -> Series:
    """The bars of ``recipe``, always the same. Raises ``KeyError`` for a root that is no known product."""
    product = PRODUCTS[recipe.symbol.split(".")[0]]
    start, end = utc_nanos(recipe.start), utc_nanos(recipe.end)
    sessions = load_sessions(product.calendar, start, end)
    spans = [
        (opens, (closes - opens) // MINUTE)
        for opens, closes in zip(sessions.open_ns.tolist(), sessions.close_ns.tolist(), strict=True)
    ]
    ts_open = np.concatenate([opens + MINUTE * np.arange(count, dtype=np.int64) for opens, count in spans])
    minute = np.concatenate([np.arange(count, dtype=np.int64) for _, count in spans])
    count = np.concatenate([np.full(count, count, dtype=np.int64) for _, count in spans])
    contracts = tuple(leads(product.root, recipe.start, recipe.end))
    covered = (ts_open >= start) & (ts_open < end)
    weight = _rhythm(minute)
    noise = weight if recipe.edge is None else weight * recipe.edge.calm_pct // 100
    steps = _normal(recipe, "steps", len(ts_open) * _SUBSTEPS).reshape(-1, _SUBSTEPS)
    # a minute's variance is spread over the sub-steps: 1/4 to its open, 3/4 inside
    steps = steps * (product.volatility * _FINE // 100) // 2 * noise[:, None] // (100 * _NORMAL_SD)
    steps[:, 0] += np.where(minute == 0, steps[:, 0] * 8, 0)  # prices jump over a break
    if recipe.edge is not None:
        steps[:, 1:] += (_drifts(recipe, recipe.edge, minute, count) // (_SUBSTEPS - 1))[:, None]
    roll = product.roll_step_ticks * _FINE * _contract_number(ts_open, contracts)
    path = product.base_ticks * _FINE + np.cumsum(steps.reshape(-1)).reshape(-1, _SUBSTEPS) + roll[:, None]
    ticks = (path + _FINE // 2) // _FINE
    columns = {
        "open": ticks[:, 0],
        "high": ticks.max(axis=1),
        "low": ticks.min(axis=1),
        "close": ticks[:, -1],
    }
    volume = 1 + product.volume * weight * (64 + _words(recipe, "volume", len(ts_open)) % 128) // 12_800
    traded = _traded(recipe, minute, count, weight)
    kept = covered & traded
    series = Series(
        dataset=DATASET,
        symbol=recipe.symbol,
        schema="ohlcv-1m",
        ts_open=ts_open[kept],
        volume=volume[kept],
        instrument_id=lead_ids(ts_open[kept], contracts),
        leads=contracts,
        **{name: column[kept] * product.tick_nanos for name, column in columns.items()},
    )
    for defect in recipe.defects:
        series = _plant(series, defect, product.tick_nanos)
    return series


def _words(recipe: Recipe, purpose: str, count: int) -> I64:
    """``count`` raw words of a stream of its own, as non-negative int64 (the top bit dropped)."""
    seed = hashlib.sha256(f"{recipe.symbol}/{recipe.salt}/{purpose}".encode()).digest()
    raw = np.random.Philox(key=int.from_bytes(seed[:16], "big")).random_raw(count)
    return (raw >> np.uint64(1)).astype(np.int64)


def _normal(recipe: Recipe, purpose: str, count: int) -> I64:
    """Nearly normal integers, mean 0, standard deviation ``_NORMAL_SD``: sums of four 16-bit words."""
    seed = hashlib.sha256(f"{recipe.symbol}/{recipe.salt}/{purpose}".encode()).digest()
    raw = np.random.Philox(key=int.from_bytes(seed[:16], "big")).random_raw(count)
    parts = sum(((raw >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64) for shift in (0, 16, 32, 48))
    return np.asarray(parts, dtype=np.int64) - 2 * 65_535


def _rhythm(minute: I64) -> I64:
    weight = np.zeros(len(minute), dtype=np.int64)
    for since, per_cent in _RHYTHM:
        weight[minute >= since] = per_cent
    return weight


def _contract_number(ts_open: I64, contracts: tuple[Lead, ...]) -> I64:
    number = np.zeros(len(ts_open), dtype=np.int64)
    for lead in contracts[1:]:
        number += ts_open >= utc_nanos(lead.start)
    return number


def _drifts(recipe: Recipe, edge: Edge, minute: I64, count: I64) -> I64:
    """The drift of each minute in sub-ticks: sessions cut into stretches that go up and down in turn."""
    words = iter(_words(recipe, "drifts", len(minute) // edge.shortest + 8 * int((minute == 0).sum())).tolist())
    drift = np.zeros(len(minute), dtype=np.int64)
    for opening in np.flatnonzero(minute == 0).tolist():
        direction = 1 if next(words) % 2 else -1
        cursor, length = 0, int(count[opening])
        while cursor < length:
            lasts = edge.shortest + next(words) % (edge.longest - edge.shortest + 1)
            if length - cursor - lasts < edge.shortest:
                lasts = length - cursor  # the rest is too short for a drift of its own
            drift[opening + cursor : opening + cursor + lasts] = direction * edge.drift
            direction, cursor = -direction, cursor + lasts
    return drift


def _traded(recipe: Recipe, minute: I64, count: I64, weight: I64) -> npt.NDArray[np.bool_]:
    """False for minutes without a trade: about one in a hundred of the quiet ones, never near open or close."""
    draw = _words(recipe, "quiet", len(minute)) % 10_000
    return (draw >= (130 - weight) * 2) | (minute < 5) | (minute >= count - 5)


def _plant(series: Series, defect: Defect, tick_nanos: int) -> Series:
    hit = (series.ts_open >= defect.at) & (series.ts_open < defect.at + defect.minutes * MINUTE)
    if not hit.any():
        raise ValueError(f"no bar to plant {defect.kind} on")
    if defect.kind == "gap":
        return series.take(~hit)
    if defect.kind == "duplicate":
        again = np.sort(np.r_[np.arange(len(series)), np.flatnonzero(hit)])
        return series.take(again)
    columns: dict[str, Any] = {}
    for name in PRICES:
        price = getattr(series, name)
        wrong = {"off_tick": price + tick_nanos * 2 // 5, "missing": MISSING_PRICE, "scale": price * 100}[defect.kind]
        columns[name] = np.where(hit, wrong, price)
    return replace(series, **columns)
