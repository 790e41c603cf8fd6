"""Bars as columns: the one in-memory form of market data between providers, lake, gate and backtest.

Times are int64 nanoseconds UTC of the bar's OPEN, prices are int64 in units of 1e-9, exact. What a source left out
stays visible as a sentinel (:data:`MISSING`, :data:`NOT_FINITE`, :data:`MISSING_VOLUME`), so that the quality gate can
see it; nothing is repaired here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode

if TYPE_CHECKING:
    from blaid_pipelines.providers.databento.dbn import DbnBars

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

MISSING = int(np.iinfo(np.int64).min)
"""A price that the source did not give."""
NOT_FINITE = 10**18 - 1
"""A price that was given but is no number, or is beyond a billion: NaN, infinity. The largest decimal(18, 9)."""
MISSING_VOLUME = -1
"""A volume that the source did not give."""
PRICES = ("open", "high", "low", "close")
DAY_NS = 86_400_000_000_000
MINUTE_NS = 60_000_000_000

SCHEMA_MINUTES = {"ohlcv-1m": 1, "ohlcv-1h": 60, "ohlcv-1d": 1440}
"""Minutes a bar lasts, by schema."""


def bar_nanos(schema: str) -> int:
    """Length of a bar in nanoseconds. Raises :class:`InvalidRequest` for a schema that is not bars."""
    minutes = SCHEMA_MINUTES.get(schema)
    if minutes is None:
        raise InvalidRequest(
            Reason(
                ReasonCode.FORMAT_UNSUPPORTED,
                f"{schema!r} is no bar schema that Blaid reads",
                f"Use one of: {', '.join(SCHEMA_MINUTES)}.",
                {"schema": schema},
            )
        )
    return minutes * MINUTE_NS


def to_ns(moment: datetime) -> int:
    """Nanoseconds since the epoch of an aware datetime; exact (a float would not be)."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def from_ns(nanos: int) -> datetime:
    """The UTC datetime at or before ``nanos``, to the microsecond."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanos // 1000)


TABLE_SCHEMA = pa.schema(
    [
        pa.field("ts_open", pa.timestamp("ns", tz="UTC"), nullable=False),
        *(pa.field(name, pa.decimal128(18, 9)) for name in PRICES),
        pa.field("volume", pa.int64()),
        pa.field("contract", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class BarDay:
    """What one UTC day of bars comes to: its hash, and what a snapshot's row says without reading the bars again."""

    day: int
    sha256: str
    bars: int
    first_ns: int
    last_ns: int
    contracts: tuple[str, ...]


