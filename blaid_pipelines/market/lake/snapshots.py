"""Snapshots: immutable lists of bar files, found again by id, checked on every load, and usable only with a verdict.

``content_hash`` covers the bars alone; ``snapshot_id`` covers the bars, the series, the range and the provenance. A
snapshot's rows and files never change. Which snapshot of a series counts is a row of its own, the series' head: the
newest ``series_heads`` row of a (symbol, schema), written in the transaction of the snapshot that it names. What may be
used is decided here too: :func:`require_pass` refuses a snapshot without a passing verdict of the current suite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from blaid_pipelines.ids import fingerprint
from blaid_pipelines.market.bars import BarDay, Bars, from_ns
from blaid_pipelines.market.gate.checks import QUALITY_CHECKS
from blaid_pipelines.market.gate.thresholds import SUITE_VERSION
from blaid_pipelines.market.instruments import is_continuous
from blaid_pipelines.market.lake.composition import content_of
from blaid_pipelines.market.lake.files import FilePart, read_file
from blaid_pipelines.market.lake.identity import claim_lake
from blaid_pipelines.market.locks import LAKE, share_in_transaction
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, Refused
from blaid_pipelines.store.tables import LakeRemoval, QualityVerdict, SeriesHead, Snapshot

if TYPE_CHECKING:
    from blaid_pipelines.store.database import Store

__all__ = [
    "FilePart",
    "Series",
    "create_snapshot",
    "current_head",
    "get_snapshot",
    "load_bars",
    "read_parts",
    "require_pass",
    "resolve_snapshot",
    "snapshot_id_of",
    "verdict_of",
]

_READERS = 4
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Series:
    """What a snapshot is a snapshot of."""

    dataset: str
    schema: str
    symbol: str
    instrument: str


def read_parts(lake: Path, parts: Sequence[FilePart]) -> Bars:
    """The bars of the parts, each file verified. Raises :class:`Refused` (``SNAPSHOT_CORRUPT``)."""

    def read(part: FilePart) -> Bars:
        return read_file(lake, part.path, part.sha256).slice(part.start_ns, part.end_ns)

    if len(parts) < 3:
        return Bars.concat(map(read, parts))
    with ThreadPoolExecutor(_READERS) as pool:  # hashing and decoding leave Python's lock alone
        return Bars.concat(pool.map(read, parts))


def snapshot_id_of(
    content_hash: str, series: Series, start_ns: int, end_ns: int, provenance: Mapping[str, Any], simulated: bool
) -> str:
    """The id that content, series, range and provenance have together; 64 hex digits."""
    return fingerprint(
        {
            "content_hash": content_hash,
            "dataset": series.dataset,
            "schema": series.schema,
            "symbol": series.symbol,
            "range_ns": [start_ns, end_ns],
            "provenance": dict(provenance),
            "simulated": simulated,
        }
    )


def create_snapshot(
    store: Store,
    lake: Path,
    series: Series,
    start_ns: int,
    end_ns: int,
    parts: Sequence[FilePart],
    provenance: Mapping[str, Any],
    simulated: bool,
    trace_id: str,
    known: Mapping[str, Sequence[BarDay]] | None = None,
) -> Snapshot:
    """Write the snapshot row of these files, or find the one that exists (same content and provenance, same id).

    In the same transaction it becomes the head of its (symbol, schema), if it is not already. The bars are read back
    from the lake and verified first, so that no row cites what cannot be loaded; those of files in ``known`` (their
    UTC days by path, as recorded when they were written) are not read: the caller has seen that these files are intact.
    Raises :class:`Refused` with ``SNAPSHOT_CORRUPT``, or ``LAKE_MISMATCH`` for a lake of another database.
    """
    claim_lake(store, lake)
    content = content_of(lake, parts, known or {})
    snapshot_id = snapshot_id_of(content.content_hash, series, start_ns, end_ns, provenance, simulated)
    row = {
        "snapshot_id": snapshot_id,
        "content_hash": content.content_hash,
        "dataset": series.dataset,
        "schema": series.schema,
        "symbol": series.symbol,
        "instrument": series.instrument,
        "range_start": from_ns(start_ns),
        "range_end": from_ns(end_ns),
        "bar_count": content.bar_count,
        "first_ts": None if content.first_ns is None else from_ns(content.first_ns),
        "last_ts": None if content.last_ns is None else from_ns(content.last_ns),
        "files": [part.as_json() for part in parts],
        "contracts": content.contracts,
        "provenance": dict(provenance),
        "simulated": simulated,
        "trace_id": trace_id,
    }
    with store.session() as session:
        # Nobody takes a file out of the lake between this look at it and the row that cites it.
        share_in_transaction(session, LAKE)
        _check_there(session, lake, parts)
        session.execute(insert(Snapshot).values(row).on_conflict_do_nothing(index_elements=["snapshot_id"]))
        _move_head(session, session.get_one(Snapshot, snapshot_id), trace_id)
    return get_snapshot(store, snapshot_id)


def _check_there(session: Session, lake: Path, parts: Sequence[FilePart]) -> None:
    """Refuse where a file is gone: removed by a clean-up, which its row says, or lost."""
    gone = sorted({part.path for part in parts if not (lake / part.path).is_file()})
    if not gone:
        return
    query = select(LakeRemoval.path, func.max(LakeRemoval.created_at)).where(LakeRemoval.path.in_(gone))
    removed = {row[0]: row[1] for row in session.execute(query.group_by(LakeRemoval.path))}
    if len(removed) == len(gone):
        raise Refused(
            Reason(
                ReasonCode.SNAPSHOT_REMOVED,
                f"a clean-up of the lake removed {len(gone)} of its bar files on {max(removed.values()):%Y-%m-%d}",
                "Pull its whole range or ingest its files again: the same bars come back under the same content hash.",
                {"removed": gone[:_SHOWN], "files_removed": len(gone)},
            )
        )
    raise Refused(
        Reason(
            ReasonCode.SNAPSHOT_CORRUPT,
            f"{len(gone)} of its bar files are not in the lake",
            "Restore the lake from a backup, or pull the whole range or ingest the files again.",
            {"missing": gone[:_SHOWN], "files_missing": len(gone)},
        )
    )


def _move_head(session: Session, snapshot: Snapshot, trace_id: str) -> None:
    # Moves of one series one after another: which head came last must not depend on whose commit was faster.
    number = int(fingerprint(["head", snapshot.symbol, snapshot.schema])[:15], 16)
    session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
    head = session.scalars(_newest_head(snapshot.symbol, snapshot.schema)).first()
    if head is not None and head.snapshot_id == snapshot.snapshot_id:
        return
    session.add(
        SeriesHead(
            symbol=snapshot.symbol,
            schema=snapshot.schema,
            dataset=snapshot.dataset,
            source_key=str(snapshot.provenance.get("source_key", "")),
            snapshot_id=snapshot.snapshot_id,
            trace_id=trace_id,
        )
    )


def _newest_head(symbol: str, schema: str) -> Select[SeriesHead]:
    return (
        select(SeriesHead)
        .where(SeriesHead.symbol == symbol, SeriesHead.schema == schema)
        .order_by(SeriesHead.created_at.desc(), SeriesHead.id.desc())
        .limit(1)
    )


def current_head(store: Store, symbol: str, schema: str) -> SeriesHead | None:
    """The row that says which snapshot of a series counts now; None where the series has none."""
    with store.session() as session:
        head = session.scalars(_newest_head(symbol, schema)).first()
        if head is not None:
            session.expunge(head)
        return head


def get_snapshot(store: Store, snapshot_id: str) -> Snapshot:
    """The snapshot with this id; :class:`InvalidRequest` (``SNAPSHOT_MISSING``) when there is none."""
    with store.session() as session:
        snapshot = session.get(Snapshot, snapshot_id)
        if snapshot is None:
            raise InvalidRequest(
                Reason(
                    ReasonCode.SNAPSHOT_MISSING,
                    f"there is no snapshot {snapshot_id}",
                    "List snapshots with `blaid status`, or pull or ingest the series.",
                    {"snapshot_id": snapshot_id},
                )
            )
        session.refresh(snapshot)
        session.expunge(snapshot)
        return snapshot


def load_bars(store: Store, lake: Path, snapshot: Snapshot) -> Bars:
    """The bars of a snapshot, every file's bytes and the whole content checked against the store's row.

    The row is read again: what the caller holds is not trusted. Raises :class:`Refused`: ``SNAPSHOT_REMOVED`` where a
    clean-up took its files, ``SNAPSHOT_CORRUPT`` where they are gone otherwise or do not hold its bars.
    """
    row = get_snapshot(store, snapshot.snapshot_id)
    parts = [FilePart(entry["path"], entry["sha256"], entry["start_ns"], entry["end_ns"]) for entry in row.files]
    with store.session() as session:
        _check_there(session, lake, parts)
    bars = read_parts(lake, parts)
    content_hash = bars.content_hash()
    if content_hash != row.content_hash or len(bars) != row.bar_count:
        raise Refused(
            Reason(
                ReasonCode.SNAPSHOT_CORRUPT,
                f"the files of snapshot {row.snapshot_id} do not hold its bars",
                "Restore the lake from a backup, or pull its whole range or ingest its files again.",
                {
                    "snapshot_id": row.snapshot_id,
                    "content_hash": row.content_hash,
                    "found_content_hash": content_hash,
                    "bar_count": row.bar_count,
                    "found_bar_count": len(bars),
                },
            )
        )
    return bars


def resolve_snapshot(store: Store, instrument: str, symbol: str | None, schema: str) -> Snapshot:
    """The snapshot at the head of a series of ``instrument``, judged or not: what bots on it read.

    That is what was pulled or ingested last, whether it was new then or had been there before; a pull of a part of
    what the head holds already does not change it (:func:`create_snapshot`). Without ``symbol`` the instrument's only
    series counts, or its lead continuous series ``X.c.0`` among several. Raises :class:`Refused` with
    ``SNAPSHOT_MISSING`` or ``SNAPSHOT_AMBIGUOUS``.
    """
    of_instrument = (Snapshot.instrument == instrument, Snapshot.schema == schema)
    with store.session() as session:
        symbols = sorted(session.scalars(select(Snapshot.symbol).where(*of_instrument).distinct()))
        chosen = symbol if symbol is not None else _only(instrument, schema, symbols)
        head = None if chosen is None else session.scalars(_newest_head(chosen, schema)).first()
        found = None if head is None else session.get_one(Snapshot, head.snapshot_id)
        if found is not None and found.instrument == instrument:
            session.expunge(found)
            return found
    wanted = chosen or f"{instrument}.c.0"
    raise Refused(
        Reason(
            ReasonCode.SNAPSHOT_MISSING,
            f"there are no {schema} bars of {chosen or instrument}",
            f"Run `blaid pull {wanted} --schema {schema} --start D --end D`, or `blaid ingest FILE --symbol {wanted}`.",
            {"instrument": instrument, "symbol": symbol, "schema": schema, "series_present": symbols},
        )
    )


def _only(instrument: str, schema: str, symbols: Sequence[str]) -> str | None:
    if len(symbols) <= 1:
        return symbols[0] if symbols else None
    lead = f"{instrument}.c.0"
    if lead in symbols and is_continuous(lead):
        return lead
    raise Refused(
        Reason(
            ReasonCode.SNAPSHOT_AMBIGUOUS,
            f"{instrument} has several {schema} series: {', '.join(symbols)}",
            "Name the series that the bot reads, such as --symbol " + symbols[0] + ".",
            {"instrument": instrument, "schema": schema, "series_present": list(symbols)},
        )
    )


def verdict_of(store: Store, snapshot_id: str) -> QualityVerdict | None:
    """The newest verdict on a snapshot, or None when it was never judged."""
    with store.session() as session:
        verdict = session.scalars(
            select(QualityVerdict)
            .where(QualityVerdict.snapshot_id == snapshot_id)
            .order_by(QualityVerdict.created_at.desc(), QualityVerdict.id.desc())
            .limit(1)
        ).first()
        if verdict is not None:
            session.expunge(verdict)
        return verdict


def require_pass(store: Store, snapshot: Snapshot, policy_hash: str | None = None) -> QualityVerdict:
    """The passing verdict on ``snapshot``, or :class:`Refused`.

    ``DATA_QUALITY_FAILED`` carries the verdict's own reasons. ``DATA_QUALITY_UNKNOWN`` where the verdict is missing, of
    another suite version, bound to other content or, with ``policy_hash``, given under another policy.
    """
    verdict = verdict_of(store, snapshot.snapshot_id)
    numbers: dict[str, Any] = {"snapshot_id": snapshot.snapshot_id, "symbol": snapshot.symbol}
    if verdict is None:
        raise _unknown("it was never judged", numbers)
    numbers["verdict_id"] = str(verdict.id)
    if verdict.content_hash != snapshot.content_hash:
        raise _unknown("its verdict is about other bars", numbers)
    if verdict.suite_version != SUITE_VERSION:
        raise _unknown(f"its verdict is of suite {verdict.suite_version}, now it is {SUITE_VERSION}", numbers)
    if policy_hash is not None and verdict.policy_hash != policy_hash:
        raise _unknown("its verdict was given under another policy", numbers)
    checks = verdict.checks
    if verdict.status == "PASS" and not verdict.reasons and all(check["status"] == "PASS" for check in checks):
        if {check["name"] for check in checks} != set(QUALITY_CHECKS):
            raise _unknown("its verdict does not hold every check of the gate", numbers)
        return verdict
    reasons = [
        Reason(ReasonCode(entry["code"]), entry["message"], entry["suggested_fix"], entry["numbers"])
        for entry in verdict.reasons
    ]
    codes = [reason.code.value for reason in reasons]
    raise Refused(
        Reason(
            ReasonCode.DATA_QUALITY_FAILED,
            f"the bars of {snapshot.symbol} failed the quality gate: {', '.join(codes)}",
            "Read the reasons; take the bars from a sound source, or pull or ingest a range or file that is sound.",
            {**numbers, "codes": codes},
        ),
        *reasons,
    )


def _unknown(why: str, numbers: Mapping[str, Any]) -> Refused:
    return Refused(
        Reason(
            ReasonCode.DATA_QUALITY_UNKNOWN,
            f"the snapshot has no verdict that counts: {why}",
            "Run the asset quality_verdict on this snapshot, or pull its very range or ingest its files again.",
            numbers,
        )
    )
