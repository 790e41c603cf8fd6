"""Reading DBN, Databento's binary format: bars, trades, definitions and statistics, versions 1 to 3, raw or zstd.

Bars and trades are read with numpy straight from the record bytes, so a price stays the integer that was sent (units of
1e-9) and never passes through a float. Calling the service is in ``client``; writing DBN, for the sandbox gateway
alone, is in ``sandbox.encode``. What is not whole DBN (the older ``.dbz``, a fragment without header, a cut file,
another schema) is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

MISSING_PRICE = int(np.iinfo(np.int64).min)
"""A price that the record leaves undefined, in every array of bars; DBN itself uses the largest int64."""
UNDEFINED_DBN_PRICE = int(np.iinfo(np.int64).max)
UNDEFINED_DBN_TIMESTAMP = 2**64 - 1
UNDEFINED_DBN_I32 = 2**31 - 1
UNDEFINED_DBN_U32 = 2**32 - 1

SIMULATED_MARKER = b"BLAID-SIMULATED"
"""Written by the sandbox gateway into the metadata's reserved bytes, which Databento leaves zero and readers skip."""

BAR_NANOS = {
    "ohlcv-1s": 1_000_000_000,
    "ohlcv-1m": 60_000_000_000,
    "ohlcv-1h": 3_600_000_000_000,
    "ohlcv-1d": 86_400_000_000_000,
}
"""Length of one bar in nanoseconds, by schema; the schemas that can be read as bars."""

_RTYPES = {"ohlcv-1s": 32, "ohlcv-1m": 33, "ohlcv-1h": 34, "ohlcv-1d": 35}
_ZSTD = b"\x28\xb5\x2f\xfd"
_DBZ = b"\x50\x2a\x4d\x18"
CLEARED_VOLUME, OPEN_INTEREST = 6, 9
"""Kinds of statistic that count contracts, as DBN numbers them."""
_STAT_DELETED = 2
_NOT_A_CONTRACT = re.compile(r"\.([cnv]\.\d+|FUT|OPT|SPOT)$", re.IGNORECASE)
ALWAYS_UNPACKED = 256 * 2**20
MOST_UNPACKED_RATIO = 200
"""Real bars and trades pack five- to thirtyfold. What unpacks to more than both of these is built to fill memory."""
_CHUNK = 8192
_PRELUDE = 8  # "DBN", version, length of the rest of the metadata as u32
_RESERVED = {1: slice(61, 108), 2: slice(55, 108), 3: slice(55, 108)}

OHLCV_DTYPE = np.dtype(
    [
        ("length", "u1"),
        ("rtype", "u1"),
        ("publisher_id", "<u2"),
        ("instrument_id", "<u4"),
        ("ts_event", "<u8"),
        ("open", "<i8"),
        ("high", "<i8"),
        ("low", "<i8"),
        ("close", "<i8"),
        ("volume", "<u8"),
    ]
)
"""One OHLCV record on the wire: 56 bytes, ``ts_event`` the bar's open in nanoseconds UTC."""

TRADE_DTYPE = np.dtype(
    [
        *OHLCV_DTYPE.descr[:5],
        ("price", "<i8"),
        ("size", "<u4"),
        ("action", "S1"),
        ("side", "S1"),
        ("flags", "u1"),
        ("depth", "u1"),
        ("ts_recv", "<u8"),
        ("ts_in_delta", "<i4"),
        ("sequence", "<u4"),
    ]
)
"""One trade on the wire: 48 bytes. A ``tbbo`` record is a trade and the 32 bytes of the best quotes before it."""

_TRADES: dict[str, tuple[np.dtype[Any], int]] = {
    "trades": (TRADE_DTYPE, 0),
    "tbbo": (np.dtype([*TRADE_DTYPE.descr, ("quotes", "V32")]), 1),
}


@dataclass(frozen=True, slots=True)
class SymbolInterval:
    """``symbol`` holds from ``start`` (inclusive) to ``end`` (exclusive), both UTC dates."""

    start: date
    end: date
    symbol: str


ContractMap = Mapping[int, Sequence[SymbolInterval]]
"""For each instrument id the raw symbols it stood for, by UTC date."""


@dataclass(frozen=True, eq=False)
class OpenDbn:
    """A DBN file unpacked, its records not yet looked at. ``schema`` is None for mixed records."""

    name: str
    raw: bytes
    metadata: Any
    body: bytes
    simulated: bool

    @property
    def schema(self) -> str | None:
        """What the file says that it holds."""
        return None if self.metadata.schema is None else str(self.metadata.schema)


