"""Taking bar files out of the lake that nothing worth keeping cites; what the lake holds, by what cites it.

A file stays while a snapshot cites it that a promotion decision, a backtest session, a reconciliation or the head of a
series names, or that is the newest judged one of its series and source. It also stays where it was paid for and would
have to be bought again, unless the caller says else. What goes is named in ``lake_removals`` before it goes, so that a
snapshot which loses a file can say so. Other files of the lake (trades, equity curves) are not looked at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, union
from sqlalchemy.dialects.postgresql import distinct_on

from blaid_pipelines.market.bars import to_ns
from blaid_pipelines.market.lake.identity import check_lake
from blaid_pipelines.market.lake.verified import VerifiedFiles
from blaid_pipelines.market.locks import LAKE, NotHad, exclusive
from blaid_pipelines.market.purchase.budget import RANGE_ENDPOINT
from blaid_pipelines.market.purchase.spool import FOLDER as INCOMING
from blaid_pipelines.market.spans import Span, overlap, uncovered
from blaid_pipelines.reasons import Reason, ReasonCode, Refused, StopAndFix
from blaid_pipelines.store.tables import (
    BacktestSession,
    BotJob,
    LakeRemoval,
    LakeSegment,
    PromotionDecision,
    ProviderRequest,
    QualityVerdict,
    Reconciliation,
    SeriesHead,
    Snapshot,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from blaid_pipelines.store.database import Store

BARS = "bars"
DEFAULT_AGE_HOURS = 24.0
FILE_SOURCE = "file"
"""Source key of bars from files: they cost nothing to bring back."""
_LOCK_WAIT_S = 60
_BATCH = 100
_SHOWN = 20

CITED = "cited"
BOUGHT = "bought"
YOUNG = "young"
SUPERSEDED = "superseded"
ORPHAN = "orphan"
LEFTOVER = "leftover"
KINDS = {
    CITED: "bars that a decision, backtest, reconciliation, series head or newest verdict rests on",
    BOUGHT: "bars that nothing rests on, and that would have to be bought again",
    SUPERSEDED: "bars that nothing rests on any more, taken from files or spoilt",
    ORPHAN: "bar files that were written and never recorded",
    LEFTOVER: "unfinished files and replies that are in the lake already",
    YOUNG: "files that are too young to be judged: somebody may be about to record them",
}
"""What a file of the lake is, and what that means."""


@dataclass(frozen=True, slots=True)
class LakeFile:
    """One file of the lake: its path within it, its size, when it changed, what it is (:data:`KINDS`)."""

    path: str
    size: int
    mtime_ns: int
    kind: str
    sha256: str | None = None


@dataclass(frozen=True)
class LakeReport:
    """All files, those that a clean-up would remove, and cited ones that are not there."""

    files: list[LakeFile]
    removable: list[LakeFile]
    missing: list[str]


@dataclass(frozen=True)
class CleanResult:
    """What a clean-up removed, and what it left because it changed or became cited meanwhile."""

    removed: list[LakeFile]
    kept: list[LakeFile]

    @property
    def bytes_removed(self) -> int:
        return sum(file.size for file in self.removed)


def lake_report(
    store: Store, lake: Path, now: datetime, *, age_hours: float = DEFAULT_AGE_HOURS, bought: bool = False
) -> LakeReport:
    """What the lake holds. ``bought``: bars that would have to be bought again count as removable too."""
    newest = to_ns(now) - round(age_hours * 3600 * 1e9)
    with store.session() as session:
        known = _Known.read(session)
    verified = VerifiedFiles(lake)
    files: list[LakeFile] = []
    for path in _listed(lake):
        with suppress(FileNotFoundError):  # a temporary file that became a whole one meanwhile
            files.append(known.look(lake, path, newest, verified))
    verified.save()
    goes = {SUPERSEDED, ORPHAN, LEFTOVER} | ({BOUGHT} if bought else set())
    missing = sorted(known.cited - {file.path for file in files})
    return LakeReport(files, [file for file in files if file.kind in goes], missing)


def clean_lake(
    store: Store,
    lake: Path,
    trace_id: str,
    now: datetime,
    *,
    age_hours: float = DEFAULT_AGE_HOURS,
    bought: bool = False,
    progress: Callable[[LakeFile], None] = lambda _: None,
) -> CleanResult:
    """Remove what :func:`lake_report` calls removable; may be stopped at any point and repeated.

    Nobody cites a file in a new snapshot while this runs, and what was cited meanwhile is looked up again before each
    batch goes. Raises :class:`Refused`: ``LAKE_MISMATCH`` for a lake that is not this database's or lacks most files
    that are cited, ``ALREADY_RUNNING`` beside another clean-up or a backtest; :class:`StopAndFix` where a file cannot
    be removed.
    """
    check_lake(store, lake)
    result = CleanResult([], [])
    try:
        with exclusive(store, LAKE, _LOCK_WAIT_S):
            report = lake_report(store, lake, now, age_hours=age_hours, bought=bought)
            there = sum(file.kind == CITED for file in report.files)
            if len(report.missing) > there:
                raise Refused(_not_whole(report.missing, there))
            for first in range(0, len(report.removable), _BATCH):
                batch = report.removable[first : first + _BATCH]
                going = _announce(store, lake, batch, trace_id)
                result.kept.extend(file for file in batch if file not in going)
                for file in going:
                    _unlink(lake, file)
                    result.removed.append(file)
                    progress(file)
    except NotHad as error:
        raise Refused(_busy(f"snapshots are being written, or another clean-up runs, for {_LOCK_WAIT_S} s")) from error
    return result


def cited_paths(session: Session) -> set[str]:
    """Paths of the bar files that must stay: those of every snapshot that something worth keeping names, and
    the copies that a reconciliation held a snapshot against."""
    heads = (
        select(SeriesHead.snapshot_id)
        .ext(distinct_on(SeriesHead.symbol, SeriesHead.schema))
        .order_by(SeriesHead.symbol, SeriesHead.schema, SeriesHead.created_at.desc(), SeriesHead.id.desc())
        .subquery()
    )
    judged = (
        select(Snapshot.snapshot_id)
        .join(QualityVerdict, QualityVerdict.snapshot_id == Snapshot.snapshot_id)
        .ext(distinct_on(Snapshot.dataset, Snapshot.schema, Snapshot.symbol, Snapshot.provenance["source_key"].astext))
        .order_by(
            Snapshot.dataset,
            Snapshot.schema,
            Snapshot.symbol,
            Snapshot.provenance["source_key"].astext,
            Snapshot.created_at.desc(),
            Snapshot.snapshot_id.desc(),
        )
        .subquery()
    )
    named = union(
        select(PromotionDecision.snapshot_id),
        select(BacktestSession.snapshot_id),
        select(Reconciliation.snapshot_id),
        select(heads.c.snapshot_id),
        select(judged.c.snapshot_id),
    )
    compared = {text for other in session.scalars(select(Reconciliation.other)) for text in _texts(other)}
    copies = session.scalars(select(LakeSegment.path).where(LakeSegment.path.in_(compared)))
    ids = {value for value in session.scalars(named) if value} | compared
    lists: Iterable[list[Any]] = session.scalars(select(Snapshot.files).where(Snapshot.snapshot_id.in_(ids)))
    return {entry["path"] for files in lists for entry in files} | set(copies)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value: what a reconciliation compared with is named somewhere in it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


@dataclass(frozen=True, slots=True)
class _Segment:
    """What is asked of a segment row here."""

    path: str
    sha256: str
    series: tuple[str, str, str, str]
    span: Span


@dataclass(frozen=True)
class _Known:
    """What the database says about the files of its lake."""

    cited: set[str]
    segments: dict[str, _Segment]
    kept: dict[tuple[str, str, str, str], list[_Segment]]
    recorded: set[str]
    paid: set[str]

    @staticmethod
    def read(session: Session) -> _Known:
        cited = cited_paths(session)
        query = select(
            LakeSegment.path,
            LakeSegment.file_sha256,
            LakeSegment.dataset,
            LakeSegment.schema,
            LakeSegment.symbol,
            LakeSegment.source_key,
            LakeSegment.range_start,
            LakeSegment.range_end,
            LakeSegment.provenance["request_ids"],
        )
        segments: dict[str, _Segment] = {}
        kept: dict[tuple[str, str, str, str], list[_Segment]] = {}
        recorded: set[str] = set()
        rows: Any = session.execute(query)
        for path, digest, dataset, schema, symbol, key, start, end, request_ids in rows:
            entry = _Segment(path, digest, (dataset, schema, symbol, key), (to_ns(start), to_ns(end)))
            segments[path] = entry
            recorded.update(request_ids or [])
            if path in cited:
                kept.setdefault(entry.series, []).append(entry)
        answered = select(ProviderRequest.id).where(
            ProviderRequest.endpoint == RANGE_ENDPOINT, ProviderRequest.success.is_(True)
        )
        paid = {str(request_id) for request_id in session.scalars(answered)}
        return _Known(cited, segments, kept, recorded, paid)

    def look(self, lake: Path, path: str, newest_ns: int, verified: VerifiedFiles) -> LakeFile:
        """What one file is. Raises ``FileNotFoundError``."""
        found = (lake / path).stat()
        segment = self.segments.get(path)
        digest = None if segment is None else segment.sha256
        return LakeFile(path, found.st_size, found.st_mtime_ns, self._kind(path, found, newest_ns, verified), digest)

    def _kind(self, path: str, found: os.stat_result, newest_ns: int, verified: VerifiedFiles) -> str:
        if path in self.cited:
            return CITED
        if max(found.st_mtime_ns, found.st_ctime_ns) > newest_ns:
            return YOUNG
        name = path.rpartition("/")[2]
        if name.startswith("."):
            return LEFTOVER
        if path.startswith(f"{INCOMING}/"):
            request_id = name.partition(".")[0]
            return BOUGHT if request_id in self.paid and request_id not in self.recorded else LEFTOVER
        segment = self.segments.get(path)
        if segment is None:
            return ORPHAN
        if segment.series[3] == FILE_SOURCE or not verified.intact(path, segment.sha256):
            return SUPERSEDED
        covered = [
            other.span
            for other in self.kept.get(segment.series, [])
            if overlap(other.span, segment.span) and verified.intact(other.path, other.sha256)
        ]
        return BOUGHT if uncovered(segment.span, covered) else SUPERSEDED


def _listed(lake: Path) -> list[str]:
    """Bar files, replies on their way, and what unfinished writes left of both; nothing else of the lake."""
    found = []
    for room, pattern in ((BARS, "*.parquet"), (INCOMING, "*.dbn.zst"), (BARS, ".*.tmp"), (INCOMING, ".*.tmp")):
        found += [path.relative_to(lake).as_posix() for path in (lake / room).rglob(pattern) if path.is_file()]
    return sorted(set(found))


def _announce(store: Store, lake: Path, batch: Sequence[LakeFile], trace_id: str) -> list[LakeFile]:
    """Put on record which files of a batch go now: those that are as they were looked at, and still cited by nobody."""
    with store.session() as session:
        running = session.scalar(
            select(func.count()).select_from(BotJob).where(BotJob.job_type == "BACKTEST", BotJob.status == "RUNNING")
        )
        if running:
            raise Refused(_busy(f"{running} backtests are running and may be reading what would go"))
        cited = cited_paths(session)
        going = [file for file in batch if file.path not in cited and _unchanged(lake, file)]
        query = select(LakeRemoval.path, func.max(LakeRemoval.created_at)).group_by(LakeRemoval.path)
        said = session.execute(query.where(LakeRemoval.path.in_([file.path for file in going])))
        announced = {row[0]: to_ns(row[1]) for row in said}
        for file in going:
            # A clean-up that was killed between the row and the file has said it already.
            if announced.get(file.path, 0) <= file.mtime_ns:
                session.add(
                    LakeRemoval(
                        path=file.path,
                        file_sha256=file.sha256,
                        file_bytes=file.size,
                        why=file.kind,
                        trace_id=trace_id,
                    )
                )
    return going


def _unchanged(lake: Path, file: LakeFile) -> bool:
    try:
        found = (lake / file.path).stat()
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime_ns) == (file.size, file.mtime_ns)


def _unlink(lake: Path, file: LakeFile) -> None:
    try:
        (lake / file.path).unlink(missing_ok=True)
    except OSError as error:
        raise StopAndFix(
            Reason(
                ReasonCode.INSTALLATION_BROKEN,
                f"a file of the lake cannot be removed: {error.strerror or error}",
                "Make the lake's folders writable for this user, then repeat: what is on record as removed goes first.",
                {"path": file.path},
            )
        ) from error


def _not_whole(missing: Sequence[str], there: int) -> Reason:
    return Reason(
        ReasonCode.LAKE_MISMATCH,
        f"of the bar files that something rests on the lake lacks {len(missing)} and has {there}: nothing is removed",
        "Point BLAID_LAKE at the whole lake, restore it from a backup, or pull or ingest what is missing again.",
        {"missing": list(missing[:_SHOWN]), "files_missing": len(missing), "files_there": there},
    )


def _busy(what: str) -> Reason:
    return Reason(ReasonCode.ALREADY_RUNNING, what, "Wait for it to end, then repeat.", {})
