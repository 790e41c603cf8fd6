"""Rows of what was compared, and the refusal of a snapshot whose comparison did not pass.

A FAIL or UNKNOWN refuses whatever the policy requires: somebody looked and did not find the bars confirmed. Only a
later PASS of its kind lifts it: under the policy in force, on evidence that is no less real, over no less of the bars.
A PASS serves a requirement only under the policy in force, on evidence that is as real as the snapshot, and over enough
of it. Rows count for content: the same bars in a snapshot of another name are as confirmed, or not, as these. And a
FAIL or UNKNOWN goes with its bar files: every snapshot of the series that uses a doubted stretch of them inherits it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import and_, or_, select

from blaid_pipelines.market.bars import to_ns
from blaid_pipelines.market.lake.files import FilePart
from blaid_pipelines.market.reconcile.comparison import KINDS, Comparison
from blaid_pipelines.market.reconcile.thresholds import ReconciliationThresholds
from blaid_pipelines.market.spans import Span, overlap, uncovered
from blaid_pipelines.reasons import Reason, ReasonCode, Refused
from blaid_pipelines.store.tables import Reconciliation, Snapshot

if TYPE_CHECKING:
    from blaid_pipelines.store.database import Store


def record_reconciliation(
    store: Store,
    snapshot: Snapshot,
    comparison: Comparison,
    *,
    other: Mapping[str, Any],
    policy_hash: str,
    request_ids: Sequence[UUID],
    simulated: bool,
    trace_id: str,
) -> Reconciliation:
    """Write one row. ``other`` says what the snapshot was held against; ``simulated`` whether either side is."""
    row = Reconciliation(
        snapshot_id=snapshot.snapshot_id,
        content_hash=snapshot.content_hash,
        kind=comparison.kind,
        other=dict(other),
        status=comparison.status,
        policy_hash=policy_hash,
        numbers=comparison.numbers,
        reasons=[reason.as_dict() for reason in comparison.reasons],
        request_ids=[str(request_id) for request_id in request_ids],
        simulated=simulated or snapshot.simulated,
        trace_id=trace_id,
    )
    with store.session() as session:
        session.add(row)
        session.flush()
        session.refresh(row)
        session.expunge(row)
    return row


@dataclass(frozen=True, slots=True)
class Finding:
    """A row, and a snapshot that it is about: the one that was compared, or another of the same bars."""

    row: Reconciliation
    about: Snapshot


def findings_of_series(store: Store, snapshot: Snapshot) -> dict[str, list[Finding]]:
    """The rows about a snapshot, its content or any snapshot of its series, by kind, newest first."""
    query = (
        select(Reconciliation, Snapshot)
        .join(
            Snapshot,
            or_(
                Snapshot.snapshot_id == Reconciliation.snapshot_id,
                Snapshot.content_hash == Reconciliation.content_hash,
            ),
        )
        .where(
            or_(
                Reconciliation.snapshot_id == snapshot.snapshot_id,
                Reconciliation.content_hash == snapshot.content_hash,
                and_(Snapshot.symbol == snapshot.symbol, Snapshot.schema == snapshot.schema),
            )
        )
        .order_by(Reconciliation.created_at.desc(), Reconciliation.id.desc())
    )
    found: dict[str, list[Finding]] = {}
    with store.session() as session:
        for row, about in session.execute(query):
            found.setdefault(row.kind, []).append(Finding(row, about))
        session.expunge_all()
    return found


def require_reconciled(
    store: Store, snapshot: Snapshot, policy_hash: str, thresholds: ReconciliationThresholds
) -> list[Reconciliation]:
    """The newest row of each kind about these very bars where nothing stands against them, or :class:`Refused`.

    ``RECONCILIATION_FAILED`` where a FAIL or UNKNOWN of any kind stands, its own or inherited, with that row's own
    reasons; ``RECONCILIATION_MISSING`` where policy requires a kind that has no row that counts.
    """
    known = findings_of_series(store, snapshot)
    bad = [row for kind in sorted(known) if (row := standing(known[kind], snapshot, policy_hash)) is not None]
    if bad:
        kinds = [row.kind for row in bad]
        inherited = [row for row in bad if not _is_own(row, snapshot)]
        raise Refused(
            Reason(
                ReasonCode.RECONCILIATION_FAILED,
                f"the bars of {snapshot.symbol} were held against another account and not confirmed: "
                + ", ".join(_named(row, snapshot) for row in bad),
                "Read the reasons; take the bars that differ anew, then run `blaid reconcile` again, over no less.",
                {
                    "snapshot_id": snapshot.snapshot_id,
                    "symbol": snapshot.symbol,
                    "kinds": kinds,
                    "reconciliation_ids": [str(row.id) for row in bad],
                    "inherited": [
                        {"reconciliation_id": str(row.id), "snapshot_id": row.snapshot_id} for row in inherited
                    ],
                },
            ),
            *(
                Reason(ReasonCode(entry["code"]), entry["message"], entry["suggested_fix"], entry["numbers"])
                for row in bad
                for entry in row.reasons
            ),
        )
    own = {
        kind: rows
        for kind in sorted(known)
        if (rows := [finding.row for finding in known[kind] if _is_own(finding.row, snapshot)])
    }
    missing = [
        (kind, why)
        for kind in KINDS
        if getattr(thresholds.required, kind)
        and (why := _not_serving(own.get(kind, []), snapshot, policy_hash, thresholds.min_required_share_pct))
    ]
    if missing:
        kind, why = missing[0]
        raise Refused(
            Reason(
                ReasonCode.RECONCILIATION_MISSING,
                f"policy requires a {kind} reconciliation of {snapshot.symbol}: {why}",
                f"Run `blaid reconcile {snapshot.symbol} --with {kind}`.",
                {"snapshot_id": snapshot.snapshot_id, "missing": dict(missing)},
            )
        )
    return [rows[0] for rows in own.values()]


def standing(findings: Sequence[Finding], snapshot: Snapshot, policy_hash: str) -> Reconciliation | None:
    """The newest row of one kind (newest first) that refuses the snapshot and that no later PASS lifts."""
    passed: list[Finding] = []
    for finding in findings:
        row = finding.row
        if row.snapshot_id == snapshot.snapshot_id and row.content_hash != snapshot.content_hash:
            return row
        if row.status == "PASS":
            if row.policy_hash == policy_hash:
                passed.append(finding)
            continue
        bars = _parts(snapshot) if _is_own(row, snapshot) else _doubted(finding, snapshot)
        concerned = bool(bars) or _is_own(row, snapshot)
        if concerned and not any(_lifts(later, finding, bars, snapshot) for later in passed):
            return row
    return None


def _is_own(row: Reconciliation, snapshot: Snapshot) -> bool:
    """Whether a row is about these very bars, and not about others of which some are the same."""
    return row.snapshot_id == snapshot.snapshot_id or row.content_hash == snapshot.content_hash


def _named(row: Reconciliation, snapshot: Snapshot) -> str:
    if _is_own(row, snapshot):
        return f"{row.kind} {row.status}"
    return f"{row.kind} {row.status} (reconciliation {row.id} of snapshot {row.snapshot_id[:16]}, which shares bars)"


def _lifts(later: Finding, finding: Finding, bars: Sequence[FilePart], snapshot: Snapshot) -> bool:
    """Whether a PASS looked at ``bars`` too, which are as real as those of a FAIL, and over all of the FAIL's range."""
    if later.row.simulated and not finding.row.simulated:
        return False
    if later.row.content_hash != snapshot.content_hash:
        held = _parts(later.about)
        if any(uncovered(_span(part), [_span(other) for other in held if _same_file(part, other)]) for part in bars):
            return False
    reached = _compared(later.row)
    whole = (to_ns(finding.about.range_start), to_ns(finding.about.range_end))
    return not any(uncovered(span, reached) for span in _compared(finding.row) or [whole])


