"""Rows of what was compared, and the refusal of a snapshot whose comparison did not pass.

The newest row of a kind counts. A FAIL or UNKNOWN refuses whatever the policy requires: somebody looked and did not
find the bars confirmed. A PASS serves a requirement only under the policy that is in force, about this very content,
and on evidence that is as real as the snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on

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


def newest_reconciliations(store: Store, snapshot_id: str) -> dict[str, Reconciliation]:
    """The newest row of each kind about a snapshot."""
    query = (
        select(Reconciliation)
        .where(Reconciliation.snapshot_id == snapshot_id)
        .ext(distinct_on(Reconciliation.kind))
        .order_by(Reconciliation.kind, Reconciliation.created_at.desc(), Reconciliation.id.desc())
    )
    with store.session() as session:
        rows = {row.kind: row for row in session.scalars(query)}
        session.expunge_all()
    return rows


def require_reconciled(
    store: Store, snapshot: Snapshot, policy_hash: str, thresholds: ReconciliationThresholds
) -> list[Reconciliation]:
    """The rows that speak for ``snapshot``, or :class:`Refused`.

    ``RECONCILIATION_FAILED`` where the newest row of any kind is FAIL or UNKNOWN, with that row's own reasons;
    ``RECONCILIATION_MISSING`` where policy requires a kind that has no row that counts.
    """
    rows = newest_reconciliations(store, snapshot.snapshot_id)
    bad = [row for row in rows.values() if row.status != "PASS" or row.content_hash != snapshot.content_hash]
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


def _not_serving(row: Reconciliation | None, snapshot: Snapshot, policy_hash: str) -> str | None:
    if row is None:
        return "there is none"
    if row.policy_hash != policy_hash:
        return "it was made under another policy"
    if row.simulated and not snapshot.simulated:
        return "it rests on simulated bars"
    return None