@dataclass(frozen=True, eq=False)
class DbnBars:
    """Bars as Databento sends them, in file order.

    ``ts_open`` is the bar's open in nanoseconds UTC; prices are in units of 1e-9, ``MISSING_PRICE`` where undefined;
    ``volume`` in contracts. ``contract_code`` indexes ``contracts``, the raw symbols (``MESH4``). A contract that
    neither the file nor a map names is ``#`` and its instrument id: still one name per contract, so that a roll shows.
    ``start`` and ``end`` are the requested range, ``partial`` and ``not_found`` the symbols that resolved for part of
    it or not at all. ``simulated`` is true for bytes that a sandbox gateway wrote.
    """

    dataset: str
    schema: str
    symbols: tuple[str, ...]
    start: datetime | None
    end: datetime | None
    ts_open: I64
    open: I64
    high: I64
    low: I64
    close: I64
    volume: I64
    instrument_id: I64
    contract_code: I32
    contracts: tuple[str, ...]
    partial: tuple[str, ...] = ()
    not_found: tuple[str, ...] = ()
    simulated: bool = False
    stype_in: str = "raw_symbol"

    def __len__(self) -> int:
        return len(self.ts_open)

    @property
    def contract(self) -> npt.NDArray[np.object_]:
        """The raw symbol of each row."""
        names = np.array([*self.contracts, ""], dtype=object)
        return names[self.contract_code]


@dataclass(frozen=True, eq=False)
class DbnTrades:
    """Trades as Databento sends them, in file order, which is the order of ``ts_recv``.

    ``ts_recv`` is when Databento's gateway saw the trade, in nanoseconds UTC: Databento bins its own bars by it. Prices
    are in units of 1e-9, ``MISSING_PRICE`` where undefined; the rest is as in :class:`DbnBars`.
    """

    dataset: str
    schema: str
    symbols: tuple[str, ...]
    start: datetime | None
    end: datetime | None
    ts_recv: I64
    price: I64
    size: I64
    instrument_id: I64
    contract_code: I32
    contracts: tuple[str, ...]
    simulated: bool
    stype_in: str


@dataclass(frozen=True, slots=True)
class Statistic:
    """One statistic of one contract. ``ts_ref`` is the time that it is about; None where the record leaves it open."""

    ts_event: int
    ts_ref: int | None
    instrument_id: int
    contract: str
    kind: int
    quantity: int | None
    deleted: bool


@dataclass(frozen=True, slots=True)
class Definition:
    """One contract's definition; prices in units of 1e-9, None where the record leaves a field undefined."""

    ts_event: int
    instrument_id: int
    raw_symbol: str
    asset: str
    exchange: str
    instrument_class: str
    security_type: str
    currency: str
    min_price_increment: int | None
    unit_of_measure: str
    unit_of_measure_qty: int | None
    min_trade_vol: int | None
    max_trade_vol: int | None
    activation: int | None
    expiration: int | None


def open_dbn(data: bytes | Path | OpenDbn) -> OpenDbn:
    """Unpack a file, or the bytes of one, and read its metadata. Raises as :func:`read_dbn`."""
    if isinstance(data, OpenDbn):
        return data
    name, raw = _load(data)
    metadata, body, simulated = _split(name, raw)
    return OpenDbn(name, raw, metadata, body, simulated)


def read_dbn(data: bytes | Path | OpenDbn, contracts: ContractMap | None = None) -> DbnBars:
    """The bars of a DBN file or of its bytes.

    ``contracts`` names the contract behind each instrument id, as ``DatabentoHistorical.resolve`` gives it; without it
    the file's own mappings name contracts that were asked for by raw symbol. Raises :class:`StopAndFix` with
    ``FILE_UNREADABLE`` (missing, empty, cut, not DBN) or ``FORMAT_UNSUPPORTED`` (``.dbz``, fragment, unknown version,
    a schema that is not OHLCV bars).
    """
    file = open_dbn(data)
    name, metadata = file.name, file.metadata
    schema = _schema_among(name, metadata, _RTYPES, "bars")
    records = _records(name, file.body, OHLCV_DTYPE, _RTYPES[schema], bool(metadata.ts_out))
    ids = records["instrument_id"].astype(np.int64)
    ts_open = _stamps(name, records["ts_event"])
    contract_code, names = name_contracts(ids, ts_open, contracts or {}, _own_contracts(metadata))
    prices = {field: _prices(records[field]) for field in ("open", "high", "low", "close")}
    return DbnBars(
        dataset=metadata.dataset,
        schema=schema,
        symbols=tuple(metadata.symbols),
        start=_moment(metadata.start),
        end=_moment(metadata.end),
        ts_open=ts_open,
        volume=records["volume"].astype(np.int64),
        instrument_id=ids,
        contract_code=contract_code,
        contracts=names,
        partial=tuple(metadata.partial),
        not_found=tuple(metadata.not_found),
        simulated=file.simulated,
        stype_in=str(metadata.stype_in),
        **prices,
    )


