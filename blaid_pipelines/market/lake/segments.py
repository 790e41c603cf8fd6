"""Segment rows: what of a series the lake holds, with where it came from and whether it is simulated.

The one place that marks bars as simulated, for pulled and ingested ones alike, and that knows them again by it: by
the bytes of a file, by the content of a whole UTC day, or by a sample of single bars. The sample is defined by the bars
themselves, so that it is found again in any selection of them, in any order, under any name of contract and in any
format. What it does not find: bars whose prices, volumes or times were changed, and a selection so small that it holds
fewer than :data:`ENOUGH_SAMPLES` of the sample, which is about one bar in :data:`SAMPLED`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.orm import Session

from blaid_pipelines.market.bars import PRICES, Bars, from_ns
from blaid_pipelines.market.lake.files import SegmentFile
from blaid_pipelines.market.lake.snapshots import Series
from blaid_pipelines.store.tables import LakeSegment, ProviderRequest

SAMPLED = 32
"""One bar in so many is in the sample: some 11,000 of a year of minutes, 200 kB beside its file."""
ENOUGH_SAMPLES = 3
"""So many bars equal in time, prices and volume to simulated ones are no chance; one among years of bars may be."""


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

    Simulated bars leave the hash of each UTC day behind, and a sample of single bars: by these they are known again
    when they come back as a plain file.
    """
    for file in files:
        if session.scalar(select(LakeSegment.id).where(LakeSegment.path == file.path).limit(1)) is not None:
            continue
        kept = {**provenance, "simulated": simulated}
        if simulated:
            part = bars.slice(file.start_ns, file.end_ns)
            kept["day_hashes"] = [digest for _, digest in part.day_hashes()]
            kept["bar_samples"] = bar_samples(part)
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
    """True when a file, a reply, any UTC day of these bars, or enough single ones are on record as simulated."""
    days = [digest for _, digest in bars.day_hashes()]
    overlap = LakeSegment.provenance["day_hashes"].op("?|", is_comparison=True)(
        sa.cast(sa.literal(days, sa.ARRAY(sa.Text)), sa.ARRAY(sa.Text))
    )
    queries = (
        select(LakeSegment.id).where(LakeSegment.simulated, LakeSegment.file_sha256.in_(file_hashes)),
        select(ProviderRequest.id).where(ProviderRequest.simulated, ProviderRequest.response_sha256.in_(file_hashes)),
        select(LakeSegment.id).where(LakeSegment.simulated, overlap),
    )
    if any(session.scalar(query.limit(1)) is not None for query in queries):
        return True
    return _samples_known(session, bars) >= ENOUGH_SAMPLES


def bar_samples(bars: Bars) -> list[str]:
    """16 hex digits of each bar whose hash of time, prices and volume is 0 modulo :data:`SAMPLED`, sorted.

    Bars without a range are left out: in a quiet market one lot at one price says too little to be known by.
    """
    moving = bars.high > bars.low
    mixed = np.full(len(bars), 0x9E3779B97F4A7C15, np.uint64)
    for name in ("ts_open", *PRICES, "volume"):
        mixed = _mix(mixed ^ getattr(bars, name).astype(np.uint64))
    chosen = np.unique(mixed[moving & (mixed % np.uint64(SAMPLED) == 0)])
    return [f"{value:016x}" for value in chosen.tolist()]


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit of a word reaches every other."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _samples_known(session: Session, bars: Bars) -> int:
    """How many of the sampled bars are on record; only segments of the same time can hold any."""
    mine = bar_samples(bars)
    if len(mine) < ENOUGH_SAMPLES:
        return 0
    first, last = from_ns(int(bars.ts_open.min())), from_ns(int(bars.ts_open.max()))
    recorded = (
        select(sa.func.jsonb_array_elements_text(LakeSegment.provenance["bar_samples"]).label("sample"))
        .where(
            LakeSegment.simulated,
            LakeSegment.range_start <= last,
            LakeSegment.range_end > first,
            sa.func.jsonb_typeof(LakeSegment.provenance["bar_samples"]) == "array",
        )
        .subquery()
    )
    wanted = sa.cast(sa.literal(mine, sa.ARRAY(sa.Text)), sa.ARRAY(sa.Text))
    query = select(sa.func.count(sa.distinct(recorded.c.sample))).where(recorded.c.sample == sa.any_(wanted))
    return int(session.scalar(query) or 0)
