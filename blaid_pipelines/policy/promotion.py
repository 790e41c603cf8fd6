"""The promotion decision: all gates on the evidence, one verdict, one hash over everything that it rests on.

PROMOTE needs every gate to PASS; anything else is REFUSE. The hash covers the decision row's own columns, so that a
stored decision can be checked later from the row alone (:func:`decision_hash_of`). Writing the row and moving the bot
is not done here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blaid_pipelines.ids import fingerprint
from blaid_pipelines.policy.gates import EvidenceIds, GateResult, PromotionEvidence, evaluate_promotion
from blaid_pipelines.policy.model import GATE_SET, Policy, Stage
from blaid_pipelines.reasons import Reason

PROMOTE = "PROMOTE"
REFUSE = "REFUSE"

# Columns of ``promotion_decisions`` that the hash covers: all but the row's own id, time and hash.
HASHED_COLUMNS = (
    "bot_id",
    "session_id",
    "score_id",
    "trace_id",
    "from_stage",
    "to_stage",
    "decision",
    "gate_set",
    "gates",
    "failing_gates",
    "snapshot_id",
    "strategy_hash",
    "policy_hash",
    "request_ids",
)


@dataclass(frozen=True)
class PromotionVerdict:
    """A decision, ready to be stored: :meth:`as_json` holds the columns of ``promotion_decisions`` by name."""

    decision: str
    gate_set: str
    gates: tuple[GateResult, ...]
    failing_gates: tuple[str, ...]
    from_stage: Stage
    to_stage: Stage
    policy_hash: str
    ids: EvidenceIds
    decision_hash: str

    @property
    def promoted(self) -> bool:
        """True when every gate passed."""
        return self.decision == PROMOTE

    @property
    def first_reason(self) -> Reason | None:
        """The reason of the first gate that did not pass."""
        return next((gate.reason for gate in self.gates if not gate.passed), None)

    def as_json(self) -> dict[str, Any]:
        """The decision as JSON values; ids are text."""
        columns = _columns(
            self.decision, self.gates, self.from_stage, self.to_stage, self.policy_hash, self.ids, self.gate_set
        )
        return {**columns, "decision_hash": self.decision_hash}


def decide(evidence: PromotionEvidence, policy: Policy) -> PromotionVerdict:
    """Judge ``evidence`` by ``policy``. Pure: the same evidence and policy give the same hash."""
    gates = tuple(evaluate_promotion(evidence, policy))
    failing = tuple(gate.name for gate in gates if not gate.passed)
    decision = PROMOTE if gates and not failing else REFUSE
    columns = _columns(decision, gates, evidence.from_stage, evidence.to_stage, policy.hash, evidence.ids, GATE_SET)
    return PromotionVerdict(
        decision=decision,
        gate_set=GATE_SET,
        gates=gates,
        failing_gates=failing,
        from_stage=evidence.from_stage,
        to_stage=evidence.to_stage,
        policy_hash=policy.hash,
        ids=evidence.ids,
        decision_hash=decision_hash_of(columns),
    )


def decision_hash_of(row: Mapping[str, Any]) -> str:
    """sha256 over :data:`HASHED_COLUMNS` of a decision row, stored or about to be.

    Numbers are brought to one form first (``20.0`` and ``20`` are one number), because JSONB may hand back either.
    """
    return fingerprint({name: _plain(row.get(name)) for name in HASHED_COLUMNS})


def _columns(
    decision: str,
    gates: Sequence[GateResult],
    from_stage: Stage,
    to_stage: Stage,
    policy_hash: str,
    ids: EvidenceIds,
    gate_set: str,
) -> dict[str, Any]:
    return {
        "bot_id": ids.bot_id,
        "session_id": ids.session_id,
        "score_id": ids.score_id,
        "trace_id": ids.trace_id,
        "from_stage": from_stage.value,
        "to_stage": to_stage.value,
        "decision": decision,
        "gate_set": gate_set,
        "gates": [gate.as_json() for gate in gates],
        "failing_gates": [gate.name for gate in gates if not gate.passed],
        "snapshot_id": ids.snapshot_id,
        "strategy_hash": ids.strategy_hash,
        "policy_hash": policy_hash,
        "request_ids": [str(request) for request in ids.request_ids or ()],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)  # UUIDs as the database hands them out
