"""Files served by the gateway: CSV, Parquet and DBN of the same bars come back identical through the real client."""

from __future__ import annotations

import gzip
from datetime import date, timedelta
from pathlib import Path

import databento
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blaid_pipelines.market.bars import Bars
from blaid_pipelines.providers.databento.dbn import read_dbn
from blaid_pipelines.reasons import InvalidRequest, ReasonCode, StopAndFix
from blaid_pipelines.sandbox.encode import dbn_file
from blaid_pipelines.sandbox.files import BarsFile, load_series
from blaid_pipelines.sandbox.gateway import SandboxGateway
from blaid_pipelines.sandbox.series import MINUTE, PRICES, Series, utc_day
from blaid_pipelines.sandbox.synthetic import Recipe, synthesise

KEY = "db-only-for-this-test"
SOURCE = synthesise(Recipe("MES.c.0", date(2024, 3, 14), date(2024, 3, 16)))
COLUMNS = ("ts_open", *PRICES, "volume")


def price(nanos: int) -> str:
    return f"{nanos // 10**9}.{nanos % 10**9:09d}"


def stamp(nanos: int, shift: int = 0) -> str:
    return str(np.datetime64(nanos + shift * MINUTE, "ns"))[:19].replace("T", " ")


def csv_text(shift: int) -> str:
    lines = ["Timestamp,Open,High,Low,Close,Volume"]
    for row in zip(*(getattr(SOURCE, name).tolist() for name in COLUMNS), strict=True):
        lines.append(",".join([stamp(row[0], shift), *(price(value) for value in row[1:5]), str(row[5])]))
    return "\n".join(lines) + "\n"


def write(folder: Path, kind: str) -> BarsFile:
    """The source's bars as a file of this kind."""
    path = folder / kind
    if kind == "open.csv":
        path.write_text(csv_text(0))
        return BarsFile(path, "MES.c.0")
    if kind == "close.csv.gz":
        path.write_bytes(gzip.compress(csv_text(1).encode()))
        return BarsFile(path, "MES.c.0", stamp="close")
    if kind == "lake.parquet":
        names = {lead.instrument_id: lead.raw_symbol for lead in SOURCE.leads}
        bars = Bars.build(
            *(getattr(SOURCE, name) for name in COLUMNS), [names[ident] for ident in SOURCE.instrument_id.tolist()]
        )
        pq.write_table(bars.to_table(), path)
        return BarsFile(path, "MES.c.0")
    if kind == "float.parquet":
        table = {name: getattr(SOURCE, name) / 1e9 for name in PRICES}
        times = pa.array(SOURCE.ts_open).cast(pa.timestamp("ns"))
        pq.write_table(pa.table({"ts_event": times, **table, "volume": SOURCE.volume}), path)
        return BarsFile(path, "MES.c.0")
    path.write_bytes(dbn_file(SOURCE, stype_in="continuous", compress=kind.endswith("zst")))
    return BarsFile(path, "MES.c.0")


def assert_same(got: object, wanted: Series, columns: tuple[str, ...] = COLUMNS) -> None:
    for name in columns:
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name), err_msg=name)


def served(series: Series) -> databento.DBNStore:
    with SandboxGateway([series], key=KEY) as gateway:
        # Databento's own client as it is, but for the address, which it has no setting for.
        client = databento.Historical(key=KEY)
        client.timeseries._base_url = f"{gateway.url}/v0/timeseries"
        return client.timeseries.get_range(
            dataset=series.dataset,
            symbols=[series.symbol],
            schema="ohlcv-1m",
            stype_in="continuous" if ".c." in series.symbol else "raw_symbol",
            start=series.leads[0].start,
            end=series.leads[-1].end,
        )


@pytest.mark.parametrize(
    "kind", ["open.csv", "close.csv.gz", "lake.parquet", "float.parquet", "raw.dbn", "packed.dbn.zst"]
)
def test_a_served_file_comes_back_identical(kind: str, tmp_path: Path) -> None:
    series = load_series(write(tmp_path, kind))
    assert_same(series, SOURCE, (*COLUMNS, "instrument_id"))
    bars = read_dbn(served(series)._data_source.reader.read())
    assert_same(bars, SOURCE, (*COLUMNS, "instrument_id"))
    assert bars.simulated