def read_trades(data: bytes | Path | OpenDbn, contracts: ContractMap | None = None) -> DbnTrades:
    """The trades of a DBN file of schema ``trades`` or ``tbbo``, whose quotes are left aside.

    Raises as :func:`read_dbn`, with ``FORMAT_UNSUPPORTED`` also for a record that is no trade.
    """
    file = open_dbn(data)
    name, metadata = file.name, file.metadata
    schema = _schema_among(name, metadata, _TRADES, "trades")
    dtype, rtype = _TRADES[schema]
    records = _records(name, file.body, dtype, rtype, bool(metadata.ts_out))
    other = records["action"] != b"T"
    if other.any():
        row = int(np.argmax(other))
        raise _unsupported(
            name, "holds records that are no trades", {"row": row, "action": str(records["action"][row])}
        )
    ids = records["instrument_id"].astype(np.int64)
    ts_recv = _stamps(name, records["ts_recv"])
    contract_code, names = name_contracts(ids, ts_recv, contracts or {}, _own_contracts(metadata))
    return DbnTrades(
        dataset=metadata.dataset,
        schema=schema,
        symbols=tuple(metadata.symbols),
        start=_moment(metadata.start),
        end=_moment(metadata.end),
        ts_recv=ts_recv,
        price=_prices(records["price"]),
        size=records["size"].astype(np.int64),
        instrument_id=ids,
        contract_code=contract_code,
        contracts=names,
        simulated=file.simulated,
        stype_in=str(metadata.stype_in),
    )


def read_statistics(data: bytes | Path | OpenDbn, contracts: ContractMap | None = None) -> list[Statistic]:
    """The statistics of a DBN file of schema ``statistics``, in file order. Raises as :func:`read_dbn`."""
    from databento_dbn import StatMsg

    file = open_dbn(data)
    name, metadata = file.name, file.metadata
    _schema_among(name, metadata, {"statistics": None}, "statistics")
    records = [record for record in _decoded(name, file.raw) if isinstance(record, StatMsg)]
    ids = np.array([record.instrument_id for record in records], np.int64)
    stamps = np.array([record.ts_event for record in records], np.uint64)
    codes, names = name_contracts(ids, _stamps(name, stamps), contracts or {}, _own_contracts(metadata))
    return [
        Statistic(
            ts_event=int(record.ts_event),
            ts_ref=None if record.ts_ref == UNDEFINED_DBN_TIMESTAMP else int(record.ts_ref),
            instrument_id=int(record.instrument_id),
            contract=names[code],
            kind=int(record.stat_type),
            quantity=None if record.quantity in (UNDEFINED_DBN_I32, UNDEFINED_DBN_PRICE) else int(record.quantity),
            deleted=int(record.update_action) == _STAT_DELETED,
        )
        for record, code in zip(records, codes.tolist(), strict=True)
    ]


def read_definitions(data: bytes | Path | OpenDbn) -> list[Definition]:
    """The contract definitions of a DBN file of schema ``definition``, in file order. Raises as :func:`read_dbn`."""
    from databento_dbn import InstrumentDefMsg

    file = open_dbn(data)
    name, metadata = file.name, file.metadata
    _schema_among(name, metadata, {"definition": None}, "definitions")
    return [_definition(record) for record in _decoded(name, file.raw) if isinstance(record, InstrumentDefMsg)]


def _decoded(name: str, raw: bytes) -> list[Any]:
    """Every record, by the library, which brings records of older versions into their newest form."""
    from databento_dbn import DBNDecoder, DBNError

    try:
        decoder = DBNDecoder()
        decoder.write(raw)
        records = decoder.decode()
    except DBNError as error:
        raise _unreadable(name, f"cannot be decoded: {error}") from None
    if decoder.buffer():
        raise _unreadable(name, "ends in the middle of a record", {"left_over_bytes": len(decoder.buffer())})
    return list(records)


