"""Zips of QuantConnect's LEAN: futures trades as minute bars, a zip a day, or as hour or daily bars, a zip a product.

Each zip has one csv a contract, without a header: time, open, high, low, close, volume. Minute files count
milliseconds from the midnight of the day in their name; hour and daily files write ``20131006 22:00``. LEAN keeps CME
futures in UTC and stamps bars at their open. Daily bars are of UTC days, Sunday's hours included, as they come: the
gate judges them. Quotes, open interest, ticks and options are refused by name.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blaid_pipelines.market.bars import DAY_NS, MISSING_VOLUME, PRICES, Bars, nanos_of
from blaid_pipelines.market.expiry import contract_of
from blaid_pipelines.market.intake.reading import (
    BARS,
    Ask,
    FileBars,
    check_unpacked,
    does_not_fit,
    unreadable,
    unsupported,
)
from blaid_pipelines.market.intake.times import times_of
from blaid_pipelines.market.intake.trades import join

MOST_FILES = 10_000
_MILLIS = 1_000_000
_MINUTE_FILE = re.compile(r"(\d{8})_([a-z0-9]{1,4})_minute_trade_(\d{4})(\d{2})(?:_\d{8})?\.csv")
_LONGER_FILE = re.compile(r"([a-z0-9]{1,4})_trade_(\d{4})(\d{2})(?:_\d{8})?\.csv")
_DAY_IN_NAME = re.compile(r"(\d{8})_trade(?:\b|_)")
_OTHER_KINDS = ("quote", "openinterest", "tick", "second", "universe", "american", "european", "option")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One csv of a zip: its name, the product and contract that it names, and its day where it is of minutes."""

    name: str
    root: str
    contract: str
    midnight_ns: int | None


def read_lean(path: Path, data: bytes, digest: str, ask: Ask) -> FileBars:
    """All contracts of a LEAN trade zip.

    Raises :class:`StopAndFix` (``FILE_UNREADABLE`` for damage, encryption and zip bombs, ``FORMAT_UNSUPPORTED`` for
    a zip of anything else) and :class:`InvalidRequest` for a request that contradicts it.
    """
    if ask.stamp not in {None, "open"} or ask.tz not in {None, "UTC"} or ask.time_unit is not None:
        problem = "LEAN stamps bars at their open in UTC: leave --stamp, --tz and --time-unit out"
        raise does_not_fit(path.name, problem, {"stamp": ask.stamp, "tz": ask.tz})
    if ask.content != BARS:
        raise does_not_fit(path.name, "it holds bars", {"content": ask.content})
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            if len(infos) > MOST_FILES:
                raise unreadable(path.name, f"holds {len(infos):,} files", most_files=MOST_FILES)
            entries = [_entry(path, info) for info in infos]
            if not entries:
                raise unreadable(path.name, "is a zip without files")
            minutes = {entry.midnight_ns is not None for entry in entries}
            _check(path, entries, minutes, ask)
            # No entry gives more bytes than it says, so that what they say together bounds what comes out.
            check_unpacked(path.name, len(data), sum(info.file_size for info in infos))
            parts = [_bars(path, entry, archive.read(info), ask) for info, entry in zip(infos, entries, strict=True)]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError) as error:
        raise unreadable(path.name, f"is no readable zip: {error}") from error
    except RuntimeError as error:  # what zipfile raises for encryption
        raise unreadable(path.name, f"cannot be opened: {error}") from error
    return FileBars(path.name, digest, join(parts), simulated=False, dataset=None, several=True)


def _entry(path: Path, info: zipfile.ZipInfo) -> _Entry:
    name = info.filename
    if info.flag_bits & 0x1:
        raise unreadable(path.name, f"is encrypted ({name})")
    minute, longer = _MINUTE_FILE.fullmatch(name), _LONGER_FILE.fullmatch(name)
    match = minute or longer
    if match is None:
        kind = next((each for each in _OTHER_KINDS if f"_{each}" in name.lower()), None)
        what = f"holds LEAN's {kind} data" if kind and name.endswith(".csv") else "is no LEAN zip of futures trades"
        raise unsupported(path.name, f"{what}: {name!r}", entry=name)
    *day, root, year, month = match.groups()
    if not 1 <= int(month) <= 12:
        raise unreadable(path.name, f"names a contract month that is none: {name!r}", entry=name)
    midnight = _midnight(path, name, day[0]) if day else None
    return _Entry(name, root.upper(), contract_of(root.upper(), int(year), int(month)), midnight)


