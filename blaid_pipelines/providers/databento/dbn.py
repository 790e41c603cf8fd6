"""Reading DBN, Databento's binary format: OHLCV bars and contract definitions, versions 1 to 3, raw or zstd.

Bars are read with numpy straight from the record bytes, so a price stays the integer that was sent (units of 1e-9) and
never passes through a float. Calling the service is in ``client``; writing DBN, for the sandbox gateway alone, is in
``sandbox.encode``. What is not whole DBN (the older ``.dbz``, a fragment without header, a cut file, another schema)
is refused by name.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class SymbolInterval:
    """``symbol`` holds from ``start`` (inclusive) to ``end`` (exclusive), both UTC dates."""

    start: date
    end: date
    symbol: str


ContractMap = Mapping[int, Sequence[SymbolInterval]]
"""For each instrument id the raw symbols it stood for, by UTC date."""


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

    def __len__(self) -> int:
        return len(self.ts_open)

    @property
    def contract(self) -> npt.NDArray[np.object_]:
        """The raw symbol of each row."""
        names = np.array([*self.contracts, ""], dtype=object)
        return names[self.contract_code]


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


def read_dbn(data: bytes | Path, contracts: ContractMap | None = None) -> DbnBars:
    """The bars of a DBN file or of its bytes.

    ``contracts`` names the contract behind each instrument id, as ``DatabentoHistorical.resolve`` gives it; without it
    the file's own mappings name contracts that were asked for by raw symbol. Raises :class:`StopAndFix` with
    ``FILE_UNREADABLE`` (missing, empty, cut, not DBN) or ``FORMAT_UNSUPPORTED`` (``.dbz``, fragment, unknown version,
    a schema that is not OHLCV bars).
    """
    name, raw = _load(data)
    metadata, body, simulated = _split(name, raw)
    schema = None if metadata.schema is None else str(metadata.schema)
    if schema not in _RTYPES:
        raise _unsupported(
            name, f"holds {'mixed records' if schema is None else 'schema ' + schema}, not bars", {"schema": schema}
        )
    records = _records(name, body, _RTYPES[schema], bool(metadata.ts_out))
    ids = records["instrument_id"].astype(np.int64)
    ts_open = records["ts_event"].astype(np.int64)
    contract_code, names = _name_contracts(ids, ts_open, contracts or _own_contracts(metadata))
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
        simulated=simulated,
        **prices,
    )


def read_definitions(data: bytes | Path) -> list[Definition]:
    """The contract definitions of a DBN file of schema ``definition``, in file order. Raises as :func:`read_dbn`."""
    from databento_dbn import DBNDecoder, DBNError, InstrumentDefMsg

    name, raw = _load(data)
    metadata, _, _ = _split(name, raw)
    if str(metadata.schema) != "definition":
        raise _unsupported(name, "does not hold definitions", {"schema": str(metadata.schema)})
    try:
        decoder = DBNDecoder()
        decoder.write(raw)
        records = decoder.decode()
    except DBNError as error:
        raise _unreadable(name, f"cannot be decoded: {error}") from None
    if decoder.buffer():
        raise _unreadable(name, "ends in the middle of a record", {"left_over_bytes": len(decoder.buffer())})
    return [_definition(record) for record in records if isinstance(record, InstrumentDefMsg)]


def _definition(record: Any) -> Definition:
    def price(value: int) -> int | None:
        return None if value == UNDEFINED_DBN_PRICE else int(value)

    def count(value: int) -> int | None:
        return None if value == UNDEFINED_DBN_I32 else int(value)

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
    return name, _decompress(name, data) if data[:4] == _ZSTD else data


def _decompress(name: str, data: bytes) -> bytes:
    """Every zstd frame of ``data``; a cut frame is an error (the library's stream reader would end silently)."""
    import zstandard

    pieces = []
    rest = data
    while rest:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            pieces.append(frame.decompress(rest))
        except zstandard.ZstdError as error:
            raise _unreadable(name, f"is damaged: {error}") from None
        if not frame.eof:
            raise _unreadable(name, "is cut short inside its zstd frame", {"bytes": len(data)})
        rest = frame.unused_data
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


def _records(name: str, body: bytes, rtype: int, ts_out: bool) -> npt.NDArray[Any]:
    dtype = np.dtype([*OHLCV_DTYPE.descr, ("ts_out", "<u8")]) if ts_out else OHLCV_DTYPE
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
            "holds records of another kind among its bars",
            {"row": first, "rtype": int(records["rtype"][first]), "expected_rtype": rtype},
        )
    return records


def _prices(column: npt.NDArray[Any]) -> I64:
    prices = column.astype(np.int64)
    prices[prices == UNDEFINED_DBN_PRICE] = MISSING_PRICE
    return prices


def _own_contracts(metadata: Any) -> dict[int, list[SymbolInterval]]:
    """Names from the file's mappings where raw symbols were asked for; nothing for continuous or parent symbols."""
    found: dict[int, list[SymbolInterval]] = {}
    if str(metadata.stype_in) != "raw_symbol":
        return found
    for raw_symbol, intervals in metadata.mappings.items():
        for interval in intervals:
            if interval["symbol"].isdigit():
                found.setdefault(int(interval["symbol"]), []).append(
                    SymbolInterval(interval["start_date"], interval["end_date"], raw_symbol)
                )
    return found


def _name_contracts(ids: I64, ts_open: I64, contracts: ContractMap) -> tuple[I32, tuple[str, ...]]:
    """Codes per row and the names they stand for, names in order of first appearance."""
    codes = np.full(len(ids), -1, dtype=np.int32)
    days = ts_open // BAR_NANOS["ohlcv-1d"]
    named: dict[str, int] = {}
    for instrument in dict.fromkeys(ids.tolist()):
        mine = ids == instrument
        for interval in contracts.get(instrument, ()):
            inside = mine & (days >= _day(interval.start)) & (days < _day(interval.end)) & (codes < 0)
            if inside.any():
                codes[inside] = named.setdefault(interval.symbol, len(named))
        left = mine & (codes < 0)
        if left.any():
            codes[left] = named.setdefault(f"#{instrument}", len(named))
    return codes, tuple(named)


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
            "Give a whole DBN file (versions 1 to 3, raw or zstd) of an ohlcv schema; Databento's `dbn` tool converts.",
            {"file": name, **(numbers or {})},
        )
    )
