"""Bars: one hash for the same bars however stored, coded or ordered; exact prices; sentinels that survive the lake."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaid_pipelines.market.bars import (
    DAY_NS,
    MISSING,
    MISSING_VOLUME,
    NOT_FINITE,
    Bars,
    content_hash_of,
    nanos_of,
)
from tests.market.helpers import clean_bars

PRICE = st.one_of(st.integers(-(10**15), 10**15), st.sampled_from([MISSING, NOT_FINITE]))
ROW = st.tuples(
    st.integers(0, 5 * DAY_NS), PRICE, PRICE, PRICE, PRICE, st.integers(-1, 10**9), st.sampled_from(["MESH4", "MESM4"])
)


def of_rows(rows: list[tuple[int, int, int, int, int, int, str]]) -> Bars:
    if not rows:
        return Bars.empty()
    *columns, contract = zip(*rows, strict=True)
    return Bars.build(*columns, list(contract))


@given(st.lists(ROW, max_size=30), st.randoms(use_true_random=False), st.integers(0, 5 * DAY_NS))
def test_the_same_bars_have_one_hash(rows: list, chance: object, cut: int) -> None:
    bars = of_rows(rows)
    wanted = bars.content_hash()
    shuffled = list(rows)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert of_rows(shuffled).content_hash() == wanted
    assert Bars.from_table(bars.to_table()).content_hash() == wanted
    assert Bars.concat([bars.slice(cut, 6 * DAY_NS), bars.slice(0, cut)]).content_hash() == wanted


@given(st.lists(ROW, min_size=1, max_size=12), st.data())
def test_any_change_changes_the_hash(rows: list, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.integers(0, 5))
    changed = [list(row) for row in rows]
    changed[position][column] += 1
    assert of_rows([tuple(row) for row in changed]).content_hash() != of_rows(rows).content_hash()


def test_the_contract_is_part_of_the_content_and_its_code_is_not() -> None:
    column = np.array([1, 2], np.int64)
    code = np.array([0, 1], np.int32)
    one = Bars(column, column, column, column, column, column, code, ("A", "B"))
    recoded = Bars(column, column, column, column, column, column, 1 - code, ("B", "A"))
    swapped = Bars(column, column, column, column, column, column, code, ("B", "A"))
    unused = Bars(column, column, column, column, column, column, code + 1, ("Z", "A", "B"))
    assert one.content_hash() == recoded.content_hash() == unused.content_hash()
    assert one.content_hash() != swapped.content_hash()


def test_duplicates_count_in_the_hash() -> None:
    once = of_rows([(0, 1, 1, 1, 1, 1, "A")])
    twice = of_rows([(0, 1, 1, 1, 1, 1, "A")] * 2)
    assert once.content_hash() != twice.content_hash()


def test_the_table_is_what_analysts_read() -> None:
    table = of_rows([(60_000_000_000, 1_107_600_000, MISSING, NOT_FINITE, -5, MISSING_VOLUME, "6EH4")]).to_table()
    row = table.to_pylist()[0]
    assert str(row["ts_open"]) == "1970-01-01 00:01:00+00:00"
    assert str(row["open"]) == "1.107600000"
    assert row["high"] is None
    assert row["volume"] is None
    assert str(row["close"]) == "-5E-9"
    assert row["contract"] == "6EH4"


@given(st.integers(-(10**17), 10**17))
def test_decimals_are_exact(nanos: int) -> None:
    column = pa.chunked_array([of_rows([(0, nanos, 0, 0, 0, 0, "A")]).to_table().column("open").chunk(0)])
    assert nanos_of(column).tolist() == [nanos]
    assert nanos_of(column.cast(pa.decimal128(30, 12))).tolist() == [nanos]


@pytest.mark.parametrize(
    ("value", "nanos"),
    [
        (1.1076, 1_107_600_000),
        (110.015625, 110_015_625_000),
        (-37.63, -37_630_000_000),
        (45_000.1, 45_000_100_000_000),
        (float("nan"), NOT_FINITE),
        (float("inf"), NOT_FINITE),
        (-float("inf"), NOT_FINITE),
        (2e9, NOT_FINITE),
        (None, MISSING),
    ],
)
def test_floats_are_read_as_the_decimals_they_print_as(value: float | None, nanos: int) -> None:
    assert nanos_of(pa.chunked_array([pa.array([value], pa.float64())])).tolist() == [nanos]


def test_columns_of_unequal_length_are_refused() -> None:
    column, code = np.array([1], np.int64), np.array([0], np.int32)
    with pytest.raises(ValueError, match="close"):
        Bars(column, column, column, column, np.array([1, 2], np.int64), column, code, ("A",))
    with pytest.raises(ValueError, match="contract"):
        Bars(column, column, column, column, column, column, code + 1, ("A",))


def test_the_hash_never_changes_from_version_to_version() -> None:
    """Written down when bars were first stored: sessions and decisions on record cite these hashes."""
    assert clean_bars().content_hash() == "a985f6afbfa03bc64e2afca5121b6a6da57d9983902a514be4824eb5a027ab38"
    odd = of_rows(
        [(DAY_NS - 1, 1, MISSING, NOT_FINITE, -5, -1, "B"), (DAY_NS - 1, 1, 2, 3, 4, 5, "A"), (7, 1, 1, 1, 1, 1, "Z")]
    )
    assert odd.content_hash() == "3ceef17b4b4141a54d0215804279d145722c5183dd15ace2a2b5ec2eff9a574a"


def test_what_a_day_says_is_what_its_bars_say() -> None:
    bars = clean_bars()
    for entry in bars.days():
        day = bars.slice(entry.day * DAY_NS, (entry.day + 1) * DAY_NS)
        assert (entry.bars, entry.first_ns, entry.last_ns) == (len(day), day.ts_open[0], day.ts_open[-1])
        assert (entry.contracts, [entry]) == (day.contracts, day.days())
    assert content_hash_of(bars.days()) == bars.content_hash()


def test_chunks_that_number_their_contracts_differently_are_one_table() -> None:
    parts = [of_rows([(row, 1, 1, 1, 1, 1, name)]) for row, name in enumerate("BAB")]
    table = pa.concat_tables([part.to_table() for part in parts])
    assert table.column("contract").num_chunks == 3
    assert Bars.from_table(table).content_hash() == Bars.concat(parts).content_hash()
    plain = table.set_column(6, "contract", table.column("contract").cast(pa.string()))
    assert Bars.from_table(plain).content_hash() == Bars.concat(parts).content_hash()
