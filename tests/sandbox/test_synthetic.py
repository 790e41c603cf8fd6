"""Synthetic series: the same on every machine, shaped like a market, with exactly the defects that were asked for."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np
import pytest

from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.providers.databento.dbn import MISSING_PRICE
from blaid_pipelines.sandbox.catalog import RECIPES
from blaid_pipelines.sandbox.contracts import PRODUCTS, expiry_of, instrument_id, last_trading_day, leads, raw_root
from blaid_pipelines.sandbox.series import MINUTE, PRICES, Series
from blaid_pipelines.sandbox.synthetic import Defect, Edge, Recipe, synthesise

WEEK = (date(2024, 3, 11), date(2024, 3, 20))


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def digest(series: Series) -> str:
    columns = ("ts_open", *PRICES, "volume", "instrument_id")
    return hashlib.sha256(b"".join(getattr(series, name).astype("<i8").tobytes() for name in columns)).hexdigest()


EDGE = Edge(200, 240, 420, 100)
# What the seeds give, once and for all: a change here changes every demo and every recorded session.
DIGESTS = {
    Recipe("MES.c.0", *WEEK): "1d9f2bf8aaf5ba02203351c48733b435ee9529b3558029845dae36469cddd82c",
    Recipe(
        "MES.c.0", *WEEK, edge=Edge(200, 240, 420, 100)
    ): "a7929c44cbf5dcfafc4fb1c7ed4dfa7e10aa94d19a09e3ba70dc6eabb713e224",
    Recipe("6E.c.0", *WEEK): "de986db5819c4fb22add85daceacfeb7dcfa16dc5ccf78c9ee25da1fc2faa47f",
}


@pytest.mark.parametrize("recipe", DIGESTS, ids=lambda recipe: f"{recipe.symbol}-{recipe.edge is not None}")
def test_the_same_seed_gives_the_same_bars_everywhere(recipe: Recipe) -> None:
    assert digest(synthesise.__wrapped__(recipe)) == DIGESTS[recipe]


def test_symbols_and_salts_give_other_walks() -> None:
    walks = [Recipe("MES.c.0", *WEEK), Recipe("MNQ.c.0", *WEEK), Recipe("MES.c.0", *WEEK, salt=1)]
    assert len({digest(synthesise(recipe)) for recipe in walks}) == 3


@pytest.mark.parametrize("root", sorted(PRODUCTS))
def test_every_product_is_a_market(root: str) -> None:
    product = PRODUCTS[root]
    series = synthesise(Recipe(f"{root}.c.0", *WEEK))
    prices = np.stack([getattr(series, name) for name in PRICES])
    assert (prices % product.tick_nanos == 0).all()
    assert (series.low == prices.min(axis=0)).all()
    assert (series.high == prices.max(axis=0)).all()
    assert (prices > 0).all()
    assert (series.volume > 0).all()
    assert (np.diff(series.ts_open) > 0).all()
    sessions = load_sessions(product.calendar, *(at(day.isoformat()) for day in WEEK))
    inside = sessions.is_open(series.ts_open)
    assert inside.all()
    expected, _, _ = sessions.expected_slots(at("2024-03-11"), at("2024-03-20"), MINUTE)
    quiet = 1 - len(series) / len(expected)
    assert 0.001 < quiet < 0.03  # some minutes without a trade, few
    missing = np.setdiff1d(expected, series.ts_open)
    longest = max(len(run) for run in np.split(missing, np.flatnonzero(np.diff(missing) != MINUTE) + 1))
    assert longest <= 4


def test_a_roll_is_a_step_in_price_and_a_change_of_contract() -> None:
    series = synthesise(Recipe("MES.c.0", *WEEK))
    assert [(lead.raw_symbol, lead.start, lead.end) for lead in series.leads] == [
        ("MESH4", date(2024, 3, 11), date(2024, 3, 15)),
        ("MESM4", date(2024, 3, 15), date(2024, 3, 20)),
    ]
    first = int(np.argmax(series.instrument_id == series.leads[1].instrument_id))
    assert series.ts_open[first] == at("2024-03-15")
    step = int(series.open[first] - series.close[first - 1]) // PRODUCTS["MES"].tick_nanos
    assert abs(step - PRODUCTS["MES"].roll_step_ticks) < 20


@pytest.mark.parametrize(
    ("kind", "count"), [("gap", 0), ("off_tick", 30), ("missing", 30), ("scale", 30), ("duplicate", 60)]
)
def test_a_defect_is_where_it_was_asked_for_and_nowhere_else(kind: str, count: int) -> None:
    start = at("2024-03-13T15:00")
    clean = synthesise(Recipe("MES.c.0", *WEEK))
    there = (clean.ts_open >= start) & (clean.ts_open < start + 30 * MINUTE)
    broken = synthesise(Recipe("MES.c.0", *WEEK, defects=(Defect(kind, start, 30),)))
    touched = (broken.ts_open >= start) & (broken.ts_open < start + 30 * MINUTE)
    assert touched.sum() == count * there.sum() // 30
    np.testing.assert_array_equal(broken.close[~touched], clean.close[~there])
    close = broken.close[touched]
    if kind == "off_tick":
        assert (close % PRODUCTS["MES"].tick_nanos != 0).all()
    if kind == "missing":
        assert (close == MISSING_PRICE).all()
    if kind == "scale":
        np.testing.assert_array_equal(close, clean.close[there] * 100)
    if kind == "duplicate":
        np.testing.assert_array_equal(np.unique(broken.ts_open[touched], return_counts=True)[1], 2)


def test_a_defect_that_would_hit_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no bar"):
        synthesise(Recipe("MES.c.0", *WEEK, defects=(Defect("gap", at("2024-03-16T12:00"), 5),)))


def test_longer_bars_are_made_of_their_minutes_per_contract() -> None:
    minutes = synthesise(Recipe("MES.c.0", *WEEK))
    days = minutes.resampled("ohlcv-1d")
    periods = np.stack([minutes.ts_open // (1440 * MINUTE), minutes.instrument_id])
    assert len(days) == np.unique(periods, axis=1).shape[1]
    assert days.volume.sum() == minutes.volume.sum()
    first = minutes.between(at("2024-03-12"), at("2024-03-13"))
    bar = days.between(at("2024-03-12"), at("2024-03-13"))
    assert (bar.open[0], bar.high[0], bar.low[0], bar.close[0], bar.volume[0]) == (
        first.open[0],
        first.high.max(),
        first.low.min(),
        first.close[-1],
        first.volume.sum(),
    )


def test_the_default_catalog() -> None:
    assert [recipe.symbol for recipe in RECIPES] == [
        "MES.c.0",
        "MNQ.c.0",
        "M2K.c.0",
        "MYM.c.0",
        "MGC.c.0",
        "6E.c.0",
        "ZN.c.0",
    ]
    assert {(recipe.start, recipe.end) for recipe in RECIPES} == {(date(2024, 1, 2), date(2024, 6, 29))}
    assert [recipe.symbol for recipe in RECIPES if recipe.edge] == ["MES.c.0"]
    assert [recipe.symbol for recipe in RECIPES if recipe.defects] == ["M2K.c.0"]
    holes = np.diff(synthesise(RECIPES[2]).between(at("2024-03-05T08:00"), at("2024-03-05T21:00")).ts_open)
    assert holes.max() >= 240 * MINUTE


@pytest.mark.parametrize(
    ("root", "year", "month", "day"),
    [("MES", 2024, 3, 15), ("6E", 2024, 3, 18), ("CL", 2024, 3, 20), ("GC", 2024, 2, 27), ("ZN", 2024, 9, 19)],
)
def test_last_trading_days(root: str, year: int, month: int, day: int) -> None:
    assert last_trading_day(PRODUCTS[root], year, month).day == day


def test_contracts_of_long_ranges_do_not_overlap_and_leave_no_day_out() -> None:
    for root in PRODUCTS:
        parts = leads(root, date(2019, 1, 1), date(2026, 1, 1))
        assert parts[0].start == date(2019, 1, 1)
        assert parts[-1].end == date(2026, 1, 1)
        assert all(before.end == after.start for before, after in pairwise(parts))
        assert all(raw_root(part.raw_symbol) == root for part in parts)


def test_a_one_digit_year_belongs_to_the_decade_at_hand() -> None:
    expiry = expiry_of("ESH1", date(2020, 12, 28))
    assert expiry is not None
    assert expiry.date() == date(2021, 3, 19)
    assert raw_root("NOSUCHH4") is None
    assert 0 < instrument_id("MESH4") < 2**31
