"""A snapshot made of the segments that the lake holds of a series: which stretch of which file it takes.

Whose segments these are, and what a series without bars means, is the caller's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blaid_pipelines.market.bars import to_ns
from blaid_pipelines.market.lake.composition import days_from_json
from blaid_pipelines.market.lake.files import FilePart
from blaid_pipelines.market.lake.snapshots import Series, create_snapshot
from blaid_pipelines.market.spans import Span, uncovered
from blaid_pipelines.store.tables import LakeSegment, Snapshot

if TYPE_CHECKING:
    from blaid_pipelines.store.database import Store


def span_of(segment: LakeSegment) -> Span:
    """The range that a segment answers for."""
    return to_ns(segment.range_start), to_ns(segment.range_end)


def snapshot_of_segments(
    store: Store,
    lake: Path,
    series: Series,
    wanted: Span,
    held: Sequence[LakeSegment],
    provenance: Mapping[str, Any],
    trace_id: str,
) -> Snapshot | None:
    """The snapshot of ``wanted`` over ``held``, oldest first where they overlap; None where none of them has a bar.

    ``provenance`` says where the segments come from; the requests behind those in use are added to it.
    """
    parts: list[FilePart] = []
    used: list[LakeSegment] = []
    for segment in sorted(held, key=lambda entry: (entry.created_at, entry.range_start, entry.id)):
        left, right = span_of(segment)
        clipped = (max(left, wanted[0]), min(right, wanted[1]))
        if clipped[0] >= clipped[1]:
            continue
        free = uncovered(clipped, [(part.start_ns, part.end_ns) for part in parts])
        parts += [FilePart(segment.path, segment.file_sha256, start, end) for start, end in free]
        if free:
            used.append(segment)
    if not any(segment.bar_count for segment in used):
        return None
    parts.sort(key=lambda part: part.start_ns)
    request_ids = dict.fromkeys(value for segment in used for value in segment.provenance["request_ids"])
    known = {segment.path: days for segment in used if (days := days_from_json(segment.provenance)) is not None}
    cited = {**provenance, "request_ids": list(request_ids)}
    simulated = any(segment.simulated for segment in used)
    return create_snapshot(store, lake, series, *wanted, parts, cited, simulated, trace_id, known)