def content_hash_of(days: Iterable[BarDay]) -> str:
    """sha256 over the hashes of whole UTC days, given in order: the content hash of all their bars together."""
    digest = hashlib.sha256(b"blaid-bars-1")
    for entry in days:
        digest.update(f"|{entry.day}:{entry.sha256}".encode())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Bars:
    """``n`` bars. ``contract`` indexes ``contracts``; order is as the source gave it until :meth:`ordered`."""

    ts_open: Int64
    open: Int64
    high: Int64
    low: Int64
    close: Int64
    volume: Int64
    contract: Int32
    contracts: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("ts_open", *PRICES, "volume", "contract"):
            column = getattr(self, name)
            wanted = np.int32 if name == "contract" else np.int64
            if column.dtype != wanted or column.shape != self.ts_open.shape or column.ndim != 1:
                raise ValueError(f"column {name}: {column.dtype}{column.shape}, wanted {np.dtype(wanted)}[n]")
        if len(self.contract) and (self.contract.min() < 0 or self.contract.max() >= len(self.contracts)):
            raise ValueError("a contract code is outside the list of contracts")
        if len(set(self.contracts)) != len(self.contracts):
            raise ValueError("the list of contracts names one twice")

    def __len__(self) -> int:
        return len(self.ts_open)

    @staticmethod
    def empty() -> Bars:
        """No bars at all."""
        nothing = np.empty(0, np.int64)
        return Bars(nothing, nothing, nothing, nothing, nothing, nothing, np.empty(0, np.int32), ())

    @staticmethod
    def build(
        ts_open: npt.ArrayLike,
        open: npt.ArrayLike,
        high: npt.ArrayLike,
        low: npt.ArrayLike,
        close: npt.ArrayLike,
        volume: npt.ArrayLike,
        contract: str | Sequence[str],
    ) -> Bars:
        """Bars from array-likes; ``contract`` is one name for all rows or one per row."""
        stamps = np.ascontiguousarray(ts_open, np.int64)
        if isinstance(contract, str):
            names: tuple[str, ...] = (contract,) if len(stamps) else ()
            codes = np.zeros(len(stamps), np.int32)
        else:
            unique, inverse = np.unique(np.asarray(contract, dtype=str), return_inverse=True)
            names, codes = tuple(str(name) for name in unique), inverse.astype(np.int32)
        o, h, lo, c, v = (np.ascontiguousarray(column, np.int64) for column in (open, high, low, close, volume))
        return Bars(stamps, o, h, lo, c, v, codes, names)

    def take(self, rows: Any) -> Bars:
        """The rows picked by an index array, mask or slice, with the same list of contracts."""
        return Bars(
            self.ts_open[rows],
            self.open[rows],
            self.high[rows],
            self.low[rows],
            self.close[rows],
            self.volume[rows],
            self.contract[rows],
            self.contracts,
        )

    def slice(self, start_ns: int, end_ns: int) -> Bars:
        """Bars that open in ``[start_ns, end_ns)``."""
        if len(self) and start_ns <= int(self.ts_open.min()) and int(self.ts_open.max()) < end_ns:
            return self
        return self.take((self.ts_open >= start_ns) & (self.ts_open < end_ns))

    def ordered(self) -> Bars:
        """The bars by (time, contract name, then every value) with a sorted list of only the contracts they use.

        The order is total: two lists of the same bars come out identical whatever order and codes they had.
        """
        counts = np.bincount(self.contract, minlength=len(self.contracts))
        names = tuple(sorted(name for name, count in zip(self.contracts, counts, strict=True) if count))
        codes = self.contract
        if names != self.contracts:
            place = {name: code for code, name in enumerate(names)}
            rank = np.array([place.get(name, 0) for name in self.contracts], np.int32)
            codes = rank[self.contract] if len(self) else codes
        renamed = Bars(self.ts_open, self.open, self.high, self.low, self.close, self.volume, codes, names)
        step = np.diff(self.ts_open)
        if len(self) < 2 or bool((step > 0).all()):
            return renamed
        keys = (self.volume, self.close, self.low, self.high, self.open, codes, self.ts_open)
        return renamed.take(np.lexsort(keys))

    @staticmethod
    def concat(parts: Iterable[Bars]) -> Bars:
        """All bars of all parts, ordered."""
        kept = [part for part in parts if len(part)]
        if not kept:
            return Bars.empty()
        if len(kept) == 1:
            return kept[0].ordered()
        names = sorted({name for part in kept for name in part.contracts})
        position = {name: code for code, name in enumerate(names)}
        codes = [
            np.array([position[name] for name in part.contracts], np.int32)[part.contract].astype(np.int32)
            for part in kept
        ]
        ts, o, h, lo, c, v = (
            np.concatenate([getattr(part, name) for part in kept]) for name in ("ts_open", *PRICES, "volume")
        )
        return Bars(ts, o, h, lo, c, v, np.concatenate(codes), tuple(names)).ordered()

    def days(self) -> list[BarDay]:
        """Each UTC day that has bars, in order."""
        bars = self.ordered()
        days = bars.ts_open // DAY_NS
        edges = [0, *(np.flatnonzero(days[1:] != days[:-1]) + 1).tolist(), len(bars)] if len(bars) else [0]
        columns = [np.ascontiguousarray(getattr(bars, name), "<i8") for name in ("ts_open", *PRICES, "volume")]
        found = []
        for first, last in pairwise(edges):
            names, codes = _own_contracts(bars.contracts, bars.contract[first:last])
            digest = hashlib.sha256(f"blaid-bars-1|{last - first}|".encode())
            for column in columns:
                digest.update(column[first:last].data)
            for name in names:
                encoded = name.encode()
                digest.update(len(encoded).to_bytes(4, "little") + encoded)
            digest.update(np.ascontiguousarray(codes, "<i4").data)
            stamps = int(bars.ts_open[first]), int(bars.ts_open[last - 1])
            found.append(BarDay(int(days[first]), digest.hexdigest(), last - first, *stamps, names))
        return found

    def day_hashes(self) -> list[tuple[int, str]]:
        """(UTC day number, sha256) of each day that has bars, in order: what :meth:`content_hash` is made of."""
        return [(entry.day, entry.sha256) for entry in self.days()]

    def content_hash(self) -> str:
        """sha256 over the days' hashes: the same bars have one hash, however they were stored, coded or pulled."""
        return content_hash_of(self.days())

    def to_table(self) -> pa.Table:
        """Arrow table of :data:`TABLE_SCHEMA`; :data:`MISSING` prices and missing volumes become nulls."""
        prices = [_decimals(getattr(self, name)) for name in PRICES]
        volume = pa.array(self.volume, pa.int64(), mask=self.volume == MISSING_VOLUME)
        contract = pa.DictionaryArray.from_arrays(pa.array(self.contract), pa.array(self.contracts, pa.string()))
        columns = [pa.array(self.ts_open).cast(TABLE_SCHEMA.field("ts_open").type), *prices, volume, contract]
        return pa.Table.from_arrays(columns, schema=TABLE_SCHEMA)

    @staticmethod
    def from_table(table: pa.Table) -> Bars:
        """The inverse of :meth:`to_table`. Raises ``ValueError`` for another shape or for null times or contracts."""
        for name in ("ts_open", "contract"):
            if table.column(name).null_count:
                raise ValueError(f"column {name} holds nulls")
        if not len(table):
            return Bars.empty()
        stamps = table.column("ts_open").cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64()).to_numpy()
        o, h, lo, c = (nanos_of(table.column(name)) for name in PRICES)
        volume = table.column("volume").cast(pa.int64()).fill_null(MISSING_VOLUME).to_numpy()
        column = table.column("contract")
        if not pa.types.is_dictionary(column.type):
            column = column.cast(pa.string()).dictionary_encode()
        if column.num_chunks > 1:  # chunks may number the same names differently
            column = column.unify_dictionaries()
        codes = np.concatenate([chunk.indices.to_numpy(zero_copy_only=False) for chunk in column.chunks])
        names = tuple(column.chunk(0).dictionary.to_pylist())
        if len(set(names)) != len(names) or None in names:
            raise ValueError("column contract names one contract twice")
        return Bars(stamps, o, h, lo, c, volume, codes.astype(np.int32, copy=False), names)


