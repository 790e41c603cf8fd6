"""Reading bar files: DBN, Parquet and CSV into bars stamped at their open in UTC. Ingest decides what becomes of them.

A file says neither where its stamps sit in a bar nor, often, in which time zone they are: the caller says both, and
nothing is guessed. Prices of text files are read as decimals, never through floats where the text allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blaid_pipelines.ids import sha256_hex
from blaid_pipelines.market.bars import MISSING_VOLUME, PRICES, Bars, bar_nanos, bars_of_dbn, nanos_of
from blaid_pipelines.market.instruments import instrument_root, is_continuous, is_contract
from blaid_pipelines.market.lake.files import file_provenance
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, StopAndFix

if TYPE_CHECKING:
    from blaid_pipelines.providers.databento.dbn import DbnBars

_TIME = ("ts_open", "ts_event", "timestamp_utc", "timestamp", "datetime", "date_time", "time", "ts", "date")
_CONTRACT = ("contract", "raw_symbol", "symbol")


@dataclass(frozen=True)
class FileBars:
    """What one file gave. ``simulated`` is what it says about itself; ``dataset`` and ``end`` only DBN files know."""

    name: str
    sha256: str
    bars: Bars
    simulated: bool
    dataset: str | None
    end: datetime | None = None


def read_bar_file(path: Path, symbol: str, stamp: str, tz: str | None, schema: str) -> FileBars:
    """Read one file, by its name's ending: ``.dbn[.zst]``, ``.parquet``, ``.csv[.gz|.zst]``.

    Raises :class:`StopAndFix` (``FILE_UNREADABLE``, ``FORMAT_UNSUPPORTED``, ``FIELD_MISSING``) for the file's faults
    and :class:`InvalidRequest` for a stamp, zone, schema or symbol that contradicts it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror or error}") from error
    digest = sha256_hex(data)
    name = path.name.lower()
    if any(ending in name for ending in (".dbn", ".dbz")):
        dbn = _read_dbn(path, symbol, stamp, tz, schema)
        return FileBars(path.name, digest, bars_of_dbn(dbn), dbn.simulated, dbn.dataset, dbn.end)
    if name.endswith((".parquet", ".pq")):
        table, simulated = _parquet(path, data)
    elif name.endswith((".csv", ".csv.gz", ".csv.zst", ".txt")):
        table, simulated = _csv(path), False
    else:
        raise StopAndFix(
            Reason(
                ReasonCode.FORMAT_UNSUPPORTED,
                f"{path.name} is no format that Blaid reads",
                "Give DBN (.dbn, .dbn.zst), Parquet (.parquet) or CSV (.csv, .csv.gz).",
                {"file": path.name},
            )
        )
    return FileBars(path.name, digest, _bars(path, table, symbol, stamp, tz, schema), simulated, None)


def _read_dbn(path: Path, symbol: str, stamp: str, tz: str | None, schema: str) -> DbnBars:
    from blaid_pipelines.providers.databento.dbn import read_dbn

    dbn = read_dbn(path)
    problem = None
    if stamp != "open" or tz not in {None, "UTC"}:
        problem = "DBN stamps bars at their open in UTC: use --stamp open --tz UTC"
    elif dbn.schema != schema:
        problem = f"the file holds {dbn.schema}: use --schema {dbn.schema}"
    elif len(dbn.symbols) != 1 or dbn.symbols[0] != symbol:
        problem = f"the file is about {', '.join(dbn.symbols)}"
    if problem is not None:
        raise _invalid(path, problem, {"symbol": symbol, "schema": schema, "stamp": stamp, "tz": tz})
    return dbn


def _parquet(path: Path, data: bytes) -> tuple[pa.Table, bool]:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise _unreadable(path, f"is no readable Parquet file: {error}") from error
    # What our own lake wrote says where it came from, and that stays true of a copy.
    return table, bool(file_provenance(table.schema.metadata).get("simulated", False))


def _csv(path: Path) -> pa.Table:
    """Every column as text: what is a number is decided where the column's meaning is known."""
    from pyarrow import csv

    try:
        with pa.input_stream(str(path), compression="detect") as stream, csv.open_csv(stream) as header:
            names = header.schema.names
        with pa.input_stream(str(path), compression="detect") as stream:
            return csv.read_csv(
                stream,
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
                ),
            )
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, f"is no readable CSV file: {error}") from error


def _bars(path: Path, table: pa.Table, symbol: str, stamp: str, tz: str | None, schema: str) -> Bars:
    columns = {name.strip().lower(): table.column(position) for position, name in enumerate(table.schema.names)}
    time_name = next((name for name in _TIME if name in columns), None)
    absent = [name for name in (*PRICES, "volume") if name not in columns] + ([] if time_name else ["ts_open"])
    if absent or time_name is None:
        raise StopAndFix(
            Reason(
                ReasonCode.FIELD_MISSING,
                f"{path.name} has no column {', '.join(absent)}",
                f"Name the columns open, high, low, close, volume and a time ({', '.join(_TIME)}).",
                {"file": path.name, "absent": absent, "present": sorted(columns)},
            )
        )
    if not len(table):
        raise _unreadable(path, "holds no bars")
    shift = bar_nanos(schema) if stamp == "close" else 0
    ts_open = _times(path, columns[time_name], tz) - shift
    opens, highs, lows, closes = (_prices(path, name, columns[name]) for name in PRICES)
    volume = _volumes(path, columns["volume"])
    contract = _contracts(path, columns, symbol)
    return Bars.build(ts_open, opens, highs, lows, closes, volume, contract)