def _definition(record: Any) -> Definition:
    def price(value: int) -> int | None:
        return None if value == UNDEFINED_DBN_PRICE else int(value)

    def count(value: int) -> int | None:
        return None if value in (UNDEFINED_DBN_I32, UNDEFINED_DBN_U32) else int(value)

    def stamp(value: int) -> int | None:
        return None if value == UNDEFINED_DBN_TIMESTAMP else int(value)

    return Definition(
        ts_event=int(record.ts_event),
        instrument_id=int(record.instrument_id),
        raw_symbol=record.raw_symbol,
        asset=record.asset,
        exchange=record.exchange,
        instrument_class=str(record.instrument_class),
        security_type=record.security_type,
        currency=record.currency,
        min_price_increment=price(record.min_price_increment),
        unit_of_measure=record.unit_of_measure,
        unit_of_measure_qty=price(record.unit_of_measure_qty),
        min_trade_vol=count(record.min_trade_vol),
        max_trade_vol=count(record.max_trade_vol),
        activation=stamp(record.activation),
        expiration=stamp(record.expiration),
    )


def _load(data: bytes | Path) -> tuple[str, bytes]:
    """A name for messages and the uncompressed bytes."""
    if isinstance(data, Path):
        name = data.name
        try:
            data = data.read_bytes()
        except OSError as error:
            raise _unreadable(name, f"cannot be read: {error.strerror or error}") from None
    else:
        name = "the reply"
    if not data:
        raise _unreadable(name, "is empty", {"bytes": 0})
    if data[:4] == _DBZ:
        raise _unsupported(name, "is in the older .dbz format")
    return name, decompress(name, data) if data[:4] == _ZSTD else data


def decompress(name: str, data: bytes) -> bytes:
    """Every zstd frame of ``data``; a cut frame is an error (the library's stream reader would end silently)."""
    import zstandard

    pieces = []
    size, most = 0, max(ALWAYS_UNPACKED, MOST_UNPACKED_RATIO * len(data))
    at = 0
    while at < len(data):
        frame = zstandard.ZstdDecompressor().decompressobj()
        while not frame.eof:
            if at >= len(data):
                raise _unreadable(name, "is cut short inside its zstd frame", {"bytes": len(data)})
            packed = data[at : at + _CHUNK]
            try:
                pieces.append(frame.decompress(packed))
            except zstandard.ZstdError as error:
                raise _unreadable(name, f"is damaged: {error}") from None
            size += len(pieces[-1])
            if size > most:
                raise _unreadable(name, f"unpacks to more than {most:,} bytes, which no market data does")
            at += len(packed) - len(frame.unused_data)
    return b"".join(pieces)


def _split(name: str, raw: bytes) -> tuple[Any, bytes, bool]:
    """Metadata, record bytes, and whether the sandbox's marker is set."""
    from databento_dbn import DBNError, Metadata, VersionUpgradePolicy

    if raw[:3] != b"DBN":
        # a record starts with its length in words and a type: what a fragment without metadata looks like
        fragment = len(raw) >= 16 and raw[0] * 4 >= 16 and raw[0] * 4 <= len(raw)
        if fragment and ".frag" in name:
            raise _unsupported(name, "is a DBN fragment without metadata")
        raise _unreadable(name, "does not begin with a DBN header (a fragment, or not DBN at all)")
    if len(raw) < _PRELUDE:
        raise _unreadable(name, "is cut short inside its header", {"bytes": len(raw)})
    version = raw[3]
    if version not in _RESERVED:
        raise _unsupported(name, f"is DBN version {version}", {"version": version, "supported": [1, 2, 3]})
    end = _PRELUDE + int.from_bytes(raw[4:8], "little")
    if len(raw) < max(end, 108):
        raise _unreadable(name, "is cut short inside its metadata", {"bytes": len(raw), "metadata_bytes": end})
    try:
        metadata = Metadata.decode(raw[:end], upgrade_policy=VersionUpgradePolicy.AS_IS)
    except DBNError as error:
        raise _unreadable(name, f"has metadata that cannot be decoded: {error}") from None
    return metadata, raw[end:], raw[_RESERVED[version]].startswith(SIMULATED_MARKER)


def _schema_among(name: str, metadata: Any, known: Mapping[str, Any], what: str) -> str:
    schema = None if metadata.schema is None else str(metadata.schema)
    if schema is None or schema not in known:
        holds = "mixed records" if schema is None else f"schema {schema}"
        raise _unsupported(name, f"holds {holds}, not {what}", {"schema": schema})
    return schema


