"""Writing DBN version 3, as Databento's servers do: metadata, records, zstd. For the sandbox gateway and tests alone.

The bytes carry the sandbox's marker in the metadata's reserved part, which every reader skips: a file saved from the
gateway still says that it is simulated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import zstandard

from blaid_pipelines.providers.databento.dbn import (
    MISSING_PRICE,
    OHLCV_DTYPE,
    SIMULATED_MARKER,
    UNDEFINED_DBN_PRICE,
    SymbolInterval,
)
from blaid_pipelines.sandbox.contracts import PRODUCTS, Lead, expiry_of, raw_root
from blaid_pipelines.sandbox.series import PRICES, Series, utc_nanos

_RTYPE = {"ohlcv-1s": 32, "ohlcv-1m": 33, "ohlcv-1h": 34, "ohlcv-1d": 35}
_RESERVED_AT = 55
_GLBX_PUBLISHER = 1


@dataclass(frozen=True, slots=True)
class Header:
    """What the metadata of a reply says; times in nanoseconds UTC, ``mappings`` from requested symbol to intervals."""

    dataset: str
    schema: str
    start: int
    end: int
    stype_in: str
    symbols: Sequence[str]
    mappings: Mapping[str, Sequence[SymbolInterval]]
    partial: Sequence[str] = ()
    not_found: Sequence[str] = ()
    limit: int | None = None


def metadata_bytes(header: Header, *, simulated: bool = True) -> bytes:
    """The metadata of a DBN stream."""
    from databento_dbn import Metadata, Schema, SType

    metadata = Metadata(
        dataset=header.dataset,
        start=header.start,
        end=header.end,
        limit=header.limit,
        stype_in=SType.from_str(header.stype_in),
        stype_out=SType.INSTRUMENT_ID,
        schema=Schema.from_str(header.schema),
        symbols=list(header.symbols),
        partial=list(header.partial),
        not_found=list(header.not_found),
        mappings=[
            SimpleNamespace(
                raw_symbol=symbol,
                intervals=[
                    SimpleNamespace(start_date=part.start, end_date=part.end, symbol=part.symbol) for part in parts
                ],
            )
            for symbol, parts in header.mappings.items()
        ],
        version=3,
    )
    encoded = bytearray(metadata.encode())
    if simulated:
        encoded[_RESERVED_AT : _RESERVED_AT + len(SIMULATED_MARKER)] = SIMULATED_MARKER
    return bytes(encoded)


def bar_bytes(series: Series) -> bytes:
    """The OHLCV records of a series, in its order."""
    records = np.zeros(len(series), dtype=OHLCV_DTYPE)
    records["length"] = OHLCV_DTYPE.itemsize // 4
    records["rtype"] = _RTYPE[series.schema]
    records["publisher_id"] = _GLBX_PUBLISHER
    records["instrument_id"] = series.instrument_id
    records["ts_event"] = series.ts_open
    records["volume"] = series.volume
    for name in PRICES:
        prices = getattr(series, name)
        records[name] = np.where(prices == MISSING_PRICE, UNDEFINED_DBN_PRICE, prices)
    return records.tobytes()


def definition_bytes(contracts: Iterable[Lead]) -> tuple[bytes, int]:
    """One definition record per contract, dated to its first day, and their number; unknown products are left out."""
    from databento_dbn import InstrumentClass, InstrumentDefMsg, SecurityUpdateAction

    records = []
    for lead in contracts:
        root = raw_root(lead.raw_symbol)
        expiry = expiry_of(lead.raw_symbol, lead.start)
        if root is None or expiry is None:
            continue
        product = PRODUCTS[root]
        listed = utc_nanos(lead.start)
        record = InstrumentDefMsg(
            publisher_id=_GLBX_PUBLISHER,
            instrument_id=lead.instrument_id,
            ts_event=listed,
            ts_recv=listed,
            min_price_increment=product.tick_nanos,
            display_factor=10_000_000 if product.unit == "IPNT" else 1_000_000_000,
            raw_symbol=lead.raw_symbol,
            asset=root,
            security_type="FUT",
            instrument_class=InstrumentClass.FUTURE,
            security_update_action=SecurityUpdateAction.ADD,
            expiration=int(expiry.timestamp()) * 10**9,
            activation=listed - 365 * 86_400 * 10**9,
            unit_of_measure_qty=product.unit_qty_nanos,
            max_trade_vol=3000,
            min_trade_vol=1,
            maturity_year=expiry.year,
            maturity_month=expiry.month,
            currency="USD",
            settl_currency="USD",
            group=root,
            exchange=product.mic,
            cfi="FFIXSX",
            unit_of_measure=product.unit,
        )
        records.append(bytes(record))
    return b"".join(records), len(records)


def zstd(data: bytes) -> bytes:
    """One zstd frame."""
    return zstandard.ZstdCompressor(level=1).compress(data)


def dbn_file(series: Series, *, stype_in: str, simulated: bool = True, compress: bool = True) -> bytes:
    """A whole DBN file of one series, as a batch download would hold it."""
    start, end = series.available
    mappings = {series.symbol: [SymbolInterval(lead.start, lead.end, str(lead.instrument_id)) for lead in series.leads]}
    header = Header(series.dataset, series.schema, start, end, stype_in, [series.symbol], mappings)
    data = metadata_bytes(header, simulated=simulated) + bar_bytes(series)
    return zstd(data) if compress else data
