"""What the bars of a list of file parts come to, worked out from the days that are on record where that is possible.

A snapshot's content hash is made of the hashes of its UTC days. A day that one part alone holds, whole, needs no file:
its hash was taken when the part was written. Any other day (cut by a part's edge, shared by two parts, or of a file
whose days are not on record) is read from the files. Both ways give the same hash, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blaid_pipelines.market.bars import DAY_NS, BarDay, Bars, content_hash_of
from blaid_pipelines.market.lake.files import FilePart, read_file

DAYS_KEY = "days"
"""Key in a segment's provenance under which its days are on record."""


@dataclass(frozen=True, slots=True)
class Content:
    """The bars of some parts, without the bars."""

    content_hash: str
    bar_count: int
    first_ns: int | None
    last_ns: int | None
    contracts: list[str]


def days_as_json(days: Iterable[BarDay]) -> list[list[Any]]:
    """As stored in a segment's provenance."""
    return [[day.day, day.sha256, day.bars, day.first_ns, day.last_ns, list(day.contracts)] for day in days]


def days_from_json(provenance: Mapping[str, Any]) -> list[BarDay] | None:
    """The days on record for a segment; None where there are none, or not in this form."""
    stored = provenance.get(DAYS_KEY)
    if not isinstance(stored, list):
        return None
    return [BarDay(day, digest, bars, first, last, tuple(names)) for day, digest, bars, first, last, names in stored]


def content_of(lake: Path, parts: Sequence[FilePart], known: Mapping[str, Sequence[BarDay]]) -> Content:
    """What the parts come to; ``known`` holds the days of whole files by path.

    The caller answers for the bytes of files that are in ``known``; all others are read and verified. Raises
    :class:`Refused` (``SNAPSHOT_CORRUPT``).
    """
    whole: dict[int, list[BarDay]] = {}
    involved: dict[int, list[FilePart]] = {}
    cut: set[int] = set()
    read: dict[str, Bars] = {}
    for part in parts:
        days = known.get(part.path)
        if days is None:
            read[part.path] = read_file(lake, part.path, part.sha256)
            days = read[part.path].days()
        for entry in days:
            if entry.last_ns < part.start_ns or part.end_ns <= entry.first_ns:
                continue
            involved.setdefault(entry.day, []).append(part)
            whole.setdefault(entry.day, []).append(entry)
            if entry.first_ns < part.start_ns or part.end_ns <= entry.last_ns:
                cut.add(entry.day)
    found = []
    for day in sorted(whole):
        if day in cut or len(whole[day]) > 1:
            found += _read_day(lake, day, involved[day], read).days()
        else:
            found.append(whole[day][0])
    return Content(
        content_hash_of(found),
        sum(entry.bars for entry in found),
        found[0].first_ns if found else None,
        found[-1].last_ns if found else None,
        sorted({name for entry in found for name in entry.contracts}),
    )


def _read_day(lake: Path, day: int, parts: Sequence[FilePart], read: dict[str, Bars]) -> Bars:
    pieces = []
    for part in parts:
        if part.path not in read:
            read[part.path] = read_file(lake, part.path, part.sha256)
        start, end = max(part.start_ns, day * DAY_NS), min(part.end_ns, (day + 1) * DAY_NS)
        pieces.append(read[part.path].slice(start, end))
    return Bars.concat(pieces)
