"""Trades and one-second bars into longer bars: what the exchange's own bars say, and nothing counted once too few."""

from __future__ import annotations

import gzip
import time
from datetime import UTC, datetime
from pathlib import Path

import databento
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaid_pipelines.market.bars import MINUTE_NS, PRICES, Bars, to_ns
from blaid_pipelines.market.intake.choose import Known, choose
from blaid_pipelines.market.intake.files import read_file
from blaid_pipelines.market.intake.ingest import IngestRequest, ingest
from blaid_pipelines.market.intake.reading import Ask
from blaid_pipelines.market.intake.trades import join, longer_bars, trade_rows
from blaid_pipelines.market.lake.snapshots import load_bars
from blaid_pipelines.proof.recorder import CallContext
from blaid_pipelines.reasons import InvalidRequest, ReasonCode, StopAndFix
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from tests.market.test_import_files import ES, chosen, refused, wrote

TICKS = "es_ticks/es_ticks_20130901_20130903.csv.gz"
DERIVED = "es_ticks/es_1m_derived.parquet"
CHICAGO = Ask("ESU3", content="trades", tz="America/Chicago")


def derived(real_data: Path) -> pd.DataFrame:
    frame = pq.read_table(real_data / DERIVED).to_pandas()
    return frame.tz_localize("America/Chicago").tz_convert("UTC")


def assert_equal(bars: Bars, frame: pd.DataFrame) -> None:
    np.testing.assert_array_equal(bars.ts_open, frame.index.as_unit("ns").asi8)
    for name in PRICES:
        np.testing.assert_array_equal(getattr(bars, name), np.rint(frame[name] * 1e9).astype(np.int64))
    np.testing.assert_array_equal(bars.volume, frame.volume)


@pytest.mark.real_data
def test_half_a_million_real_ticks_make_the_known_minutes(real_data: Path, store: Store, settings: Settings) -> None:
    path = real_data / TICKS
    request = IngestRequest([path], "ESU3", tz="America/Chicago", content="trades")
    snapshot = ingest(store, settings, CallContext("c" * 32), request).snapshot
    bars = load_bars(store, settings.lake, snapshot)
    frame = derived(real_data)
    assert (len(bars), int(bars.volume.sum())) == (2_264, 1_844_058) == (len(frame), int(frame.volume.sum()))
    assert_equal(bars, frame)
    assert snapshot.provenance["content"] == "trades"
    again = ingest(store, settings, CallContext("d" * 32), request).snapshot
    assert again.snapshot_id == snapshot.snapshot_id


@pytest.mark.real_data
def test_equal_ticks_are_sweeps_and_keep_their_volume(real_data: Path) -> None:
    raw = pd.read_csv(real_data / TICKS)
    rows = read_file(real_data / TICKS, CHICAGO).bars
    assert int(raw.duplicated().sum()) == 305_809
    assert (len(rows), int(rows.volume.sum())) == (500_000, int(raw.Volume.sum()))
    assert raw.drop_duplicates().Volume.sum() < 0.8 * raw.Volume.sum(), "what dropping equal rows would destroy"


@pytest.mark.real_data
def test_half_a_million_ticks_take_well_under_a_second(real_data: Path) -> None:
    best = np.inf
    for _ in range(3):
        start = time.process_time()
        found = choose([read_file(real_data / TICKS, CHICAGO)], "ESU3", ES, "ohlcv-1m", "trades", Known())
        best = min(best, time.process_time() - start)
    assert len(found.bars) == 2_264
    assert best < 1.5  # 0.4 s of one core when nobody else wants it


@pytest.mark.real_data
@pytest.mark.parametrize("kind", ["parquet", "halves", "shuffled-minutes"])
def test_the_same_ticks_in_other_files_make_the_same_bars(real_data: Path, tmp_path: Path, kind: str) -> None:
    table = pacsv.read_csv(real_data / TICKS)
    paths = [tmp_path / "one.parquet"]
    if kind == "parquet":
        pq.write_table(table, paths[0])
    elif kind == "halves":  # cut inside a minute, given the wrong way round
        paths = [tmp_path / "late.parquet", tmp_path / "early.parquet"]
        pq.write_table(table.slice(250_007), paths[0])
        pq.write_table(table.slice(0, 250_007), paths[1])
    else:  # whole minutes out of order; inside a moment the file's order is all there is
        pq.write_table(pa.concat_tables([table.slice(400_000), table.slice(0, 400_000)]), paths[0])
    found = chosen("ESU3", *paths, spec=ES, content="trades", tz="America/Chicago", stamp=None)  # type: ignore[arg-type]
    assert_equal(found.bars, derived(real_data))


@pytest.mark.real_data
@pytest.mark.parametrize("schema", ["trades", "tbbo"])
def test_real_dbn_trades_make_the_bar_that_databento_says(real_data: Path, schema: str) -> None:
    """Databento bins by ``ts_recv``; the four trades of the file are the first of the minute whose bar is known."""
    folder = real_data / "dbn_client_tests" / "GLBX.MDP3"
    found = chosen("ESH1", folder / f"test_data.{schema}.dbn.zst", spec=ES, content="trades")
    records = databento.DBNStore.from_file(folder / f"test_data.{schema}.dbn.zst").to_ndarray()
    whole = read_file(folder / "test_data.ohlcv-1m.dbn.zst", Ask("ESH1")).bars
    assert len(found.bars) == 1
    assert found.bars.ts_open[0] == whole.ts_open[0]
    assert found.bars.open[0] == whole.open[0] == records["price"][0]
    assert found.bars.close[0] == records["price"][-1]
    assert found.bars.volume[0] == records["size"].sum()


