"""The lake: immutable Parquet files of bars in hive folders, named by the sha256 of their bytes, written atomically.

A file appears whole or not at all: bytes go to a temporary name in the same folder, are synced, and are renamed. A
file that no row cites is harmless and is found again by the next attempt, because the same bars give the same bytes.
Which files make up a series is known to the store alone (``lake_segments``, ``snapshots``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from blaid_pipelines.ids import canonical_json, sha256_hex
from blaid_pipelines.market.bars import PRICES, Bars
from blaid_pipelines.reasons import Reason, ReasonCode, Refused, StopAndFix

PROVENANCE_KEY = b"blaid.provenance"
"""Key in a Parquet file's own metadata under which its provenance travels with the bytes."""

_WHOLE_NUMBERS = ("ts_open", *PRICES, "volume")
# Decimals for every reader, stored as the 64-bit integers that they are: a third of the size, four times as fast.
_LAYOUT: dict[str, Any] = {
    "compression": "zstd",
    "version": "2.6",
    "write_page_index": False,
    "store_decimal_as_integer": True,
    "use_dictionary": ["contract"],
    "column_encoding": dict.fromkeys(_WHOLE_NUMBERS, "DELTA_BINARY_PACKED"),
}


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """One bar file: path relative to the lake, sha256 of its bytes, bars in it, the range it answers for (ns UTC)."""

    path: str
    sha256: str
    bar_count: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class FilePart:
    """The stretch ``[start_ns, end_ns)`` for which a snapshot uses one bar file; the file may hold more."""

    path: str
    sha256: str
    start_ns: int
    end_ns: int

    def as_json(self) -> dict[str, Any]:
        """As stored in ``snapshots.files``."""
        return {"path": self.path, "sha256": self.sha256, "start_ns": self.start_ns, "end_ns": self.end_ns}


def write_segment(
    lake: Path,
    dataset: str,
    schema: str,
    symbol: str,
    bars: Bars,
    start_ns: int,
    end_ns: int,
    provenance: Mapping[str, Any],
) -> list[SegmentFile]:
    """Write ``bars`` of ``[start_ns, end_ns)``, one file a UTC year; a year without bars gets an empty file.

    ``provenance`` goes into each file's metadata. Raises :class:`StopAndFix` when the lake cannot be written, and
    ``ValueError`` for bars outside the range.
    """
    if len(bars) and not (start_ns <= bars.ts_open.min() and bars.ts_open.max() < end_ns):
        raise ValueError("bars outside the range that they are said to cover")
    files = []
    for left, right in _years(start_ns, end_ns):
        part = bars.slice(left, right).ordered()
        year = datetime.fromtimestamp(left // 1_000_000_000, UTC).year
        folder = Path(
            "bars", f"dataset={_safe(dataset)}", f"schema={_safe(schema)}", f"symbol={_safe(symbol)}", f"year={year}"
        )
        table = part.to_table().replace_schema_metadata({PROVENANCE_KEY: canonical_json(dict(provenance)).encode()})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **_LAYOUT)
        data = sink.getvalue().to_pybytes()
        digest = sha256_hex(data)
        relative = folder / f"{digest}.parquet"
        try:
            write_atomically(lake / relative, data)
        except OSError as error:
            raise lake_unwritable(error, relative) from error
        files.append(SegmentFile(relative.as_posix(), digest, len(part), left, right))
    return files


def lake_unwritable(error: OSError, path: Path) -> StopAndFix:
    """The error for a file (``path`` within the lake) that could not be written; nothing of it is visible."""
    return StopAndFix(
        Reason(
            ReasonCode.INSTALLATION_BROKEN,
            f"the lake cannot be written: {error.strerror or error}",
            "Check that the lake's folder exists, is writable and has space; then repeat.",
            {"path": path.as_posix()},
        )
    )


def write_atomically(path: Path, data: bytes) -> None:
    """Put ``data`` under ``path``, whole or not at all, on disk before it is visible. Replaces a file that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_file(lake: Path, path: str, sha256: str) -> Bars:
    """The bars of one file, after checking its bytes; :class:`Refused` (``SNAPSHOT_CORRUPT``) when they differ."""
    try:
        data = (lake / path).read_bytes()
    except OSError as error:
        raise _corrupt(path, f"cannot be read: {error.strerror or error}", sha256, None) from error
    found = sha256_hex(data)
    if found != sha256:
        raise _corrupt(path, "does not hold the bytes that were written", sha256, found)
    try:
        return Bars.from_table(pq.ParquetFile(pa.BufferReader(data)).read())
    except (pa.ArrowInvalid, ValueError, KeyError) as error:
        raise _corrupt(path, f"is no bar file: {error}", sha256, found) from error


def file_provenance(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """What a Parquet file says about where it came from; empty when it says nothing or nothing readable."""
    raw = (metadata or {}).get(PROVENANCE_KEY)
    if raw is None:
        return {}
    try:
        value = json.loads(raw)
    except ValueError:
        # Someone wrote our key with something else: treat it as the more suspicious origin.
        return {"simulated": True}
    return value if isinstance(value, dict) else {"simulated": True}


def _corrupt(path: str, what: str, wanted: str, found: str | None) -> Refused:
    return Refused(
        Reason(
            ReasonCode.SNAPSHOT_CORRUPT,
            f"{path} {what}",
            "Restore the lake from a backup, or pull the whole range or ingest the files again.",
            {"path": path, "sha256": wanted, "found_sha256": found},
        )
    )


def _safe(part: str) -> str:
    """A folder name for any symbol: what hive readers and file systems take as it is, per cent encoded otherwise."""
    return quote(part, safe="")


def _years(start_ns: int, end_ns: int) -> list[tuple[int, int]]:
    """``[start, end)`` cut at the turns of UTC years."""
    cuts = [start_ns]
    year = datetime.fromtimestamp(start_ns // 1_000_000_000, UTC).year + 1
    while (turn := int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000_000) < end_ns:
        cuts.append(turn)
        year += 1
    return list(zip(cuts, [*cuts[1:], end_ns], strict=True))