def _naive(path: Path) -> Reason:
    return Reason(
        ReasonCode.INVALID_REQUEST,
        f"{path.name} has times without a time zone",
        "Say which zone they are in: --tz UTC, --tz America/Chicago.",
        {"file": path.name},
    )


def _times(path: Path, column: pa.ChunkedArray, tz: str | None) -> npt.NDArray[np.int64]:
    """Stamps as nanoseconds UTC. A bar without a time cannot be placed, so one is enough to refuse the file.

    Times that name no zone need ``tz``: a clock without a zone is not guessed.
    """
    import pandas as pd

    try:
        zone = None if tz is None else ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"{tz!r} is no time zone",
                "Use an IANA name such as UTC or America/Chicago.",
                {"tz": tz},
            )
        ) from error
    try:
        series = column.to_pandas()
        if pa.types.is_integer(column.type):
            if column.null_count == 0 and int(series.min()) < 10**17:
                raise ValueError("whole numbers are read as nanoseconds since 1970, and these are too small for that")
            stamps = pd.to_datetime(series, unit="ns", utc=True)
        else:
            stamps = pd.to_datetime(series, format="ISO8601") if series.dtype.kind not in "M" else series
            if stamps.dtype.kind != "M" and not isinstance(stamps.dtype, pd.DatetimeTZDtype):
                raise ValueError("stamps with and without a time zone are mixed")
            if stamps.dt.tz is None:
                if zone is None:
                    raise InvalidRequest(_naive(path))
                stamps = stamps.dt.tz_localize(zone)
        stamps = stamps.dt.tz_convert("UTC")
    except (ValueError, TypeError, OverflowError, AttributeError) as error:  # pandas' own time errors are ValueErrors
        raise _unreadable(path, f"has times that cannot be read in {tz or 'their own zone'}: {error}") from error
    nothing = stamps.isna()
    if nothing.any():
        row = int(np.flatnonzero(nothing.to_numpy())[0])
        raise StopAndFix(
            Reason(
                ReasonCode.FIELD_MISSING,
                f"{path.name} has a bar without a time in row {row + 1}",
                "Remove the row or give it its time.",
                {"file": path.name, "row": row + 1, "rows": int(nothing.sum())},
            )
        )
    return np.asarray(stamps.dt.as_unit("ns").astype("int64"), np.int64)


def _prices(path: Path, name: str, column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            try:
                column = column.cast(pa.decimal128(38, 9))
            except pa.ArrowInvalid:
                # Exponents, NaN, inf, or more than nine decimals: as a float, and the gate sees what it is.
                column = column.cast(pa.float64())
        return nanos_of(column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _unreadable(path, f"has a column {name} that is no price: {error}") from error


def _volumes(path: Path, column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Whole contracts; what is no whole number is missing."""
    try:
        floats = column.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _unreadable(path, f"has a column volume that is no number: {error}") from error
    values = floats.fill_null(np.nan).to_numpy()
    whole = (
        np.isfinite(values) & (np.abs(values) < 2**53) & (values == np.rint(np.where(np.isfinite(values), values, 0)))
    )
    volume = np.where(whole, np.where(whole, values, 0), MISSING_VOLUME).astype(np.int64)
    # -1 is the sentinel of a missing volume; a file that says -1 is as wrong as one that says -2.
    volume[whole & (values == MISSING_VOLUME)] = MISSING_VOLUME - 1
    return volume


def _contracts(path: Path, columns: Mapping[str, pa.ChunkedArray], symbol: str) -> str | list[str]:
    """The contract of each bar: the file's column, or the symbol itself where that is a contract."""
    root = instrument_root(symbol)
    for name in _CONTRACT:
        if name not in columns:
            continue
        names = columns[name].cast(pa.string())
        distinct = sorted(value for value in names.unique().to_pylist() if value is not None)
        if names.null_count or not distinct:
            raise _invalid(path, f"column {name} leaves some bars without a contract", {"symbol": symbol})
        if distinct == [symbol] and not is_contract(symbol):
            continue
        foreign = [value for value in distinct if not is_contract(value) or instrument_root(value) != root]
        if foreign or (is_contract(symbol) and distinct != [symbol]):
            raise _invalid(path, f"it holds {', '.join((foreign or distinct)[:5])}", {"symbol": symbol})
        return [str(value) for value in names.to_pylist()]
    if is_continuous(symbol) or not is_contract(symbol):
        raise StopAndFix(
            Reason(
                ReasonCode.FIELD_MISSING,
                f"{path.name} does not say which contract each bar of {symbol} is of",
                "Add a column contract (such as MESH4): without it rolls cannot be seen. Or ingest one contract.",
                {"file": path.name, "symbol": symbol, "columns": list(_CONTRACT)},
            )
        )
    return symbol


def _invalid(path: Path, problem: str, numbers: Mapping[str, Any]) -> InvalidRequest:
    return InvalidRequest(
        Reason(
            ReasonCode.INVALID_REQUEST,
            f"{path.name} does not fit the request: {problem}",
            "Correct --symbol, --schema, --stamp or --tz, or give the file that was meant.",
            {"file": path.name, **numbers},
        )
    )


def _unreadable(path: Path, problem: str) -> StopAndFix:
    return StopAndFix(
        Reason(
            ReasonCode.FILE_UNREADABLE,
            f"{path.name} {problem}",
            "Check the file; export it again if it is damaged.",
            {"file": path.name},
        )
    )
