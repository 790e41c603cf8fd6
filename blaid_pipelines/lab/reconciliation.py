"""Holding a snapshot against a second account of its bars: daily bars, other copies in the lake, the backup provider.

Here the second account is found and the result is written; what counts as a difference is ``market.reconcile``'s. Where
there is nothing to compare with, the answer is UNKNOWN and no row is written: nobody has looked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import select

from blaid_pipelines.jobs.machine import JobType
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.lab.series import as_job
from blaid_pipelines.market.bars import DAY_NS, Bars, bar_nanos, from_ns, to_ns
from blaid_pipelines.market.instruments import InstrumentSpec, get_instrument
from blaid_pipelines.market.lake.files import read_file as read_bar_file
from blaid_pipelines.market.lake.snapshots import current_head, get_snapshot, load_bars
from blaid_pipelines.market.purchase.backup import BACKUP, STILL_COMING, bars_of_massive
from blaid_pipelines.market.reconcile import KINDS, Comparison, compare_bars, compare_daily, record_reconciliation
from blaid_pipelines.market.reconcile.comparison import looked_at, nothing_compared
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.market.spans import Span
from blaid_pipelines.proof.recorder import CallContext
from blaid_pipelines.reasons import BlaidError, InvalidRequest, Reason, ReasonCode, Refused
from blaid_pipelines.store.tables import LakeSegment, Snapshot


@dataclass(frozen=True, slots=True)
class DailyBars:
    """Daily bars to hold minutes against: of a file, or (``path`` None) of the series' own ohlcv-1d in the lake.

    ``convention`` says what a day is in them; ``auto`` finds out. ``stamp`` and ``tz`` as for an ingest.
    """

    path: Path | None = None
    convention: str = "auto"
    stamp: str | None = None
    tz: str | None = None


@dataclass(frozen=True)
class ReconcileRequest:
    """Which snapshot to hold against what. ``start`` and ``end`` narrow the bars that the backup is asked for."""

    snapshot_id: str
    kind: str
    daily: DailyBars = DailyBars()
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class ReconcileOutcome:
    """What was found. ``other``: what the snapshot was held against; ``reconciliation_id`` is None without a row."""

    snapshot: Snapshot
    kind: str
    status: str
    reasons: tuple[Reason, ...]
    numbers: dict[str, Any]
    request_ids: list[UUID]
    other: dict[str, Any]
    trace_id: str
    reconciliation_id: UUID | None

    @property
    def metadata(self) -> dict[str, Any]:
        """JSON-ready, for events and scripts."""
        return {
            "trace_id": self.trace_id,
            "request_ids": [str(request_id) for request_id in self.request_ids],
            "snapshot_id": self.snapshot.snapshot_id,
            "content_hash": self.snapshot.content_hash,
            "symbol": self.snapshot.symbol,
            "kind": self.kind,
            "status": self.status,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "numbers": self.numbers,
            "other": self.other,
            "reconciliation_id": None if self.reconciliation_id is None else str(self.reconciliation_id),
        }


@dataclass(frozen=True)
class _Found:
    comparison: Comparison
    other: dict[str, Any]
    request_ids: list[UUID]
    simulated: bool
    compared: int


def reconcile_series(
    lab: LabContext, request: ReconcileRequest, *, dagster_run_id: str | None = None
) -> ReconcileOutcome:
    """:func:`reconcile_snapshot` as one RECONCILE job with a trace id of its own."""

    def work(context: CallContext) -> ReconcileOutcome:
        return reconcile_snapshot(lab, context, request)

    _, outcome = as_job(lab, JobType.RECONCILE, work, dagster_run_id)
    return outcome


def head_snapshot(lab: LabContext, symbol: str, schema: str) -> Snapshot:
    """The snapshot that bots on a series read now. Raises :class:`InvalidRequest` (``SNAPSHOT_MISSING``)."""
    get_instrument(lab.store, symbol)
    head = current_head(lab.store, symbol, schema)
    if head is None:
        raise InvalidRequest(
            Reason(
                ReasonCode.SNAPSHOT_MISSING,
                f"there are no {schema} bars of {symbol} to reconcile",
                f"Run `blaid pull {symbol} --start D --end D`, or `blaid ingest FILE --symbol {symbol}`.",
                {"symbol": symbol, "schema": schema},
            )
        )
    return get_snapshot(lab.store, head.snapshot_id)


def reconcile_snapshot(lab: LabContext, context: CallContext, request: ReconcileRequest) -> ReconcileOutcome:
    """Hold one snapshot against another account of its bars and write what was found.

    PASS, FAIL or UNKNOWN is an answer, not an error. Raises what reading the snapshot, the file or the provider raises,
    and :class:`InvalidRequest` for a comparison that makes no sense.
    """
    if request.kind not in KINDS:
        raise _invalid(f"there is no reconciliation {request.kind!r}", f"Use one of: {', '.join(KINDS)}.")
    snapshot = get_snapshot(lab.store, request.snapshot_id)
    spec = get_instrument(lab.store, snapshot.symbol)
    bars = load_bars(lab.store, lab.lake, snapshot)
    if request.kind == "daily":
        found = _against_daily(lab, snapshot, spec, bars, request.daily)
    elif request.kind == "overlap":
        found = _against_copies(lab, snapshot, spec, bars)
    else:
        found = _against_backup(lab, context, snapshot, spec, bars, request)
    row = None
    if found.compared or found.comparison.status != "UNKNOWN":
        row = record_reconciliation(
            lab.store,
            snapshot,
            found.comparison,
            other=found.other,
            policy_hash=lab.policy.hash,
            request_ids=found.request_ids,
            simulated=found.simulated,
            trace_id=context.trace_id,
        )
    return ReconcileOutcome(
        snapshot,
        request.kind,
        found.comparison.status,
        found.comparison.reasons,
        found.comparison.numbers,
        found.request_ids,
        found.other,
        context.trace_id,
        None if row is None else row.id,
    )


# daily bars


def _against_daily(lab: LabContext, snapshot: Snapshot, spec: InstrumentSpec, bars: Bars, asked: DailyBars) -> _Found:
    if bar_nanos(snapshot.schema) >= DAY_NS:
        raise _invalid(f"{snapshot.schema} bars are daily bars themselves", "Reconcile minutes or hours.")
    if asked.path is not None:
        daily, other, simulated = _daily_file(snapshot, asked)
    else:
        daily, other, simulated = _daily_series(lab, snapshot)
    bars, daily = _same_names(snapshot.symbol, bars, daily)
    covered = to_ns(snapshot.range_start), to_ns(snapshot.range_end)
    sessions = load_sessions(spec.session, covered[0] - 3 * DAY_NS, covered[1] + 3 * DAY_NS)
    comparison = compare_daily(
        bars,
        daily,
        sessions,
        lab.policy.reconciliation,
        tick_nanos=spec.tick_nanos,
        convention=asked.convention,
        covered=covered,
    )
    return _Found(comparison, other, [], simulated, comparison.numbers["sessions"])


def _daily_file(snapshot: Snapshot, asked: DailyBars) -> tuple[Bars, dict[str, Any], bool]:
    from blaid_pipelines.market.intake.files import read_file
    from blaid_pipelines.market.intake.reading import Ask

    assert asked.path is not None
    file = read_file(asked.path, Ask(snapshot.symbol, "ohlcv-1d", asked.stamp, asked.tz))
    return file.bars, {"source": "file", "name": file.name, "sha256": file.sha256}, file.simulated


def _daily_series(lab: LabContext, snapshot: Snapshot) -> tuple[Bars, dict[str, Any], bool]:
    head = current_head(lab.store, snapshot.symbol, "ohlcv-1d")
    if head is None:
        raise InvalidRequest(
            Reason(
                ReasonCode.SNAPSHOT_MISSING,
                f"there are no daily bars of {snapshot.symbol} in the lake",
                f"Name a file (--daily FILE), or pull them: `blaid pull {snapshot.symbol} --schema ohlcv-1d ...`.",
                {"symbol": snapshot.symbol},
            )
        )
    daily = get_snapshot(lab.store, head.snapshot_id)
    other = {
        "source": daily.provenance.get("source"),
        "source_key": daily.provenance.get("source_key"),
        "snapshot_id": daily.snapshot_id,
        "content_hash": daily.content_hash,
    }
    return load_bars(lab.store, lab.lake, daily), other, daily.simulated


def _same_names(symbol: str, bars: Bars, daily: Bars) -> tuple[Bars, Bars]:
    """Both under the series' name where the daily bars name no contracts; else only the contracts that we hold."""
    if set(daily.contracts) == {symbol} and set(bars.contracts) != {symbol}:
        return replace(bars, contract=np.zeros(len(bars), np.int32), contracts=(symbol,)), daily
    ours = np.array([name in bars.contracts for name in daily.contracts], np.bool_)
    return bars, daily.take(ours[daily.contract]) if len(daily) else daily


