"""Segment rows: what of a series the lake holds, with where it came from and whether it is simulated.

The one place that marks bars as simulated, for pulled and ingested ones alike, and that knows them again by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.orm import Session

from blaid_pipelines.market.bars import Bars, from_ns
from blaid_pipelines.market.lake.files import SegmentFile
from blaid_pipelines.market.lake.snapshots import Series
from blaid_pipelines.store.tables import LakeSegment, ProviderRequest


def record_segments(
    session: Session,
    series: Series,
    source_key: str,
    files: Sequence[SegmentFile],
    bars: Bars,
    provenance: Mapping[str, Any],
    simulated: bool,
) -> None:
    """Add a row for each file that ``bars`` were written to; rows of the same file from before are not repeated.

    Simulated bars leave the hash of each UTC day behind: by these they are known again when they come back as a plain
    file.
    """
    for file in files:
        if session.scalar(select(LakeSegment.id).where(LakeSegment.path == file.path).limit(1)) is not None:
            continue
        kept = {**provenance, "simulated": simulated}
        if simulated:
            kept["day_hashes"] = [digest for _, digest in bars.slice(file.start_ns, file.end_ns).day_hashes()]
        session.add(
            LakeSegment(
                dataset=series.dataset,
                schema=series.schema,
                symbol=series.symbol,
                source_key=source_key,
                range_start=from_ns(file.start_ns),
                range_end=from_ns(file.end_ns),
                path=file.path,
                file_sha256=file.sha256,
                bar_count=file.bar_count,
                provenance=kept,
                simulated=simulated,
            )
        )


def known_as_simulated(session: Session, bars: Bars, file_hashes: Sequence[str]) -> bool:
    """True when a file, a reply, or the content of any UTC day of these bars is on record as simulated."""
    days = [digest for _, digest in bars.day_hashes()]
    overlap = LakeSegment.provenance["day_hashes"].op("?|", is_comparison=True)(
        sa.cast(sa.literal(days, sa.ARRAY(sa.Text)), sa.ARRAY(sa.Text))
    )
    queries = (
        select(LakeSegment.id).where(LakeSegment.simulated, LakeSegment.file_sha256.in_(file_hashes)),
        select(ProviderRequest.id).where(ProviderRequest.simulated, ProviderRequest.response_sha256.in_(file_hashes)),
        select(LakeSegment.id).where(LakeSegment.simulated, overlap),
    )
    return any(session.scalar(query.limit(1)) is not None for query in queries)
