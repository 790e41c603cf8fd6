"""Series from files that a person gives the gateway: DBN, Parquet or CSV (also gzipped) with one-minute bars.

Read apart from the product's own ingest on purpose: the same file by both ways must give the same bars, and that says
something only if the readers are two. Prices are read as decimals, never through a float where the file has text.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from blaid_pipelines.market.bars import nanos_of
from blaid_pipelines.providers.databento.dbn import DbnBars, read_dbn
from blaid_pipelines.providers.databento.symbols import check_spelling, stype_of
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, StopAndFix
from blaid_pipelines.sandbox.contracts import DATASET, PRODUCTS, Lead, instrument_id, leads
from blaid_pipelines.sandbox.series import MINUTE, PRICES, Series, lead_ids, utc_day

_TIME_NAMES = ("ts_open", "ts_event", "timestamp", "timestamp_utc", "datetime", "date_time", "time", "date")


@dataclass(frozen=True, slots=True)
class BarsFile:
    """A file and how to read it: ``stamp``, are its times bar opens or closes; ``tz``, the zone of naive ones."""

    path: Path
    symbol: str
    stamp: str = "open"
    tz: str = "UTC"


def load_series(source: BarsFile) -> Series:
    """The bars of a file as a series of one-minute bars, in the file's order.

    A continuous symbol of a known product gets the lead contracts of the calendar, any other symbol is its own
    contract. Raises :class:`StopAndFix` (``FILE_UNREADABLE``, ``FORMAT_UNSUPPORTED``) and :class:`InvalidRequest`.
    """
    if source.stamp not in {"open", "close"}:
        raise _invalid(f"A stamp is open or close, not {source.stamp!r}.", stamp=source.stamp)
    check_spelling(source.symbol)
    name = source.path.name.lower()
    dataset, ids = DATASET, None
    if ".dbn" in name or name.endswith((".dbz", ".frag")):
        bars = read_dbn(source.path)
        dataset, ids, columns = bars.dataset, bars.instrument_id, _dbn_columns(source, bars)
    elif name.endswith((".csv", ".csv.gz")):
        columns = _table_columns(source, _read(source, lambda: _csv(source.path)))
    elif name.endswith((".parquet", ".pq")):
        columns = _table_columns(source, _read(source, lambda: pa.parquet.read_table(source.path)))
    else:
        raise _broken(ReasonCode.FORMAT_UNSUPPORTED, source, "is neither DBN, Parquet nor CSV (by its name)")
    if source.stamp == "close":
        columns["ts_open"] = columns["ts_open"] - MINUTE
    if not len(columns["ts_open"]):
        raise _broken(ReasonCode.FILE_UNREADABLE, source, "holds no bars")
    contracts = _leads(source, columns["ts_open"], ids)
    return Series(
        dataset=dataset,
        symbol=source.symbol,
        schema="ohlcv-1m",
        instrument_id=lead_ids(columns["ts_open"], contracts),
        leads=contracts,
        **columns,
    )


def _leads(source: BarsFile, ts_open: Any, ids: Any) -> tuple[Lead, ...]:
    start, end = utc_day(int(ts_open.min())), utc_day(int(ts_open.max())) + timedelta(days=1)
    form = stype_of(source.symbol)
    root = source.symbol.split(".")[0]
    if form == "parent" or (form == "continuous" and root not in PRODUCTS):
        raise _invalid(f"The gateway cannot tell the contracts behind {source.symbol}.", symbol=source.symbol)
    if form == "continuous":
        return tuple(leads(root, start, end))
    known = None if ids is None else np.unique(ids)
    own = int(known[0]) if known is not None and len(known) == 1 else instrument_id(source.symbol)
    return (Lead(source.symbol, own, start, end),)


def _dbn_columns(source: BarsFile, bars: DbnBars) -> dict[str, Any]:
    if bars.schema != "ohlcv-1m":
        raise _broken(ReasonCode.FORMAT_UNSUPPORTED, source, f"holds {bars.schema}; the gateway serves from ohlcv-1m")
    return {name: getattr(bars, name) for name in ("ts_open", *PRICES, "volume")}


def _csv(path: Path) -> pa.Table:
    """Every column as text: types are decided by what a column is for, not guessed."""
    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(65_536).split(b"\n", 1)[0].decode("utf-8-sig")
    names = [column.strip().strip('"') for column in head.strip().split(",")]
    options = pa.csv.ConvertOptions(column_types={column: pa.string() for column in names}, strings_can_be_null=True)
    return pa.csv.read_csv(path, convert_options=options)


def _read(source: BarsFile, reader: Any) -> pa.Table:
    try:
        return reader()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _broken(ReasonCode.FILE_UNREADABLE, source, f"cannot be read: {error}") from None


def _table_columns(source: BarsFile, table: pa.Table) -> dict[str, Any]:
    by_name = {str(name).strip().lower(): position for position, name in enumerate(table.column_names)}
    time_name = next((name for name in _TIME_NAMES if name in by_name), None)
    missing = [name for name in (*PRICES, "volume") if name not in by_name]
    if time_name is None or missing:
        lacks = [*([] if time_name else ["a time column"]), *missing]
        raise _broken(ReasonCode.FILE_UNREADABLE, source, f"lacks {', '.join(lacks)}")
    try:
        columns: dict[str, Any] = {"ts_open": _times(table.column(by_name[time_name]), source.tz)}
        for name in PRICES:
            columns[name] = nanos_of(_decimal(table.column(by_name[name])))
        volume = table.column(by_name["volume"])
        whole = volume.cast(pa.float64()) if pa.types.is_string(volume.type) else volume
        columns["volume"] = whole.cast(pa.int64()).fill_null(0).to_numpy().astype(np.int64)
    except (pa.ArrowException, ValueError) as error:
        raise _broken(ReasonCode.FILE_UNREADABLE, source, f"holds a value that cannot be read: {error}") from None
    return columns


def _decimal(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_string(column.type):
        return column
    blank = pc.is_in(pc.utf8_lower(column), pa.array(["", "nan", "null", "none"]))
    return pc.if_else(blank, pa.scalar(None, pa.string()), column).cast(pa.decimal128(38, 9))


def _times(column: pa.ChunkedArray, tz: str) -> Any:
    """Nanoseconds UTC; naive times belong to ``tz``, and one that does not exist there, or twice, is an error."""
    if column.null_count:
        raise ValueError("a time is missing")
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64()).to_numpy()
    if pa.types.is_string(column.type):
        zoned = pc.all(pc.match_substring_regex(column, r"(Z|[+-]\d\d:?\d\d)$")).as_py()
        column = column.cast(pa.timestamp("ns", tz="UTC") if zoned else pa.timestamp("ns"))
    if not pa.types.is_timestamp(column.type):
        raise ValueError(f"the time column is of type {column.type}")
    column = column.cast(pa.timestamp("ns", tz=column.type.tz))
    if column.type.tz is None:
        column = pc.assume_timezone(column, timezone=tz)
    return column.cast(pa.int64()).to_numpy().astype(np.int64)


def _broken(code: ReasonCode, source: BarsFile, what: str) -> StopAndFix:
    return StopAndFix(
        Reason(
            code,
            f"{source.path.name} {what}.",
            "Give DBN, Parquet or CSV with a time, open, high, low, close and volume.",
            {"file": source.path.name, "symbol": source.symbol},
        )
    )


def _invalid(message: str, **numbers: Any) -> InvalidRequest:
    return InvalidRequest(Reason(ReasonCode.INVALID_REQUEST, message, "See `blaid sandbox --help`.", numbers))
