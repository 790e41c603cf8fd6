"""Tables with named columns, from CSV and Parquet files, as bars or trades: which column is what, and what it holds.

A file says neither where its stamps sit in a bar nor, often, in which time zone they are: the caller says both, and
nothing is guessed. Prices of text files are read as decimals, never through floats where the text allows. What a file
leaves out stays visible as a sentinel, for the gate.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blaid_pipelines.market.bars import MISSING_VOLUME, PRICES, Bars, bar_nanos, nanos_of
from blaid_pipelines.market.instruments import is_continuous, is_contract
from blaid_pipelines.market.intake.reading import (
    BARS,
    SECONDS,
    STAMPS,
    TRADES,
    Ask,
    FileBars,
    does_not_fit,
    unpacked,
    unreadable,
)
from blaid_pipelines.market.intake.times import times_of
from blaid_pipelines.market.intake.trades import trade_rows
from blaid_pipelines.market.lake.files import file_provenance
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, StopAndFix

TIME_COLUMNS = ("ts_open", "ts_event", "timestamp_utc", "timestamp", "datetime", "date_time", "time", "ts", "date")
CONTRACT_COLUMNS = ("contract", "raw_symbol", "symbol", "instrument_id")
_PRICE_COLUMNS = ("price", "last")
_SIZE_COLUMNS = ("volume", "size", "qty", "quantity")
MOST_ROWS = 200_000_000
"""Some 100 years of minutes of several contracts: a Parquet file can say more rows in a few bytes."""


def read_parquet(path: Path, data: bytes, digest: str, ask: Ask) -> FileBars:
    """A Parquet file; what our own lake wrote says where it came from, and that stays true of a copy."""
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        if file.metadata.num_rows > MOST_ROWS:
            raise unreadable(path.name, f"says that it has {file.metadata.num_rows:,} rows", most_rows=MOST_ROWS)
        table = file.read()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        raise unreadable(path.name, f"is no readable Parquet file: {error}") from error
    simulated = bool(file_provenance(table.schema.metadata).get("simulated", False))
    return _file_bars(path.name, table, digest, ask, simulated=simulated)


def read_csv(path: Path, data: bytes, digest: str, ask: Ask) -> FileBars:
    """A CSV file with a header, plain or packed."""
    return _file_bars(path.name, csv_table(path.name, data), digest, ask, simulated=False)


def csv_table(name: str, data: bytes) -> pa.Table:
    """Every column of a CSV file as text: what is a number is decided where the column's meaning is known."""
    from pyarrow import csv

    text = pa.py_buffer(unpacked(name, data))
    try:
        with csv.open_csv(pa.BufferReader(text)) as header:
            names = header.schema.names
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        )
        return csv.read_csv(pa.BufferReader(text), convert_options=convert)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise unreadable(name, f"is no readable CSV file: {error}") from error