@pytest.mark.real_data
def test_real_seconds_make_minutes(real_data: Path) -> None:
    path = real_data / "dbn_client_tests" / "GLBX.MDP3" / "test_data.ohlcv-1s.dbn.zst"
    seconds = read_file(path, Ask("ESH1", content="ohlcv-1s")).bars
    minutes = chosen("ESH1", path, spec=ES, content="ohlcv-1s").bars
    assert int(minutes.volume.sum()) == int(seconds.volume.sum())
    assert (minutes.ts_open % MINUTE_NS == 0).all()
    assert minutes.open[0] == seconds.open[0]


HEADER = "time,price,volume\n"
ROWS = "".join(f"2024-02-05 14:30:{second:02d},{5000 + second},1\n" for second in range(3))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEADER + ROWS + "2024-02-05 14:30:09,,1\n", ReasonCode.FIELD_MISSING),
        (HEADER + ROWS + "2024-02-05 14:30:09,NaN,1\n", ReasonCode.VALUE_NOT_FINITE),
        (HEADER + ROWS + "2024-02-05 14:30:09,5000,\n", ReasonCode.VOLUME_INVALID),
        (HEADER + ROWS + "2024-02-05 14:30:09,5000,-3\n", ReasonCode.VOLUME_INVALID),
        (HEADER + ROWS + "2024-02-05 14:30:09,5000,1.5\n", ReasonCode.VOLUME_INVALID),
        (HEADER, ReasonCode.FILE_UNREADABLE),
        ("time,volume\n2024-02-05 14:30:09,1\n", ReasonCode.FIELD_MISSING),
        ("time,price\n2024-02-05 14:30:09,1\n", ReasonCode.FIELD_MISSING),
    ],
)
def test_a_bad_trade_is_refused_because_a_bar_would_hide_it(tmp_path: Path, text: str, code: ReasonCode) -> None:
    path = wrote(tmp_path / "ticks.csv.gz", gzip.compress(text.encode()))
    assert refused(path, Ask("MESH4", content="trades", tz="UTC")) == (StopAndFix, code)


def test_a_second_that_comes_twice_is_refused(tmp_path: Path) -> None:
    row = "2024-02-05 14:30:00,1,1,1,1,1\n"
    path = wrote(tmp_path / "seconds.csv", "time,open,high,low,close,volume\n" + row + row)
    ask = Ask("MESH4", content="ohlcv-1s", stamp="open", tz="UTC")
    assert refused(path, ask) == (StopAndFix, ReasonCode.DUPLICATE_KEY)


def test_files_that_overlap_would_count_trades_twice(tmp_path: Path) -> None:
    paths = [wrote(tmp_path / name, HEADER + ROWS) for name in ("a.csv", "b.csv")]
    with pytest.raises(InvalidRequest) as caught:
        chosen("MESH4", *paths, content="trades", stamp=None)  # type: ignore[arg-type]
    assert caught.value.reason.numbers["files"] == ["a.csv", "b.csv"]


def test_sizes_are_named_in_several_ways_and_other_columns_do_not_matter(tmp_path: Path) -> None:
    for size in ("volume", "size", "qty"):
        text = f"ts,Last,{size},bid,ask\n2024-02-05T14:30:09Z,5000.25,4,1,2\n"
        found = chosen("MESH4", wrote(tmp_path / f"{size}.csv", text), content="trades", stamp=None)  # type: ignore[arg-type]
        assert (found.bars.close.tolist(), found.bars.volume.tolist()) == ([5000_250_000_000], [4])


trades = st.lists(
    st.tuples(st.integers(0, 5 * MINUTE_NS - 1), st.integers(-50, 50), st.integers(0, 99), st.integers(0, 1)),
    min_size=1,
    max_size=60,
)


@given(trades, st.integers(0, 60))
def test_bars_of_trades_are_those_of_a_plain_loop(rows: list[tuple[int, int, int, int]], cut: int) -> None:
    start = to_ns(datetime(2024, 2, 5, 14, 30, tzinfo=UTC))
    ts, price, size, code = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    whole = trade_rows(start + ts, price, size, code.astype(np.int32), ("MESH4", "MESM4"))
    parts = join([whole.take(slice(0, cut)), whole.take(slice(cut, None))])
    expected: dict[tuple[int, str], list[int]] = {}
    for moment, value, count, which in sorted(rows, key=lambda row: row[0]):  # stable, as the file has them
        key = (start + moment // MINUTE_NS * MINUTE_NS, ("MESH4", "MESM4")[which])
        bar = expected.setdefault(key, [value, value, value, value, 0])
        bar[1], bar[2], bar[3], bar[4] = max(bar[1], value), min(bar[2], value), value, bar[4] + count
    bars = longer_bars(parts, MINUTE_NS)
    found = {
        (int(bars.ts_open[row]), bars.contracts[bars.contract[row]]): [
            int(getattr(bars, name)[row]) for name in (*PRICES, "volume")
        ]
        for row in range(len(bars))
    }
    assert found == expected