def _midnight(path: Path, name: str, text: str) -> int:
    try:
        day = date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        raise unreadable(path.name, f"names a day that is none: {name!r}", entry=name) from None
    outside = _DAY_IN_NAME.search(path.name)
    if outside is not None and outside.group(1) != text:
        raise unreadable(path.name, f"holds a file of another day: {name!r}", entry=name)
    return (day - date(1970, 1, 1)).days * DAY_NS


def _check(path: Path, entries: list[_Entry], minutes: set[bool], ask: Ask) -> None:
    if len(minutes) > 1:
        raise unsupported(path.name, "holds minute and longer bars in one zip")
    is_minute = minutes.pop()
    if is_minute != (ask.schema == "ohlcv-1m"):
        fix = "ohlcv-1m" if is_minute else "ohlcv-1h or ohlcv-1d"
        raise does_not_fit(path.name, f"it holds {'minute' if is_minute else 'hour or daily'} bars: use --schema {fix}",
                           {"schema": ask.schema})  # fmt: skip
    names = [entry.contract for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        # Ten years apart share a name: one zip that holds both cannot be told apart by it.
        raise unsupported(path.name, f"holds more than one file of {', '.join(twice)}", contracts=twice)


def _bars(path: Path, entry: _Entry, text: bytes, ask: Ask) -> Bars:
    from pyarrow import csv

    if not text.strip():
        return Bars.empty()
    names = ["time", *PRICES, "volume"]
    try:
        table = csv.read_csv(
            pa.BufferReader(pa.py_buffer(text)),
            read_options=csv.ReadOptions(column_names=names),
            convert_options=csv.ConvertOptions(
                column_types={"time": pa.string(), "volume": pa.float64()} | dict.fromkeys(PRICES, pa.decimal128(38, 9))
            ),
        )
        ts = _times(path, entry, table.column("time"), ask)
        opens, highs, lows, closes = (nanos_of(table.column(name)) for name in PRICES)
        floats = table.column("volume").fill_null(-1.0).to_numpy()
    except pa.ArrowInvalid as error:
        raise unreadable(path.name, f"has a file {entry.name} that is not LEAN's bars: {error}") from error
    whole = np.isfinite(floats) & (floats >= 0) & (floats < 2**53) & (floats == np.floor(floats))
    volume = np.where(whole, np.where(whole, floats, 0), MISSING_VOLUME).astype(np.int64)
    return Bars.build(ts, opens, highs, lows, closes, volume, entry.contract)


def _times(path: Path, entry: _Entry, column: pa.ChunkedArray, ask: Ask) -> npt.NDArray[np.int64]:
    if entry.midnight_ns is not None:
        millis = column.cast(pa.int64()).fill_null(-1).to_numpy()
        outside = (millis < 0) | (millis >= DAY_NS // _MILLIS)
        if outside.any():
            row = int(np.argmax(outside))
            raise unreadable(path.name, f"has a time outside its day in {entry.name}, row {row + 1}", row=row + 1)
        return np.asarray(entry.midnight_ns + millis * _MILLIS, np.int64)
    ts = times_of(path.name, column, "UTC", None)
    at_midnight = bool((ts % DAY_NS == 0).all())
    # A file of one bar may be either, and its stamp alone fits both.
    if ask.schema == "ohlcv-1d" and not at_midnight:
        raise does_not_fit(path.name, f"{entry.name} holds hour bars: use --schema ohlcv-1h", {"schema": ask.schema})
    if ask.schema == "ohlcv-1h" and at_midnight and len(ts) > 1:
        raise does_not_fit(path.name, f"{entry.name} holds daily bars: use --schema ohlcv-1d", {"schema": ask.schema})
    return ts