def _records(name: str, body: bytes, plain: np.dtype[Any], rtype: int, ts_out: bool) -> npt.NDArray[Any]:
    dtype = np.dtype([*plain.descr, ("ts_out", "<u8")]) if ts_out else plain
    if len(body) % dtype.itemsize:
        raise _unreadable(
            name, "ends in the middle of a record", {"record_bytes": dtype.itemsize, "body_bytes": len(body)}
        )
    records = np.frombuffer(body, dtype=dtype)
    strange = (records["rtype"] != rtype) | (records["length"] != dtype.itemsize // 4)
    if strange.any():
        first = int(np.argmax(strange))
        raise _unsupported(
            name,
            "holds records of another kind among those of its schema",
            {"row": first, "rtype": int(records["rtype"][first]), "expected_rtype": rtype},
        )
    return records


def _stamps(name: str, column: npt.NDArray[Any]) -> I64:
    """Times that a signed number holds: the undefined time, and any after the year 2262, are damage."""
    if len(column) and int(column.max()) > np.iinfo(np.int64).max:
        raise _unreadable(name, "has a record without a time", {"row": int(np.argmax(column))})
    return column.astype(np.int64)


def _prices(column: npt.NDArray[Any]) -> I64:
    prices = column.astype(np.int64)
    prices[prices == UNDEFINED_DBN_PRICE] = MISSING_PRICE
    return prices


def _own_contracts(metadata: Any) -> dict[int, list[SymbolInterval]]:
    """Contract names from the file's mappings, whichever way they go; continuous and parent symbols name none."""
    found: dict[int, list[SymbolInterval]] = {}
    for asked, intervals in metadata.mappings.items():
        for interval in intervals:
            name, number = asked, interval["symbol"]
            if asked.isdigit():  # asked by instrument id, answered with what it stood for
                name, number = number, asked
            if number.isdigit() and name and not name.isdigit() and not _NOT_A_CONTRACT.search(name):
                found.setdefault(int(number), []).append(
                    SymbolInterval(interval["start_date"], interval["end_date"], name)
                )
    return found


def name_contracts(ids: I64, ts: I64, *sources: ContractMap) -> tuple[I32, tuple[str, ...]]:
    """A code per row and the names that the codes stand for, names in order of first appearance.

    The first source that names an id on the row's UTC date counts; an id that none names is ``#`` and the id.
    """
    codes = np.full(len(ids), -1, dtype=np.int32)
    if not len(ids):
        return codes, ()
    days = ts // BAR_NANOS["ohlcv-1d"]
    unique, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    lowest, highest = int(days.min()), int(days.max())
    whole = np.full(len(unique), -1, dtype=np.int32)  # codes of ids that have one name on all days of the file
    named: dict[str, int] = {}
    for at in np.argsort(first).tolist():
        instrument = int(unique[at])
        intervals = [part for source in sources for part in source.get(instrument, ())]
        covering = bool(intervals) and _day(intervals[0].start) <= lowest and highest < _day(intervals[0].end)
        if covering or not intervals:
            whole[at] = named.setdefault(intervals[0].symbol if covering else f"#{instrument}", len(named))
            continue
        mine = np.flatnonzero(inverse == at)
        for part in intervals:
            inside = mine[(days[mine] >= _day(part.start)) & (days[mine] < _day(part.end)) & (codes[mine] < 0)]
            if len(inside):
                codes[inside] = named.setdefault(part.symbol, len(named))
        left = mine[codes[mine] < 0]
        if len(left):
            codes[left] = named.setdefault(f"#{instrument}", len(named))
    return np.where(codes < 0, whole[inverse], codes).astype(np.int32), tuple(named)


def _day(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def _moment(nanos: int | None) -> datetime | None:
    if nanos is None or nanos in (0, UNDEFINED_DBN_TIMESTAMP):
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanos // 1000)


def _unreadable(name: str, what: str, numbers: Mapping[str, Any] | None = None) -> StopAndFix:
    return StopAndFix(
        Reason(
            ReasonCode.FILE_UNREADABLE,
            f"{name} {what}.",
            "Fetch or copy the file again and check its size.",
            {"file": name, **(numbers or {})},
        )
    )


def _unsupported(name: str, what: str, numbers: Mapping[str, Any] | None = None) -> StopAndFix:
    return StopAndFix(
        Reason(
            ReasonCode.FORMAT_UNSUPPORTED,
            f"{name} {what}.",
            "Give a whole DBN file (versions 1 to 3, raw or zstd): bars (ohlcv-1m, 1h, 1d), or trades or ohlcv-1s with "
            "--content; definitions and statistics go to `blaid contracts import`. Databento's `dbn` tool reads .dbz.",
            {"file": name, **(numbers or {})},
        )
    )