def _own_contracts(names: tuple[str, ...], codes: Int32) -> tuple[tuple[str, ...], Int32]:
    """Of sorted ``names`` only those that ``codes`` use, and the codes into these; ``codes`` is not empty."""
    low, high = int(codes.min()), int(codes.max())
    if low == high:
        return (names[low],), np.zeros(len(codes), np.int32)
    used = np.flatnonzero(np.bincount(codes, minlength=len(names)))
    return tuple(names[code] for code in used), np.searchsorted(used, codes).astype(np.int32)


def _decimals(nanos: Int64) -> pa.Array:
    """int64 nanos as decimal128(18, 9), bit for bit: a decimal128 is its unscaled integer in 16 little-endian bytes."""
    words = np.empty((len(nanos), 2), "<i8")
    words[:, 0] = nanos
    words[:, 1] = nanos >> 63
    missing = nanos == MISSING
    words[missing] = 0
    valid = pa.array(~missing).buffers()[1]
    buffers = [valid, pa.py_buffer(words.tobytes())]
    return pa.Array.from_buffers(pa.decimal128(18, 9), len(nanos), buffers, int(missing.sum()))


def nanos_of(column: pa.ChunkedArray) -> Int64:
    """A decimal or floating Arrow column as int64 nanos.

    Nulls become :data:`MISSING`; NaN, infinities and values beyond a billion :data:`NOT_FINITE`. A float is read as
    the decimal it prints as (1.1076 is 1.107600000). Raises ``pyarrow.ArrowInvalid`` for other types.
    """
    if pa.types.is_decimal(column.type):
        plain = pa.types.is_decimal128(column.type) and column.type.scale == 9
        exact = column if plain else column.cast(pa.decimal128(38, 9))
        chunk = exact.combine_chunks() if isinstance(exact, pa.ChunkedArray) else exact
        chunk = pa.concat_arrays(chunk.chunks) if isinstance(chunk, pa.ChunkedArray) else chunk
        low, high = _words(chunk)
        # No subtraction and no abs: both would overflow on the lowest int64.
        bad = (high != low >> 63) | (low > NOT_FINITE) | (low < -NOT_FINITE)
        nulls = chunk.is_null().to_numpy(zero_copy_only=False) if chunk.null_count else None
    else:
        floats = column.cast(pa.float64())
        nulls = floats.is_null().to_numpy() if floats.null_count else None
        values = floats.fill_null(0.0).to_numpy()
        bad = ~np.isfinite(values) | (np.abs(values) >= 1e9)
        safe = np.where(bad, 0.0, values)
        whole = np.trunc(safe)
        # Whole part and fraction apart, so that nine decimals stay exact up to a billion.
        low = whole.astype(np.int64) * 1_000_000_000 + np.rint((safe - whole) * 1e9).astype(np.int64)
    result: Int64 = np.where(bad, np.int64(NOT_FINITE), low).astype(np.int64) if bad.any() else low
    if nulls is not None:
        result[nulls] = MISSING
    return result


def _words(chunk: pa.Array) -> tuple[Int64, Int64]:
    """Low and high 64-bit words of a decimal128 array, its offset respected."""
    data = chunk.buffers()[1]
    if data is None or len(chunk) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    words = np.frombuffer(data, "<i8").reshape(-1, 2)[chunk.offset : chunk.offset + len(chunk)]
    return words[:, 0].copy(), words[:, 1]


def bars_of_dbn(dbn: DbnBars) -> Bars:
    """Bars as Databento sent them, with the sentinels of this module; prices beyond a billion are no prices."""
    prices = {}
    for name in PRICES:
        column = np.ascontiguousarray(getattr(dbn, name), np.int64)
        bad = (column != MISSING) & (np.abs(column) > NOT_FINITE)
        prices[name] = np.where(bad, np.int64(NOT_FINITE), column)
    return Bars(
        np.ascontiguousarray(dbn.ts_open, np.int64),
        prices["open"],
        prices["high"],
        prices["low"],
        prices["close"],
        np.ascontiguousarray(dbn.volume, np.int64),
        np.ascontiguousarray(dbn.contract_code, np.int32),
        tuple(dbn.contracts),
    )


def price(nanos: int) -> Decimal | None:
    """One price for people and JSON: None for the sentinels."""
    return None if nanos in (MISSING, NOT_FINITE) else Decimal(nanos).scaleb(-9)