def _doubted(finding: Finding, snapshot: Snapshot) -> list[FilePart]:
    """The stretches of bar files that ``snapshot`` shares with the snapshot of a FAIL, where the two accounts differ.

    Where they differ is known of an ``overlap``; else all that the FAIL's snapshot holds is in doubt.
    """
    differ = finding.row.numbers.get("differ_between")
    range_ = None if differ is None else (_ns(differ[0]), _ns(differ[1]) + 1_000)
    shared = []
    for ours in _parts(snapshot):
        for theirs in _parts(finding.about):
            if _same_file(ours, theirs) and overlap(_span(ours), _span(theirs)):
                start, end = max(ours.start_ns, theirs.start_ns), min(ours.end_ns, theirs.end_ns)
                if range_ is None or overlap(range_, (start, end)):
                    shared.append(FilePart(ours.path, ours.sha256, start, end))
    return shared


def _parts(snapshot: Snapshot) -> list[FilePart]:
    return [FilePart(**entry) for entry in snapshot.files]


def _same_file(left: FilePart, right: FilePart) -> bool:
    return (left.path, left.sha256) == (right.path, right.sha256)


def _span(part: FilePart) -> Span:
    return part.start_ns, part.end_ns


def _compared(row: Reconciliation) -> list[Span]:
    """The spans that a comparison covered; none where its row does not say."""
    return [(_ns(start), _ns(end)) for start, end in row.numbers.get("compared", []) if start != end]


def _ns(text: str) -> int:
    return to_ns(datetime.fromisoformat(text))


def _not_serving(
    rows: Sequence[Reconciliation], snapshot: Snapshot, policy_hash: str, min_share_pct: float
) -> str | None:
    """Why no row of one kind (newest first) meets a requirement: what is wrong with the newest; None where one does."""
    whys = [_why_not(row, snapshot, policy_hash, min_share_pct) for row in rows]
    return None if None in whys else (whys or ["there is none"])[0]


def _why_not(row: Reconciliation, snapshot: Snapshot, policy_hash: str, min_share_pct: float) -> str | None:
    if row.status != "PASS":
        return "it did not pass"
    if row.policy_hash != policy_hash:
        return "it was made under another policy"
    if row.simulated and not snapshot.simulated:
        return "it rests on simulated bars"
    share = row.numbers.get("compared_share_pct", 0.0)
    if share < min_share_pct:
        return f"it covers {share} % of the snapshot, {min_share_pct} % are required"
    return None