# other copies in the lake


def _against_copies(lab: LabContext, snapshot: Snapshot, spec: InstrumentSpec, bars: Bars) -> _Found:
    """Every other bar file of the series that answers for a part of the range, whichever pull or file it came from."""
    parts: list[Bars] = []
    ours: list[Bars] = []
    spans: list[Span] = []
    copies, unreadable = [], 0
    for segment, span in _copies(lab, snapshot):
        try:
            copy = read_bar_file(lab.lake, segment.path, segment.file_sha256)
        except Refused:
            unreadable += 1
            continue
        copies.append({"path": segment.path, "sha256": segment.file_sha256, "source_key": segment.source_key})
        spans.append(span)
        parts.append(copy.slice(*span))
        ours.append(bars.slice(*span))
    comparisons = [
        compare_bars(mine, copy, lab.policy.reconciliation, tick_nanos=spec.tick_nanos, kind="overlap")
        for mine, copy in zip(ours, parts, strict=True)
    ]
    comparison = _together(comparisons, copies)
    comparison.numbers["unreadable_copies"] = unreadable
    reached = [span for span, item in zip(spans, comparisons, strict=True) if item.status != "UNKNOWN"]
    inside = np.zeros(len(bars), np.bool_)
    for left, right in reached:
        inside |= (left <= bars.ts_open) & (bars.ts_open < right)
    comparison.numbers.update(looked_at(reached, int(inside.sum()), len(bars)))
    compared = sum(1 for item in comparisons if item.status != "UNKNOWN")
    return _Found(comparison, {"source": "lake", "copies": copies[:100]}, [], snapshot.simulated, compared)


