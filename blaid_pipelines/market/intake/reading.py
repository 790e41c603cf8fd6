"""What every reader of files shares: what is asked of a file, what it gave, its bytes unpacked within bounds, errors.

No format is known here; ``files`` chooses the reader.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blaid_pipelines.ids import sha256_hex
from blaid_pipelines.market.bars import Bars
from blaid_pipelines.providers.databento.dbn import (
    ALWAYS_UNPACKED,
    MOST_UNPACKED_RATIO,
    decompress,
)
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, StopAndFix

if TYPE_CHECKING:
    from blaid_pipelines.providers.databento.dbn import ContractMap

BARS, TRADES, SECONDS = "bars", "trades", "ohlcv-1s"
CONTENTS = (BARS, TRADES, SECONDS)
"""What a file may hold: bars of the wanted schema, or trades or one-second bars to be made into such."""
STAMPS = ("open", "close")
TIME_UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}
"""Nanoseconds in what whole-number times may count."""

_CHUNK = 8192


@dataclass(frozen=True, slots=True)
class Ask:
    """What is wanted of a file, with what it cannot say itself: ``stamp``, ``tz``, ``time_unit``, ``content``.

    ``names`` gives the contracts behind instrument ids, by UTC date, where a file holds only the ids;
    ``simulated_names`` the same for files that a sandbox gateway wrote.
    """

    symbol: str
    schema: str = "ohlcv-1m"
    stamp: str | None = None
    tz: str | None = None
    time_unit: str | None = None
    content: str = BARS
    names: ContractMap = field(default_factory=dict)
    simulated_names: ContractMap = field(default_factory=dict)


@dataclass(frozen=True)
class FileBars:
    """What one file gave: all that is in it, whatever contracts those are, in its own order.

    ``several`` is true where the file is known to hold contracts side by side, as against a series of its own making.
    ``simulated`` is what the file says about itself; ``dataset`` and ``end`` only DBN files know. With content
    ``trades`` each row of ``bars`` is one trade.
    """

    name: str
    sha256: str
    bars: Bars
    simulated: bool
    dataset: str | None
    end: datetime | None = None
    several: bool = False


def read_bytes(path: Path) -> tuple[bytes, str]:
    """The file's bytes and their sha256.

    Raises :class:`StopAndFix` (``FILE_UNREADABLE``), also for an empty file, for what is none (a pipe has no end), and
    for a name that no database can hold.
    """
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise unreadable(ascii(path.name), "has a name that is not UTF-8: rename it") from None
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise unreadable(path.name, "is no file but a pipe or device")
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path.name, f"cannot be read: {error.strerror or error}") from error
    if not data:
        raise unreadable(path.name, "is empty")
    return data, sha256_hex(data)


def unpacked(name: str, data: bytes) -> bytes:
    """``data`` without its gzip or zstd packing, if it has one; every member and frame of it.

    Raises :class:`StopAndFix` (``FILE_UNREADABLE``) for damage, a cut end, and what unpacks beyond all bounds.
    """
    if data[:2] == b"\x1f\x8b":
        return _gunzip(name, data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return decompress(name, data)
    return data


def check_unpacked(name: str, packed: int, size: int) -> None:
    """Refuse ``size`` bytes out of ``packed`` ones where only a bomb unpacks so far."""
    most = max(ALWAYS_UNPACKED, MOST_UNPACKED_RATIO * packed)
    if size > most:
        raise unreadable(name, f"unpacks to more than {most:,} bytes, which no market data does", most_bytes=most)


def _gunzip(name: str, data: bytes) -> bytes:
    pieces = []
    at = size = 0
    while at < len(data):
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if at >= len(data):
                raise unreadable(name, "is cut short inside its gzip packing")
            piece = data[at : at + _CHUNK]
            try:
                pieces.append(member.decompress(piece))
            except zlib.error as error:
                raise unreadable(name, f"is damaged: {error}") from None
            size += len(pieces[-1])
            check_unpacked(name, len(data), size)
            at += len(piece) - len(member.unused_data)
        while at < len(data) and not data[at]:  # tools pad the end of the last member
            at += 1
    return b"".join(pieces)


def unreadable(name: str, problem: str, **numbers: Any) -> StopAndFix:
    """The file itself is at fault."""
    return StopAndFix(
        Reason(
            ReasonCode.FILE_UNREADABLE,
            f"{name} {problem}",
            "Check the file; export or fetch it again if it is damaged.",
            {"file": name, **numbers},
        )
    )


def unsupported(name: str, problem: str, **numbers: Any) -> StopAndFix:
    """A format, or a kind of file within one, that is not read."""
    return StopAndFix(
        Reason(
            ReasonCode.FORMAT_UNSUPPORTED,
            f"{name} {problem}",
            "Give DBN (.dbn, .dbn.zst), Parquet (.parquet), CSV (.csv, .csv.gz, .csv.zst) or a LEAN trade zip.",
            {"file": name, **numbers},
        )
    )


def does_not_fit(name: str, problem: str, numbers: Mapping[str, Any], fix: str | None = None) -> InvalidRequest:
    """The file is sound and the request asks for something else."""
    return InvalidRequest(
        Reason(
            ReasonCode.INVALID_REQUEST,
            f"{name} does not fit the request: {problem}",
            fix or "Correct --symbol, --schema, --content, --stamp or --tz, or give the file that was meant.",
            {"file": name, **numbers},
        )
    )
