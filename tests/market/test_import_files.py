"""Files of every kind: one contract picked, several stitched, times placed, and everything else refused by name."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from blaid_pipelines.market.bars import DAY_NS, MINUTE_NS, Bars, to_ns
from blaid_pipelines.market.intake.choose import Chosen, Known, choose
from blaid_pipelines.market.intake.files import read_file
from blaid_pipelines.market.intake.reading import Ask, FileBars
from blaid_pipelines.providers.databento.dbn import OHLCV_DTYPE, SymbolInterval
from blaid_pipelines.reasons import BlaidError, InvalidRequest, ReasonCode, StopAndFix
from blaid_pipelines.sandbox.encode import Header, metadata_bytes, zstd
from tests.market.helpers import MES, clean_bars, write_csv

ES = replace(MES, symbol="ES")
OPEN = datetime(2024, 2, 5, 14, 30, tzinfo=UTC)
HEADER = "timestamp,open,high,low,close,volume\n"
ROW = "2024-02-05 14:30:00,5000,5001,4999.75,5000.25,7\n"


def wrote(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def chosen(symbol: str, *paths: Path, spec: object = MES, known: Known | None = None, **ask: str) -> Chosen:
    wanted = Ask(symbol, **{"stamp": "open", "tz": "UTC", **ask})  # type: ignore[arg-type]
    files: list[FileBars] = [read_file(path, wanted) for path in paths]
    return choose(files, symbol, spec, wanted.schema, wanted.content, known or Known())  # type: ignore[arg-type]


def refused(path: Path, ask: Ask | None = None) -> tuple[type[BlaidError], ReasonCode]:
    with pytest.raises(BlaidError) as caught:
        read_file(path, ask or Ask("MESH4", stamp="open", tz="UTC"))
    reason = caught.value.reason
    assert path.name in reason.message
    assert reason.suggested_fix
    return type(caught.value), reason.code


# --- several contracts in one file -----------------------------------------------------------------------------------

H4, M4 = clean_bars(contract="MESH4"), clean_bars(contract="MESM4", seed=8)
BOTH = Bars.concat([H4, M4])


def test_the_key_is_stamp_and_contract_and_one_contract_is_picked(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "both.csv", BOTH, contract_column=True)
    assert len(read_file(path, Ask("MESH4", stamp="open", tz="UTC")).bars) == len(H4) + len(M4)
    for symbol, bars in (("MESH4", H4), ("MESM4", M4)):
        found = chosen(symbol, path)
        assert found.bars.content_hash() == bars.content_hash()
        assert found.provenance == {"contracts_in_files": ["MESH4", "MESM4"]}
    assert "contracts_in_files" not in chosen("MESH4", write_csv(tmp_path / "one.csv", H4)).provenance
    with pytest.raises(InvalidRequest) as caught:
        chosen("MESU4", path)
    assert caught.value.reason.numbers["held"] == ["MESH4", "MESM4"]


def test_contracts_side_by_side_are_stitched_and_the_roll_is_told(tmp_path: Path) -> None:
    half = len(H4) // 2
    heavy = Bars(M4.ts_open, M4.open, M4.high, M4.low, M4.close, M4.volume.copy(), M4.contract, M4.contracts)
    heavy.volume[:] = 1
    heavy.volume[M4.ts_open >= M4.ts_open[half]] = 10_000
    path = write_csv(tmp_path / "both.csv", Bars.concat([H4, heavy]), contract_column=True)
    found = chosen("MES.v.0", path)
    assert found.bars.contracts == ("MESH4", "MESM4")
    assert len(np.unique(found.bars.ts_open)) == len(found.bars), "one contract at a time"
    (step,) = found.provenance["rolls"]
    assert (step["from"], step["to"], step["basis"]) == ("MESH4", "MESM4", "same_time")
    assert found.provenance["sessions_left_out"] == [20240205], "nothing decides the first session"


def test_a_series_that_rolls_at_midnight_is_one_already(tmp_path: Path) -> None:
    midnight = to_ns(datetime(2024, 2, 6, tzinfo=UTC))
    series = Bars.concat([H4.slice(0, midnight), M4.slice(midnight, 2**62)])
    found = chosen("MES.v.0", write_csv(tmp_path / "rolled.csv", series, contract_column=True))
    assert (found.bars.content_hash(), found.provenance) == (series.content_hash(), {})


def test_other_products_and_spreads_in_a_file_are_left_aside(tmp_path: Path) -> None:
    text = "timestamp,open,high,low,close,volume,symbol\n" + "".join(
        ROW.replace("\n", f",{name}\n") for name in ("MESH4", "MESH4-MESM4", "ESH4", "MES 5000C")
    )
    path = wrote(tmp_path / "mixed.csv", text)
    assert chosen("MESH4", path).bars.contracts == ("MESH4",)
    assert chosen("MES.c.0", path).bars.contracts == ("MESH4",)
    with pytest.raises(InvalidRequest):
        chosen("MNQH4", path)


# --- DBN by how it was asked for -------------------------------------------------------------------------------------


def dbn(
    path: Path, stype_in: str, symbols: Sequence[str], mappings: dict[str, str], ids: Sequence[int], *, packed: bool
) -> Path:
    """Ten minutes of bars of each id, as a batch download holds them."""
    start = to_ns(OPEN)
    records = np.zeros(10 * len(ids), OHLCV_DTYPE)
    records["length"], records["rtype"], records["publisher_id"] = 14, 33, 1
    records["instrument_id"] = np.tile(ids, 10)
    records["ts_event"] = start + np.repeat(np.arange(10), len(ids)) * MINUTE_NS
    for name in ("open", "high", "low", "close"):
        records[name] = 5000 * 10**9
    records["volume"] = np.tile(np.arange(1, len(ids) + 1), 10)
    first, last = date(2024, 2, 5), date(2024, 2, 6)
    header = Header(
        "GLBX.MDP3",
        "ohlcv-1m",
        start,
        start + 10 * MINUTE_NS,
        stype_in,
        symbols,
        {name: [SymbolInterval(first, last, target)] for name, target in mappings.items()},
    )
    data = metadata_bytes(header, simulated=False) + records.tobytes()
    return wrote(path, zstd(data) if packed else data)


DEFINED = {101: [SymbolInterval(date(2023, 1, 1), date(2024, 3, 16), "MESH4")],
           102: [SymbolInterval(date(2023, 1, 1), date(2024, 6, 22), "MESM4")]}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("stype_in", "symbols", "mappings"),
    [
        ("raw_symbol", ["MESH4", "MESM4"], {"MESH4": "101", "MESM4": "102"}),
        ("parent", ["MES.FUT"], {"MESH4": "101", "MESM4": "102"}),
        ("instrument_id", ["101", "102"], {"101": "MESH4", "102": "MESM4"}),
    ],
)
def test_a_dbn_file_of_two_contracts_gives_each_by_its_name(
    tmp_path: Path, stype_in: str, symbols: list[str], mappings: dict[str, str], packed: bool
) -> None:
    path = dbn(tmp_path / "two.dbn.zst", stype_in, symbols, mappings, [101, 102], packed=packed)
    for symbol, volume in (("MESH4", 1), ("MESM4", 2)):
        bars = chosen(symbol, path).bars
        assert (len(bars), bars.contracts, set(bars.volume.tolist())) == (10, (symbol,), {volume})
    assert chosen("MES.c.0", path).bars.contracts == ("MESH4",)


@pytest.mark.parametrize(
    ("stype_in", "symbols"), [("instrument_id", ["101", "102"]), ("parent", ["MES.FUT"]), ("continuous", ["MES.c.0"])]
)
def test_bare_ids_are_named_by_imported_definitions(tmp_path: Path, stype_in: str, symbols: list[str]) -> None:
    path = dbn(tmp_path / "ids.dbn", stype_in, symbols, dict.fromkeys(symbols, "101"), [101, 102], packed=False)
    if stype_in == "continuous":
        with pytest.raises(InvalidRequest, match="one series"):
            read_file(path, Ask("MESH4"))
        assert read_file(path, Ask("MES.c.0", names=DEFINED)).bars.contracts == ("MESH4", "MESM4")
        return
    with pytest.raises(InvalidRequest) as caught:
        chosen("MESH4", path)
    assert "blaid contracts import" in caught.value.reason.suggested_fix
    with pytest.raises(StopAndFix) as unnamed:
        chosen("MES.c.0", path)
    assert unnamed.value.reason.code is ReasonCode.FIELD_MISSING
    assert read_file(path, Ask("MESH4", names=DEFINED)).bars.contracts == ("MESH4", "MESM4")


def test_another_continuous_symbol_than_the_files_own_is_refused(tmp_path: Path) -> None:
    path = dbn(tmp_path / "c.dbn", "continuous", ["MES.c.0"], {"MES.c.0": "101"}, [101], packed=False)
    with pytest.raises(InvalidRequest, match=r"about MES\.c\.0"):
        chosen("MES.v.0", path)
    with pytest.raises(StopAndFix) as unnamed:
        chosen("MES.c.0", path)
    assert "blaid contracts import" in unnamed.value.reason.suggested_fix
    assert choose([read_file(path, Ask("MES.c.0", names=DEFINED))], "MES.c.0", MES, "ohlcv-1m", "bars", Known()).bars


def test_an_id_column_of_a_csv_is_named_too(tmp_path: Path) -> None:
    text = "ts_event,open,high,low,close,volume,symbol,instrument_id\n" + "".join(
        f"2024-02-05T14:3{minute}:00Z,1,1,1,1,1,MES.c.0,{number}\n" for minute, number in enumerate((101, 102))
    )
    path = wrote(tmp_path / "ids.csv", text)
    assert read_file(path, Ask("MES.c.0", stamp="open")).bars.contracts == ("#101", "#102")
    assert read_file(path, Ask("MES.c.0", stamp="open", names=DEFINED)).bars.contracts == ("MESH4", "MESM4")
    assert refused(path, Ask("MES.v.0", stamp="open"))[1] is ReasonCode.INVALID_REQUEST


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "tz", "code"),
    [
        ("2024-02-05 14:30:00", "UTC", None),
        ("2024-02-05T14:30:00Z", None, None),
        ("2024-02-05T08:30:00-06:00", None, None),
        ("2024-02-05T08:30:00-06:00", "Asia/Tokyo", None),
        ("2024-02-05 08:30:00", "America/Chicago", None),
        ("2024-02-05 08:30", "America/Chicago", None),
        ("20240205 14:30", "UTC", None),
        ("2024-02-05 14:30:00.000000000", "UTC", None),
        ("2024-02-05 14:30:00", None, ReasonCode.INVALID_REQUEST),
        ("2024-02-05 14:30:00", "Mars/Olympus", ReasonCode.INVALID_REQUEST),
        ("2024-02-05 14:30:00", "../etc/passwd", ReasonCode.INVALID_REQUEST),
        ("2024-11-03 01:30:00", "America/Chicago", ReasonCode.TIME_INVALID),  # twice
        ("2024-03-10 02:30:00", "America/Chicago", ReasonCode.TIME_INVALID),  # never
        ("9999-01-01 00:00:00", "UTC", ReasonCode.TIME_INVALID),
        ("9999-01-01T00:00:00Z", None, ReasonCode.TIME_INVALID),
        ("0001-01-01 00:00:00", "UTC", ReasonCode.TIME_INVALID),
        ("0001-01-01 00:00:00", "America/Chicago", ReasonCode.TIME_INVALID),
        ("2263-01-01 00:00:00", "UTC", ReasonCode.TIME_INVALID),
        ("1969-12-31 23:59:00", "UTC", ReasonCode.TIME_INVALID),
        ("2100-01-01 00:00:00", "UTC", ReasonCode.TIME_INVALID),
        ("05/02/2024 14:30", "UTC", ReasonCode.FILE_UNREADABLE),  # which of the two is the month?
        ("14:30:00", "UTC", ReasonCode.FILE_UNREADABLE),
        ("2024-02-30 14:30:00", "UTC", ReasonCode.FILE_UNREADABLE),
        ("1707143400.5", "UTC", ReasonCode.FILE_UNREADABLE),
    ],
)
def test_a_written_time_is_one_moment_or_a_typed_reason(
    tmp_path: Path, written: str, tz: str | None, code: ReasonCode | None
) -> None:
    path = wrote(tmp_path / "times.csv", HEADER + ROW.replace("2024-02-05 14:30:00", written))
    ask = Ask("MESH4", stamp="open", tz=tz)
    if code is None:
        assert read_file(path, ask).bars.ts_open.tolist() == [to_ns(OPEN)]
    else:
        found = refused(path, ask)[1] if "Mars" not in str(tz) and "passwd" not in str(tz) else bad_zone(path, ask)
        assert found is code


def bad_zone(path: Path, ask: Ask) -> ReasonCode:
    with pytest.raises(InvalidRequest) as caught:
        read_file(path, ask)
    return caught.value.reason.code


@pytest.mark.parametrize(
    ("unit", "count", "code"),
    [
        ("s", 1707143400, None),
        ("ms", 1707143400_000, None),
        ("us", 1707143400_000_000, None),
        ("ns", 1707143400_000_000_000, None),
        (None, 1707143400_000_000_000, None),  # nothing but nanoseconds
        (None, 1707143400, ReasonCode.INVALID_REQUEST),
        (None, 1707143400_000, ReasonCode.INVALID_REQUEST),
        ("s", 1707143400_000, ReasonCode.TIME_INVALID),
        ("ms", 1707143400_000_000_000, ReasonCode.TIME_INVALID),
        ("ns", -1, ReasonCode.TIME_INVALID),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_whole_numbers_count_what_is_stated(
    tmp_path: Path, kind: str, unit: str | None, count: int, code: ReasonCode | None
) -> None:
    path = tmp_path / f"numbers.{kind}"
    if kind == "csv":
        wrote(path, HEADER + ROW.replace("2024-02-05 14:30:00", str(count)))
    else:
        prices = {name: pa.array([5000.0]) for name in ("open", "high", "low", "close")}
        pq.write_table(pa.table({"timestamp": [count], **prices, "volume": [7]}), path)
    ask = Ask("MESH4", stamp="open", time_unit=unit)
    if code is None:
        assert read_file(path, ask).bars.ts_open.tolist() == [to_ns(OPEN)]
    else:
        assert refused(path, ask)[1] is code


def test_a_time_unit_for_written_times_is_a_contradiction(tmp_path: Path) -> None:
    path = wrote(tmp_path / "written.csv", HEADER + ROW)
    assert refused(path, Ask("MESH4", stamp="open", tz="UTC", time_unit="s"))[0] is InvalidRequest


@pytest.mark.parametrize(
    "stamps",
    [
        pa.array([to_ns(OPEN)], pa.timestamp("ns", "UTC")),
        pa.array([to_ns(OPEN) // 10**6], pa.timestamp("ms", "America/Chicago")),
        pa.array([to_ns(OPEN) // 10**3], pa.timestamp("us")),
        pa.array(["2024-02-05 14:30:00"]).dictionary_encode(),
        pa.array(["2024-02-05 14:30:00"], pa.large_string()),
    ],
    ids=lambda each: str(each.type),
)
def test_times_of_parquet_in_all_their_types(tmp_path: Path, stamps: pa.Array) -> None:
    path = tmp_path / "typed.parquet"
    prices = {name: pa.array([5000.0]) for name in ("open", "high", "low", "close")}
    pq.write_table(pa.table({"time": stamps, **prices, "volume": [7]}), path)
    assert read_file(path, Ask("MESH4", stamp="open", tz="UTC")).bars.ts_open.tolist() == [to_ns(OPEN)]


def test_stamps_at_the_close_come_out_at_the_open(tmp_path: Path) -> None:
    bars = clean_bars()
    opened = write_csv(tmp_path / "open.csv", bars)
    closed = write_csv(tmp_path / "close.csv", bars, stamp_shift_ns=MINUTE_NS)
    assert chosen("MESH4", opened).bars.content_hash() == chosen("MESH4", closed, stamp="close").bars.content_hash()


def test_a_date_and_a_time_column_are_one_time_and_extra_columns_do_not_matter(tmp_path: Path) -> None:
    text = "Date,Time,Open,High,Low,Close,Volume,Bid,Note\n2024-02-05,14:30:00,5000,5001,4999.75,5000.25,7,1,hello\n"
    bars = read_file(wrote(tmp_path / "two.csv", text), Ask("MESH4", stamp="open", tz="UTC")).bars
    assert (bars.ts_open.tolist(), bars.volume.tolist()) == ([to_ns(OPEN)], [7])


@pytest.mark.real_data
def test_the_real_euro_bars_are_stamped_at_their_close(real_data: Path) -> None:
    path = real_data / "eurofx_6E" / "6EH4.XCME_1min_bars_20240101_20240131.csv.gz"
    found = read_file(path, Ask("6EH4", stamp="close", tz="UTC")).bars
    frame = pd.read_csv(path, parse_dates=["timestamp_utc"])
    np.testing.assert_array_equal(found.ts_open, frame.timestamp_utc.astype("int64") * 1000 - MINUTE_NS)
    np.testing.assert_array_equal(found.close, np.rint(frame.close * 1e9).astype(np.int64))


# --- what is refused by name -----------------------------------------------------------------------------------------


def zipped(entries: dict[str, bytes], **options: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **{"compression": zipfile.ZIP_DEFLATED, **options}) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def parquet(column: str) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({column: [1.0]}), sink)
    return bytes(sink.getvalue().to_pybytes())


def encrypted(data: bytes) -> bytes:
    """The same zip with the encryption flag of its one entry set, in both of its headers."""
    changed = bytearray(data)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(mark) + offset
        struct.pack_into("<H", changed, at, struct.unpack_from("<H", data, at)[0] | 1)
    return bytes(changed)


LEAN_DAY = {"20131007_es_minute_trade_201312.csv": b"0,1676.25,1676.5,1676.25,1676.5,62\n"}
NULLS = bytes(2**20)

BAD_FILES: list[tuple[str, bytes, ReasonCode]] = [
    ("empty.csv", b"", ReasonCode.FILE_UNREADABLE),
    ("empty.parquet", b"", ReasonCode.FILE_UNREADABLE),
    ("empty.dbn", b"", ReasonCode.FILE_UNREADABLE),
    ("empty.zip", b"", ReasonCode.FILE_UNREADABLE),
    ("blank.csv", b"\n\n\n", ReasonCode.FILE_UNREADABLE),
    ("header.csv", HEADER.encode(), ReasonCode.FILE_UNREADABLE),
    ("twice.csv", b"time,open,open,high,low,close,volume\n", ReasonCode.FILE_UNREADABLE),
    ("semicolons.csv", HEADER.replace(",", ";").encode() + b"x\n", ReasonCode.FIELD_MISSING),
    ("latin.csv", HEADER.encode() + ROW.encode().replace(b"7", b"\xe4"), ReasonCode.FILE_UNREADABLE),
    ("nulls.csv", NULLS, ReasonCode.FILE_UNREADABLE),
    ("cut.csv.gz", gzip.compress(ROW.encode() * 1000)[:-20], ReasonCode.FILE_UNREADABLE),
    ("damaged.csv.gz", gzip.compress(ROW.encode() * 1000)[:60] + b"\xff" * 40, ReasonCode.FILE_UNREADABLE),
    ("cut.csv.zst", zstandard.compress(ROW.encode() * 1000)[:-5], ReasonCode.FILE_UNREADABLE),
    ("other.parquet", b"PAR1 but no more", ReasonCode.FILE_UNREADABLE),
    ("names.parquet", parquet("close").replace(b"close", b"cl\xffse"), ReasonCode.FILE_UNREADABLE),
    ("bars.dbz", b"\x50\x2a\x4d\x18 the old format", ReasonCode.FORMAT_UNSUPPORTED),
    ("bars.dbn", b"plain text, no header", ReasonCode.FILE_UNREADABLE),
    ("bars.json", b"{}", ReasonCode.FORMAT_UNSUPPORTED),
    ("bars.xlsx", b"PK", ReasonCode.FORMAT_UNSUPPORTED),
    ("bars", b"x", ReasonCode.FORMAT_UNSUPPORTED),
    ("no.zip", b"no zip", ReasonCode.FILE_UNREADABLE),
    ("cut.zip", zipped(LEAN_DAY)[:-30], ReasonCode.FILE_UNREADABLE),
    ("headless.zip", zipped(LEAN_DAY)[7:], ReasonCode.FILE_UNREADABLE),
    ("none.zip", zipped({}), ReasonCode.FILE_UNREADABLE),
    ("foreign.zip", zipped({"readme.txt": b"x"}), ReasonCode.FORMAT_UNSUPPORTED),
    ("outside.zip", zipped({"../20131007_es_minute_trade_201312.csv": b"x"}), ReasonCode.FORMAT_UNSUPPORTED),
    ("quotes.zip", zipped({"20131007_es_minute_quote_201312.csv": b"x"}), ReasonCode.FORMAT_UNSUPPORTED),
    ("oi.zip", zipped({"20131007_es_minute_openinterest_201312.csv": b"x"}), ReasonCode.FORMAT_UNSUPPORTED),
    ("ticks.zip", zipped({"20131007_es_tick_trade_201312.csv": b"x"}), ReasonCode.FORMAT_UNSUPPORTED),
    ("month.zip", zipped({"20131007_es_minute_trade_201313.csv": b"x"}), ReasonCode.FILE_UNREADABLE),
    ("day.zip", zipped({"20131099_es_minute_trade_201312.csv": b"x"}), ReasonCode.FILE_UNREADABLE),
    ("20131008_trade.zip", zipped(LEAN_DAY), ReasonCode.FILE_UNREADABLE),  # another day than its entry's
    ("late.zip", zipped({next(iter(LEAN_DAY)): b"86400000,1,1,1,1,1\n"}), ReasonCode.FILE_UNREADABLE),
    ("words.zip", zipped({next(iter(LEAN_DAY)): b"0,one,1,1,1,1\n"}), ReasonCode.FILE_UNREADABLE),
    ("ragged.zip", zipped({next(iter(LEAN_DAY)): b"0,1,1,1\n"}), ReasonCode.FILE_UNREADABLE),
    ("locked.zip", encrypted(zipped(LEAN_DAY)), ReasonCode.FILE_UNREADABLE),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "code"), BAD_FILES, ids=[name for name, _, _ in BAD_FILES])
def test_a_file_that_is_no_market_data_is_refused_by_name(
    tmp_path: Path, name: str, data: bytes, code: ReasonCode
) -> None:
    kind, found = refused(
        wrote(tmp_path / name, data), Ask("ESZ3") if name.endswith((".zip", ".dbn", ".dbz")) else None
    )
    assert (kind, found) == (StopAndFix, code)


@pytest.mark.parametrize("ending", ["csv.gz", "csv.zst", "zip", "dbn.zst"])
def test_a_bomb_stops_at_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    for module in ("blaid_pipelines.market.intake.reading", "blaid_pipelines.providers.databento.dbn"):
        monkeypatch.setattr(f"{module}.ALWAYS_UNPACKED", 2**18)
    data = {
        "csv.gz": gzip.compress(NULLS),
        "csv.zst": zstandard.compress(NULLS),
        "dbn.zst": zstandard.compress(NULLS),
        "zip": zipped({next(iter(LEAN_DAY)): NULLS}),
    }[ending]
    path = wrote(tmp_path / f"bomb.{ending}", data)
    with pytest.raises(StopAndFix, match="unpacks to more than"):
        read_file(path, Ask("ESZ3") if ending in {"zip", "dbn.zst"} else Ask("ESZ3", stamp="open", tz="UTC"))


def test_a_folder_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name in ("folder.csv", "none.csv"):
        assert refused(tmp_path / name)[1] is ReasonCode.FILE_UNREADABLE


def test_parquet_of_another_shape(tmp_path: Path) -> None:
    columns = {name: pa.array([1.0]) for name in ("open", "high", "low", "close", "volume")}
    shapes = {
        "settlements": (pa.table({"date": ["2024-02-05"], "CL01": [70.1]}), ReasonCode.FIELD_MISSING),
        "nested": (pa.table({"ts_open": [to_ns(OPEN)], **columns, "open": [[1.0]]}), ReasonCode.FILE_UNREADABLE),
        "truth": (pa.table({"ts_open": [True], **columns}), ReasonCode.FILE_UNREADABLE),
        "floats": (pa.table({"ts_open": [1.7e18], **columns}), ReasonCode.FILE_UNREADABLE),
    }
    for name, (table, code) in shapes.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table, path)
        assert refused(path)[1] is code, name


def test_a_file_of_bars_needs_its_stamp_and_trades_have_none(tmp_path: Path) -> None:
    bars = wrote(tmp_path / "bars.csv", HEADER + ROW)
    assert refused(bars, Ask("MESH4", tz="UTC")) == (InvalidRequest, ReasonCode.INVALID_REQUEST)
    assert refused(bars, Ask("MESH4", stamp="middle", tz="UTC"))[0] is InvalidRequest
    ticks = wrote(tmp_path / "ticks.csv", "time,price,size\n2024-02-05 14:30:00,5000,1\n")
    assert refused(ticks, Ask("MESH4", content="trades", stamp="open", tz="UTC"))[0] is InvalidRequest
    with pytest.raises(StopAndFix) as caught:
        read_file(ticks, Ask("MESH4", stamp="open", tz="UTC"))
    assert "--content trades" in caught.value.reason.suggested_fix


# --- LEAN ------------------------------------------------------------------------------------------------------------


def lean(real_data: Path, pattern: str) -> list[Path]:
    paths = sorted((real_data / "lean_es").glob(pattern))
    assert paths
    return paths


@pytest.mark.real_data
def test_lean_minutes_are_those_of_the_csv_in_the_zip(real_data: Path) -> None:
    (path,) = lean(real_data, "minute/20131218_trade.zip")
    found = read_file(path, Ask("ESZ3")).bars
    assert found.contracts == ("ESH4", "ESM4", "ESU4", "ESZ3", "ESZ4")
    names = ["ms", "open", "high", "low", "close", "volume"]
    with zipfile.ZipFile(path) as archive, archive.open("20131218_es_minute_trade_201312.csv") as file:
        frame = pd.read_csv(file, names=names)
    bars = chosen("ESZ3", path, spec=ES).bars
    midnight = to_ns(datetime(2013, 12, 18, tzinfo=UTC))
    np.testing.assert_array_equal(bars.ts_open, midnight + frame.ms.to_numpy() * 10**6)
    for name in names[1:5]:
        np.testing.assert_array_equal(getattr(bars, name), np.rint(frame[name] * 1e9).astype(np.int64))
    np.testing.assert_array_equal(bars.volume, frame.volume)


@pytest.mark.real_data
def test_lean_hours_are_made_of_lean_minutes(real_data: Path) -> None:
    """The same source twice: what the minutes of an hour add up to is the hour, so both are read in one convention."""
    (hourly,) = lean(real_data, "hour/*.zip")
    hours = chosen("ESZ3", hourly, spec=ES, schema="ohlcv-1h").bars
    minutes = chosen("ESZ3", *lean(real_data, "minute/2013100*.zip"), spec=ES).bars
    hour_ns = 60 * MINUTE_NS
    same = 0
    for row in range(len(hours)):
        part = minutes.slice(int(hours.ts_open[row]), int(hours.ts_open[row]) + hour_ns)
        if len(part):
            assert (hours.high[row], hours.low[row]) == (part.high.max(), part.low.min())
            same += hours.volume[row] == part.volume.sum()
    assert same > 60


@pytest.mark.real_data
def test_lean_days_keep_their_partial_sundays(real_data: Path) -> None:
    (path,) = lean(real_data, "daily/*.zip")
    bars = chosen("ESZ3", path, spec=ES, schema="ohlcv-1d").bars
    weekdays = (bars.ts_open // DAY_NS + 3) % 7
    assert (len(bars), int((weekdays == 6).sum())) == (61, 6)
    with pytest.raises(InvalidRequest, match="ohlcv-1d"):
        read_file(path, Ask("ESZ3", "ohlcv-1h"))
    with pytest.raises(InvalidRequest, match="hour or daily"):
        read_file(path, Ask("ESZ3"))


@pytest.mark.real_data
def test_lean_zips_are_stitched_by_volume_and_by_expiry(real_data: Path) -> None:
    paths = lean(real_data, "minute/201312*.zip")
    by_volume, by_expiry = (chosen(f"ES.{rule}.0", *paths, spec=ES) for rule in "vc")
    (volume_roll,) = by_volume.provenance["rolls"]
    (expiry_roll,) = by_expiry.provenance["rolls"]
    assert (volume_roll["from"], volume_roll["to"]) == (expiry_roll["from"], expiry_roll["to"]) == ("ESZ3", "ESH4")
    assert volume_roll["ts_ns"] < expiry_roll["ts_ns"]
    assert volume_roll["step_nanos"] < 0
