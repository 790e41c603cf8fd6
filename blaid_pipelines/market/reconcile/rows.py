"""Rows of what was compared, and the refusal of a snapshot whose comparison did not pass.

A FAIL or UNKNOWN refuses whatever the policy requires: somebody looked and did not find the bars confirmed. Only a
later PASS of its kind lifts it: under the policy in force, on evidence that is no less real, over no less of the bars.
A PASS serves a requirement only under the policy in force and on evidence that is as real as the snapshot. Rows count
for content: the same bars in a snapshot of another name are as confirmed, or not, as these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import or_, select

from blaid_pipelines.market.reconcile.comparison import KINDS, Comparison
from blaid_pipelines.market.reconcile.thresholds import ReconciliationThresholds
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


def reconciliations_of(store: Store, snapshot: Snapshot) -> dict[str, list[Reconciliation]]:
    """The rows about a snapshot or its content by kind, newest first."""
    query = (
        select(Reconciliation)
        .where(
            or_(
                Reconciliation.snapshot_id == snapshot.snapshot_id,
                Reconciliation.content_hash == snapshot.content_hash,
            )
        )
        .order_by(Reconciliation.created_at.desc(), Reconciliation.id.desc())
    )
    rows: dict[str, list[Reconciliation]] = {}
    with store.session() as session:
        for row in session.scalars(query):
            rows.setdefault(row.kind, []).append(row)
        session.expunge_all()
    return rows


def require_reconciled(
    store: Store, snapshot: Snapshot, policy_hash: str, thresholds: ReconciliationThresholds
) -> list[Reconciliation]:
    """The newest row of each kind, all of which speak for ``snapshot``, or :class:`Refused`.

    ``RECONCILIATION_FAILED`` where a FAIL or UNKNOWN of any kind stands, with that row's own reasons;
    ``RECONCILIATION_MISSING`` where policy requires a kind that has no row that counts.
    """
    known = reconciliations_of(store, snapshot)
    rows = {kind: known[kind][0] for kind in sorted(known)}
    bad = [row for kind in rows if (row := _standing(known[kind], snapshot, policy_hash)) is not None]
    if bad:
        kinds = [row.kind for row in bad]
        raise Refused(
            Reason(
                ReasonCode.RECONCILIATION_FAILED,
                f"the bars of {snapshot.symbol} were held against another account and not confirmed: "
                + ", ".join(f"{row.kind} {row.status}" for row in bad),
                "Read the reasons; take the bars that differ anew, then run `blaid reconcile` again.",
                {
                    "snapshot_id": snapshot.snapshot_id,
                    "symbol": snapshot.symbol,
                    "kinds": kinds,
                    "reconciliation_ids": [str(row.id) for row in bad],
                },
            ),
            *(
                Reason(ReasonCode(entry["code"]), entry["message"], entry["suggested_fix"], entry["numbers"])
                for row in bad
                for entry in row.reasons
            ),
        )
    missing = [
        (kind, why)
        for kind in KINDS
        if getattr(thresholds.required, kind) and (why := _not_serving(rows.get(kind), snapshot, policy_hash))
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
    return list(rows.values())


def _standing(rows: Sequence[Reconciliation], snapshot: Snapshot, policy_hash: str) -> Reconciliation | None:
    """The newest row of one kind (newest first) that refuses the snapshot and that no later PASS lifts."""
    passed: list[Reconciliation] = []
    for row in rows:
        if row.content_hash != snapshot.content_hash:
            return row
        if row.status == "PASS":
            if row.policy_hash == policy_hash:
                passed.append(row)
        elif not any(_lifts(later, row) for later in passed):
            return row
    return None


def _lifts(later: Reconciliation, row: Reconciliation) -> bool:
    """Whether a PASS looked at bars as real as a FAIL did, and at no fewer: the backup may be asked about a part."""
    if later.simulated and not row.simulated:
        return False
    ours, theirs = _asked(later), _asked(row)
    return ours is None or (theirs is not None and ours[0] <= theirs[0] and theirs[1] <= ours[1])


def _asked(row: Reconciliation) -> tuple[str, str] | None:
    """From when to when the other side was asked (ISO times in UTC); None where all of the snapshot was looked at."""
    asked = row.other.get("asked")
    if not isinstance(asked, list) or not asked:
        return None
    return min(part["start"] for part in asked), max(part["end"] for part in asked)


def _not_serving(row: Reconciliation | None, snapshot: Snapshot, policy_hash: str) -> str | None:
    if row is None:
        return "there is none"
    if row.policy_hash != policy_hash:
        return "it was made under another policy"
    if row.simulated and not snapshot.simulated:
        return "it rests on simulated bars"
    return None