@pytest.mark.real_data
def test_real_bars_of_the_euro_come_back_identical(real_data: Path) -> None:
    (path,) = (real_data / "eurofx_6E").glob("*.csv.gz")
    series = load_series(BarsFile(path, "6EH4", stamp="close"))
    assert len(series) == 29_996
    assert utc_day(int(series.ts_open[0])) == date(2024, 1, 1)
    assert series.open[0] == 1_107_600_000
    assert_same(read_dbn(served(series)._data_source.reader.read()), series, (*COLUMNS, "instrument_id"))


@pytest.mark.real_data
def test_a_real_databento_file_comes_back_identical(real_data: Path) -> None:
    path = real_data / "dbn_client_tests" / "GLBX.MDP3" / "test_data.ohlcv-1m.dbn.zst"
    series = load_series(BarsFile(path, "ESH1"))
    back = read_dbn(served(series)._data_source.reader.read())
    original = read_dbn(path)
    for name in (*COLUMNS, "instrument_id", "contract"):
        np.testing.assert_array_equal(getattr(back, name), getattr(original, name))


def test_naive_times_belong_to_the_zone_given(tmp_path: Path) -> None:
    path = tmp_path / "chicago.csv"
    path.write_text("time,open,high,low,close,volume\n2024-03-14 08:30:00,5200.25,5200.5,5200,5200.25,10\n")
    series = load_series(BarsFile(path, "MESH4", tz="America/Chicago"))
    assert stamp(int(series.ts_open[0])) == "2024-03-14 13:30:00"
    assert series.leads[0].raw_symbol == "MESH4"
    assert series.leads[0].end == date(2024, 3, 14) + timedelta(days=1)


BAD = {
    "no-column.csv": "time,open,high,low,close\n2024-03-14 08:30:00,1,1,1,1\n",
    "no-time.csv": "open,high,low,close,volume\n1,1,1,1,1\n",
    "words.csv": "time,open,high,low,close,volume\n2024-03-14 08:30:00,one,1,1,1,1\n",
    "bad-time.csv": "time,open,high,low,close,volume\nyesterday,1,1,1,1,1\n",
    "part.csv": "time,open,high,low,close,volume\n2024-03-14 08:30:00,1,1,1,1,1.5\n",
    "ragged.csv": "time,open,high,low,close,volume\n2024-03-14 08:30:00,1,1\n",
    "empty.csv": "time,open,high,low,close,volume\n",
    "nothing.csv": "",
    "junk.parquet": "PAR1 is not enough",
    "junk.dbn": "DBN",
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_served_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(BAD[name])
    with pytest.raises(StopAndFix) as caught:
        load_series(BarsFile(path, "MESH4"))
    assert caught.value.reason.code is ReasonCode.FILE_UNREADABLE
    assert name in caught.value.reason.message


def test_a_time_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dst.csv"
    path.write_text("time,open,high,low,close,volume\n2024-03-10 02:30:00,1,1,1,1,1\n")
    with pytest.raises(StopAndFix):
        load_series(BarsFile(path, "MESH4", tz="America/Chicago"))


@pytest.mark.parametrize(("symbol", "stamp_"), [("XYZ.c.0", "open"), ("MES.FUT", "open"), ("MESH4", "middle")])
def test_what_cannot_be_served(symbol: str, stamp_: str, tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("time,open,high,low,close,volume\n2024-03-14 08:30:00,1,1,1,1,1\n")
    with pytest.raises(InvalidRequest):
        load_series(BarsFile(path, symbol, stamp_))


def test_an_unknown_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "bars.xlsx").touch()
    with pytest.raises(StopAndFix) as caught:
        load_series(BarsFile(tmp_path / "bars.xlsx", "MESH4"))
    assert caught.value.reason.code is ReasonCode.FORMAT_UNSUPPORTED
