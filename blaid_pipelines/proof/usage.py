"""Proof of use: what was called, held against what was recorded.

Three counts that must be equal: lines of the wire log (calls that left), rows of ``provider_requests``, and, in the
sandbox world, requests that the gateway received. And for one piece of work: does each request it cites have a row
with a known, good outcome?
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from blaid_pipelines.proof.paths import request_log_path, wire_log_path
from blaid_pipelines.reasons import Reason, ReasonCode
from blaid_pipelines.settings import Environment, Settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import ProviderRequest

__all__ = ["ProofCounts", "check_requests", "check_requests_in", "proof_counts", "request_log_path"]


@dataclass(frozen=True, slots=True)
class ProofCounts:
    """``calls`` that left by the wire log, ``rows`` recorded, ``sandbox_received`` by the gateway's own log.

    ``sandbox_received`` is None outside the sandbox world, where nobody else counts (``counted_by_gateway`` False), and
    in the sandbox world where no local gateway has kept a log. ``unreached`` rows met a server that was not there, so
    that nobody can have received them. ``unknown`` rows left and have no outcome: their process was killed in between,
    and whether the gateway got them nobody can say. ``unsent`` rows have no line in the wire log, which is written
    before a call leaves: it could not be written (a full disk), or the process was killed before.
    """

    calls: int
    rows: int
    sandbox_received: int | None
    counted_by_gateway: bool
    unreached: int
    unknown: int
    unsent: int

    @property
    def equal(self) -> bool:
        """Whether every count that applies is there and says the same: only then is anything proven."""
        sent = self.rows - self.unsent
        if not self.counted_by_gateway:
            return self.calls == sent
        received = self.sandbox_received
        if received is None and sent == self.unreached:
            received = 0  # nobody was asked, so there is no log to be missed
        reached = sent - self.unreached
        return self.calls == sent and received is not None and reached - self.unknown <= received <= reached

    def as_json(self) -> dict[str, Any]:
        """JSON-ready, with the verdict."""
        return {**asdict(self), "equal": self.equal}


def proof_counts(store: Store, settings: Settings) -> ProofCounts:
    """The three counts of an installation, since its beginning."""
    with store.session() as session:
        rows, unreached = session.execute(
            select(
                func.count(),
                func.count().filter(ProviderRequest.error_code == ReasonCode.PROVIDER_UNREACHABLE.value),
            ).select_from(ProviderRequest)
        ).one()
        ended_early = ProviderRequest.success.is_(None) | (
            ProviderRequest.error_code == ReasonCode.LEDGER_UNAVAILABLE.value
        )
        doubtful = {str(each) for each in session.scalars(select(ProviderRequest.id).where(ended_early))}
    sandbox = settings.env is Environment.SANDBOX
    received = _lines(request_log_path(settings)) if sandbox else None
    unsent = doubtful - _ids(wire_log_path(settings)) if doubtful else doubtful
    return ProofCounts(
        calls=_lines(wire_log_path(settings)) or 0,
        rows=rows,
        sandbox_received=received,
        counted_by_gateway=sandbox,
        unreached=unreached,
        unknown=len(doubtful) - len(unsent),
        unsent=len(unsent),
    )


def check_requests(store: Store, request_ids: Sequence[UUID]) -> list[Reason]:
    """:func:`check_requests_in` on a session of its own."""
    with store.session() as session:
        return check_requests_in(session, request_ids)


def check_requests_in(session: Session, request_ids: Sequence[UUID]) -> list[Reason]:
    """Reasons why the cited requests do not prove use; empty when each has a row with success true."""
    found = {
        row.id: row
        for row in session.execute(
            select(
                ProviderRequest.id,
                ProviderRequest.success,
                ProviderRequest.provider,
                ProviderRequest.endpoint,
                ProviderRequest.error_code,
            ).where(ProviderRequest.id.in_(list(request_ids)))
        )
    }
    reasons = []
    for request_id in dict.fromkeys(request_ids):
        row = found.get(request_id)
        if row is None:
            reasons.append(_reason(ReasonCode.PROOF_MISMATCH, request_id, "has no row in provider_requests"))
        elif row.success is None:
            text = f"to {row.provider} {row.endpoint} has no known outcome"
            reasons.append(_reason(ReasonCode.PROOF_UNKNOWN, request_id, text))
        elif not row.success:
            text = f"to {row.provider} {row.endpoint} failed with {row.error_code}"
            reasons.append(_reason(ReasonCode.PROOF_MISMATCH, request_id, text))
    return reasons


def _reason(code: ReasonCode, request_id: UUID, what: str) -> Reason:
    return Reason(
        code,
        f"Request {request_id} {what}.",
        "Do not act on it: what a decision cites must be proven by recorded calls. Take the data anew.",
        {"request_id": str(request_id)},
    )


def _ids(wire_log: Path) -> set[str]:
    """The attempts whose call left: each whole line of the wire log names one."""
    try:
        whole = [line for line in wire_log.read_bytes().splitlines() if line.rstrip().endswith(b"}")]
    except FileNotFoundError:
        return set()
    return {str(json.loads(line)["id"]) for line in whole}


def _lines(path: Path) -> int | None:
    try:
        with path.open("rb") as lines:
            # A line that a full disk cut short is of a call that was then not made.
            return sum(1 for line in lines if line.rstrip().endswith(b"}"))
    except FileNotFoundError:
        return None