def named_columns(name: str, table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns by lower-case name. Two of one name are refused: either could be meant."""
    columns: dict[str, pa.ChunkedArray] = {}
    for position, title in enumerate(table.schema.names):
        key = title.strip().lower()
        if key in columns:
            raise unreadable(name, f"has two columns {key}", column=key)
        columns[key] = table.column(position)
    return columns


def _file_bars(name: str, table: pa.Table, digest: str, ask: Ask, *, simulated: bool) -> FileBars:
    columns = named_columns(name, table)
    if {"date", "time"} <= columns.keys() and all(pa.types.is_string(columns[each].type) for each in ("date", "time")):
        columns["date_time"] = pc.binary_join_element_wise(columns.pop("date"), columns.pop("time"), " ")
    prices = PRICES if ask.content != TRADES else (_first(_PRICE_COLUMNS, columns) or _PRICE_COLUMNS[0],)
    sizes = ("volume",) if ask.content != TRADES else _SIZE_COLUMNS
    time_name, size_name = _first(TIME_COLUMNS, columns), _first(sizes, columns)
    absent = [each for each in prices if each not in columns]
    absent += [wanted for found, wanted in ((size_name, sizes[0]), (time_name, "ts_open")) if found is None]
    if absent or time_name is None or size_name is None:
        raise _absent(name, absent, columns, ask)
    stamp = _stamp(name, ask)
    if not len(table):
        raise unreadable(name, f"holds no {'trades' if ask.content == TRADES else 'bars'}")
    ts = times_of(name, columns[time_name], ask.tz, ask.time_unit)
    if stamp == "close":
        ts = ts - bar_nanos(ask.schema)
    values = [_prices(name, each, columns[each]) for each in prices]
    volume = _volumes(name, columns[size_name])
    codes, contracts = _contracts(name, columns, ask, ts)
    if ask.content == TRADES:
        rows = trade_rows(ts, values[0], volume, codes, contracts)
    else:
        opens, highs, lows, closes = values
        rows = Bars(ts, opens, highs, lows, closes, volume, codes, contracts)
    return FileBars(name, digest, rows, simulated, None)


def _first(names: tuple[str, ...], columns: dict[str, pa.ChunkedArray]) -> str | None:
    return next((name for name in names if name in columns), None)


def _absent(name: str, absent: list[str], columns: dict[str, pa.ChunkedArray], ask: Ask) -> StopAndFix:
    wanted = "price, volume (or size)" if ask.content == TRADES else "open, high, low, close, volume"
    fix = f"Name the columns {wanted} and a time ({', '.join(TIME_COLUMNS)})."
    if ask.content != TRADES and _first(_PRICE_COLUMNS, columns) and _first(_SIZE_COLUMNS, columns):
        fix = "If these are trades, say so: --content trades."
    return StopAndFix(
        Reason(
            ReasonCode.FIELD_MISSING,
            f"{name} has no column {', '.join(absent)}",
            fix,
            {"file": name, "absent": absent, "present": sorted(columns)[:50]},
        )
    )


def _stamp(name: str, ask: Ask) -> str:
    """Where in its bar a time sits; a trade has one moment and nothing to choose."""
    if ask.content == BARS:
        if ask.stamp in STAMPS:
            return ask.stamp
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"{name} does not say whether the time of a bar is its open or its close",
                "Say it: --stamp open or --stamp close. Only DBN and LEAN files say it themselves.",
                {"file": name, "stamp": ask.stamp},
            )
        )
    if ask.content == SECONDS and ask.stamp != "open":
        raise does_not_fit(name, "one-second bars are read with --stamp open", {"stamp": ask.stamp})
    if ask.content == TRADES and ask.stamp is not None:
        fix = "Leave --stamp out: a trade has one moment."
        raise does_not_fit(name, "trades have neither open nor close", {"stamp": ask.stamp}, fix)
    return "open"


def _prices(name: str, column_name: str, column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            try:
                column = column.cast(pa.decimal128(38, 9))
            except pa.ArrowInvalid:
                # Exponents, NaN, inf, or more than nine decimals: as a float, and the gate sees what it is.
                column = column.cast(pa.float64())
        return nanos_of(column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise unreadable(name, f"has a column {column_name} that is no price: {error}") from error


def _volumes(name: str, column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Whole contracts; what is no whole number is missing."""
    try:
        floats = column.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise unreadable(name, f"has a column volume that is no number: {error}") from error
    values = floats.fill_null(np.nan).to_numpy()
    whole = (
        np.isfinite(values) & (np.abs(values) < 2**53) & (values == np.rint(np.where(np.isfinite(values), values, 0)))
    )
    volume = np.where(whole, np.where(whole, values, 0), MISSING_VOLUME).astype(np.int64)
    # -1 is the sentinel of a missing volume; a file that says -1 is as wrong as one that says -2.
    volume[whole & (values == MISSING_VOLUME)] = MISSING_VOLUME - 1
    return volume


def _contracts(
    name: str, columns: dict[str, pa.ChunkedArray], ask: Ask, ts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """The contract of each row, as codes into names: by the file's own column, or else the symbol where it is one."""
    for title in CONTRACT_COLUMNS:
        if title not in columns:
            continue
        try:
            names = columns[title].cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise unreadable(name, f"has a column {title} that holds no names: {error}") from error
        if names.null_count or not len(names):
            raise does_not_fit(name, f"column {title} leaves some rows without a contract", {"symbol": ask.symbol})
        coded = names.combine_chunks().dictionary_encode()
        distinct = coded.dictionary.to_pylist()
        if all(is_continuous(value) for value in distinct):
            if distinct != [ask.symbol]:
                raise does_not_fit(name, f"it holds {', '.join(distinct[:5])}", {"symbol": ask.symbol})
            continue  # the series' own name: which contract a row is of must say another column
        codes = coded.indices.to_numpy().astype(np.int32)
        if title == "instrument_id":
            return _names_of_ids(distinct, codes, ts, ask)
        return codes, tuple(distinct)
    if not is_contract(ask.symbol):
        raise StopAndFix(
            Reason(
                ReasonCode.FIELD_MISSING,
                f"{name} does not say which contract each bar of {ask.symbol} is of",
                "Add a column contract (such as MESH4): without it rolls cannot be seen. Or ingest one contract.",
                {"file": name, "symbol": ask.symbol, "columns": list(CONTRACT_COLUMNS)},
            )
        )
    return np.zeros(len(ts), np.int32), (ask.symbol,)


def _names_of_ids(
    ids: list[str], codes: npt.NDArray[np.int32], ts: npt.NDArray[np.int64], ask: Ask
) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """Instrument ids by the contracts that imported definitions name; ``#`` and the id where none does."""
    from blaid_pipelines.providers.databento.dbn import name_contracts

    numbers = np.array([int(each) if each.isdigit() else -1 for each in ids], np.int64)
    return name_contracts(numbers[codes], ts, ask.names)
