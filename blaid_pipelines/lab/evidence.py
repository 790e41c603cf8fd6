"""Checks that what a run reports is what the tables hold: proof of use both ways, and complete evidence for decisions.

The cohort asks inside the transaction that writes its rows, before a bot moves (the ``_in`` forms, on an open session);
Dagster's asset checks ask again afterwards, of what was stored. Each returns typed reasons; none means passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from blaid_pipelines.proof.usage import check_requests_in
from blaid_pipelines.reasons import Reason, ReasonCode
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import BotJob, PromotionDecision, ProviderRequest

# What every materialization of the cohort's assets must carry, and what a decision's row must agree on.
PROOF_KEYS = ("trace_id", "session_id", "strategy_hash", "policy_hash")
COMPLETED_KEYS = ("snapshot_id", "content_hash", "metrics", "result_hash")
ROW_KEYS = ("trace_id", "strategy_hash", "policy_hash", "snapshot_id", "decision", "decision_hash", "request_ids")


def check_proof(store: Store, trace_ids: Sequence[str], cited: Sequence[UUID]) -> list[Reason]:
    """:func:`check_proof_in` on a session of its own."""
    with store.session() as session:
        return check_proof_in(session, trace_ids, cited)


def check_proof_in(session: Session, trace_ids: Sequence[str], cited: Sequence[UUID]) -> list[Reason]:
    """Compare the requests that a run cites with the request log, both ways.

    Forward: every cited request has a row that says success. Backward: every row of the run's traces that succeeded, or
    whose outcome is unknown, is cited; a failed attempt gave nothing that could be used. And no trace of the run is
    without a job row. Reads only; rows of the session that are not committed yet count.
    """
    known, traces = set(cited), sorted(set(trace_ids))
    reasons = check_requests_in(session, cited)
    rows = session.execute(
        select(ProviderRequest.id, ProviderRequest.success)
        .where(ProviderRequest.trace_id.in_(traces))
        .order_by(ProviderRequest.id)
    ).all()
    with_job = set(session.scalars(select(BotJob.trace_id).where(BotJob.trace_id.in_(traces))))
    uncited = [row for row in rows if row.success is not False and row.id not in known]
    if uncited:
        unknown = sum(1 for row in uncited if row.success is None)
        reasons.append(
            Reason(
                ReasonCode.PROOF_UNKNOWN if unknown else ReasonCode.PROOF_MISMATCH,
                f"the request log holds {len(uncited)} requests of this run that its metadata does not cite",
                "Look the trace ids up in provider_requests; what was used must be cited.",
                {"uncited": [str(row.id) for row in uncited[:20]], "count": len(uncited), "outcome_unknown": unknown},
            )
        )
    without_job = [trace for trace in traces if trace not in with_job]
    if without_job:
        reasons.append(
            Reason(
                ReasonCode.PROOF_MISMATCH,
                f"{len(without_job)} trace ids of this run have no job",
                "Every use needs a job row with its trace id; look for writes that go around the job machine.",
                {"trace_ids": without_job[:20], "count": len(without_job)},
            )
        )
    return reasons


def check_evidence(store: Store, outcomes: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[Reason]:
    """:func:`check_evidence_in` on a session of its own."""
    with store.session() as session:
        return check_evidence_in(session, outcomes)


def check_evidence_in(session: Session, outcomes: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[Reason]:
    """Check that each outcome's metadata is complete and agrees with its decision row.

    ``outcomes`` holds, per bot, the metadata of each asset of the cohort (``backtest``, ``promotion_decision``, and for
    a completed session ``diagnostics`` and ``autonomy_score``). Reads only; rows of the session that are not committed
    yet count.
    """
    session_ids = [
        UUID(str(outcome["backtest"]["session_id"]))
        for outcome in outcomes
        if "session_id" in outcome.get("backtest", {})
    ]
    rows = session.scalars(select(PromotionDecision).where(PromotionDecision.session_id.in_(session_ids)))
    decisions = {
        str(row.session_id): {
            "trace_id": row.trace_id,
            "strategy_hash": row.strategy_hash,
            "policy_hash": row.policy_hash,
            "snapshot_id": row.snapshot_id,
            "decision": row.decision,
            "decision_hash": row.decision_hash,
            "request_ids": list(row.request_ids),
        }
        for row in rows
    }
    return [reason for outcome in outcomes for reason in _outcome_problems(outcome, decisions)]


def _outcome_problems(
    outcome: Mapping[str, Mapping[str, Any]], decisions: Mapping[str, Mapping[str, Any]]
) -> list[Reason]:
    backtest, decision = outcome.get("backtest", {}), outcome.get("promotion_decision", {})
    completed = backtest.get("status") == "COMPLETED"
    missing = [f"backtest.{key}" for key in PROOF_KEYS if not backtest.get(key)]
    missing += [f"promotion_decision.{key}" for key in (*PROOF_KEYS, "gates", "decision_hash") if not decision.get(key)]
    if completed:
        missing += [f"backtest.{key}" for key in COMPLETED_KEYS if not backtest.get(key)]
        missing += [asset for asset in ("diagnostics", "autonomy_score") if not outcome.get(asset)]
    elif not backtest.get("reason"):
        missing.append("backtest.reason")
    session_id = str(backtest.get("session_id"))
    problems = []
    if missing:
        problems.append(
            _problem(
                ReasonCode.EVIDENCE_MISSING,
                f"session {session_id} lacks {', '.join(missing)}",
                session_id,
                missing=missing,
            )
        )
    row = decisions.get(session_id)
    if row is None:
        problems.append(_problem(ReasonCode.EVIDENCE_MISSING, f"session {session_id} has no decision row", session_id))
    else:
        differing = [key for key in ROW_KEYS if decision.get(key) != row[key]]
        if differing:
            text = f"session {session_id}: metadata and decision row differ in {', '.join(differing)}"
            problems.append(_problem(ReasonCode.PROOF_MISMATCH, text, session_id, differing=differing))
    not_passed = [str(gate.get("name")) for gate in decision.get("gates", []) if gate.get("status") != "PASS"]
    if decision.get("decision") == "PROMOTE" and (not_passed or not completed):
        text = f"session {session_id} promotes although {', '.join(not_passed) or 'its backtest did not complete'}"
        problems.append(_problem(ReasonCode.EVIDENCE_MISSING, text, session_id, not_passed=not_passed))
    return problems


def _problem(code: ReasonCode, message: str, session_id: str, **numbers: Any) -> Reason:
    fix = "Do not act on this decision; run the bot's cycle again and report the session."
    return Reason(code, message, fix, {"session_id": session_id, **numbers})