def _copies(lab: LabContext, snapshot: Snapshot) -> list[tuple[LakeSegment, Span]]:
    """Segments that the snapshot does not use where they overlap it, of the same provider or from files."""
    query = (
        select(LakeSegment)
        .where(
            LakeSegment.schema == snapshot.schema,
            LakeSegment.symbol == snapshot.symbol,
            LakeSegment.simulated.is_(snapshot.simulated),
            LakeSegment.range_start < snapshot.range_end,
            LakeSegment.range_end > snapshot.range_start,
        )
        .order_by(LakeSegment.range_start, LakeSegment.created_at, LakeSegment.id)
    )
    used: dict[str, list[Span]] = {}
    for entry in snapshot.files:
        used.setdefault(entry["path"], []).append((entry["start_ns"], entry["end_ns"]))
    own = snapshot.provenance.get("source")
    found = []
    with lab.store.session() as session:
        for segment in session.scalars(query):
            source = segment.provenance.get("source")
            if BACKUP in (own, source) and own != source:
                continue  # two providers are compared as such, with room for small differences
            span = (
                max(to_ns(segment.range_start), to_ns(snapshot.range_start)),
                min(to_ns(segment.range_end), to_ns(snapshot.range_end)),
            )
            if span not in used.get(segment.path, []) and segment.path not in used:
                found.append((segment, span))
        session.expunge_all()
    return found


def _together(comparisons: Sequence[Comparison], copies: Sequence[dict[str, Any]]) -> Comparison:
    """One answer for several copies: the worst of them, its differences named, the counts added up."""
    judged = [item for item in comparisons if item.status != "UNKNOWN"]
    if not judged:
        numbers: dict[str, Any] = {"copies": len(copies), "common": 0}
        text = "no other copy of these bars is in the lake" if not copies else "the other copies hold no bars"
        return Comparison("overlap", "UNKNOWN", (nothing_compared(text, numbers),), numbers)
    failed = [item for item in judged if item.status == "FAIL"]
    worst = max(failed or judged, key=lambda item: item.numbers["price_differs"] + item.numbers["volume_differs"])
    counts = ("common", "only_ours", "only_other", "price_differs", "volume_differs")
    named = ("first_differing", "first_only_ours", "first_only_other")
    numbers = {
        **worst.numbers,
        **{name: sum(item.numbers[name] for item in judged) for name in counts},
        **{name: [entry for item in judged for entry in item.numbers[name]] for name in named},
        "copies": len(copies),
        "differing_copies": len(failed),
    }
    between = [item.numbers.get("differ_between", ()) for item in failed]
    numbers.pop("differ_between", None)
    if failed and all(between):
        numbers["differ_between"] = [min(first for first, _ in between), max(last for _, last in between)]
    reasons = tuple(reason for item in failed for reason in item.reasons)
    return Comparison("overlap", "FAIL" if failed else "PASS", reasons, numbers)


# the backup provider


def _against_backup(
    lab: LabContext,
    context: CallContext,
    snapshot: Snapshot,
    spec: InstrumentSpec,
    bars: Bars,
    request: ReconcileRequest,
) -> _Found:
    from blaid_pipelines.providers.massive.client import MassiveRest

    if snapshot.provenance.get("source") == BACKUP:
        raise _invalid("these bars are the backup provider's own", "Reconcile bars of the configured provider.")
    start = to_ns(request.start) if request.start is not None else to_ns(snapshot.range_start)
    end = to_ns(request.end) if request.end is not None else to_ns(snapshot.range_end)
    reach = [max(start, to_ns(snapshot.range_start)), min(end, to_ns(snapshot.range_end))]
    bars = bars.slice(start, end)
    step = bar_nanos(snapshot.schema)
    client = MassiveRest(lab.settings, lab.recorder, context)
    theirs: list[Bars] = []
    asked: list[dict[str, Any]] = []
    simulated = False
    for code, contract in enumerate(bars.contracts):
        own = bars.ts_open[bars.contract == code]
        if not len(own):
            continue
        span = (int(own.min()), int(own.max()) + step)
        found, _ = client.get_bars(contract, snapshot.schema, from_ns(span[0]), from_ns(span[1]))
        theirs.append(bars_of_massive(found))
        simulated = simulated or found.simulated
        asked.append({"contract": contract, "start": from_ns(span[0]).isoformat(), "end": from_ns(span[1]).isoformat(),
                      "delayed": found.delayed})  # fmt: skip
        newest = int(found.ts_open[-1]) if len(found) else span[0]
        if found.delayed and from_ns(span[1]) > lab.clock() - STILL_COMING:
            bars = bars.take((bars.contract != code) | (bars.ts_open <= newest))
            reach[1] = min(reach[1], newest + step)
    comparison = compare_bars(bars, Bars.concat(theirs), lab.policy.reconciliation, tick_nanos=spec.tick_nanos)
    comparison.numbers.update(looked_at([(reach[0], reach[1])], comparison.numbers["common"], snapshot.bar_count))
    other = {"source": BACKUP, "source_key": f"{BACKUP}:{lab.settings.massive_url}", "asked": asked}
    return _Found(comparison, other, list(client.succeeded), simulated, comparison.numbers["common"])


def _invalid(message: str, fix: str) -> BlaidError:
    return InvalidRequest(Reason(ReasonCode.INVALID_REQUEST, message, fix))
