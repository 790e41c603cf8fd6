"""The quality gate: a snapshot's bars measured, held against the suite, and the verdict written, PASS or FAIL.

Only PASS on every check passes. A check that could not be evaluated counts as not passed, with its own reason, so that
a verdict of FAIL can mean "bad" or "not known" and its reasons say which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blaid_pipelines.market.bars import Bars, bar_nanos, to_ns
from blaid_pipelines.market.contracts import known_expiries
from blaid_pipelines.market.gate.findings import numbers_of
from blaid_pipelines.market.gate.measures import Measures, Scope, measure
from blaid_pipelines.market.gate.suite import CHECKS, FAIL, PASS, UNKNOWN, Check, Outcome, run_suite
from blaid_pipelines.market.gate.thresholds import SUITE_VERSION, QualityThresholds
from blaid_pipelines.market.instruments import InstrumentSpec, get_instrument
from blaid_pipelines.market.lake.snapshots import load_bars
from blaid_pipelines.reasons import Reason, ReasonCode
from blaid_pipelines.store.tables import QualityVerdict, Snapshot

if TYPE_CHECKING:
    from blaid_pipelines.store.database import Store


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check's result: PASS, FAIL or UNKNOWN, the numbers, and a reason unless it passed."""

    name: str
    status: str
    numbers: Mapping[str, Any]
    reason: Reason | None

    def as_json(self) -> dict[str, Any]:
        """As stored in ``quality_verdicts.checks``."""
        return {
            "name": self.name,
            "status": self.status,
            "numbers": dict(self.numbers),
            "reason": None if self.reason is None else self.reason.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class QualityReport:
    """All checks of one evaluation, in the suite's order; ``status`` is PASS only when every check is."""

    status: str
    checks: tuple[CheckResult, ...]

    @property
    def reasons(self) -> list[Reason]:
        """Why it did not pass, one reason a check; empty for PASS."""
        return [check.reason for check in self.checks if check.reason is not None]


def evaluate(
    bars: Bars,
    spec: InstrumentSpec,
    thresholds: QualityThresholds,
    as_of: datetime,
    covered: tuple[datetime, datetime],
    schema: str = "ohlcv-1m",
    one_contract: bool = True,
    expiries: Mapping[str, int] | None = None,
) -> QualityReport:
    """Hold ``bars`` of the range ``covered`` against the suite, as things stood at ``as_of``. Writes nothing.

    ``one_contract``: the bars are of a series with one contract at a time; false for the bars of several contracts
    before they are stitched, where the key of a bar is (time, contract) and rolls do not exist. ``expiries``: last
    trade times (nanoseconds UTC by raw symbol) that beat the product's rule.
    """
    start, end = covered
    scope = Scope(bar_nanos(schema), to_ns(start), to_ns(end), to_ns(as_of), one_contract, expiries or {})
    measures = measure(bars, spec, thresholds, scope)
    outcomes = run_suite(measures, thresholds)
    results = tuple(_result(check, outcomes.get(check.name), measures, thresholds, spec) for check in CHECKS)
    passed = bool(results) and all(result.status == PASS for result in results)
    return QualityReport(PASS if passed else FAIL, results)


def judge(
    store: Store,
    lake: Path,
    snapshot: Snapshot,
    thresholds: QualityThresholds,
    policy_hash: str,
    trace_id: str,
    as_of: datetime | None = None,
) -> QualityVerdict:
    """Evaluate a snapshot and write the verdict row, PASS or FAIL, bound to its content.

    ``as_of`` defaults to the snapshot's creation: what was not yet due then is not missing. Raises what
    :func:`load_bars` raises; without a row the snapshot stays refused.
    """
    spec = get_instrument(store, snapshot.instrument)
    bars = load_bars(store, lake, snapshot)
    covered = (snapshot.range_start, snapshot.range_end)
    # A snapshot is of a contract or of a continuous symbol: one contract at a time.
    expiries = known_expiries(store, snapshot.instrument, simulated=snapshot.simulated)
    report = evaluate(bars, spec, thresholds, as_of or snapshot.created_at, covered, snapshot.schema, expiries=expiries)
    verdict = QualityVerdict(
        snapshot_id=snapshot.snapshot_id,
        content_hash=snapshot.content_hash,
        status=report.status,
        policy_hash=policy_hash,
        suite_version=SUITE_VERSION,
        checks=[check.as_json() for check in report.checks],
        reasons=[reason.as_dict() for reason in report.reasons],
        trace_id=trace_id,
    )
    with store.session() as session:
        session.add(verdict)
        session.flush()
        session.refresh(verdict)
        session.expunge(verdict)
    return verdict


def _result(
    check: Check, outcome: Outcome | None, measures: Measures, thresholds: QualityThresholds, spec: InstrumentSpec
) -> CheckResult:
    outcome = outcome or Outcome(UNKNOWN, {}, "the suite gave no result")
    numbers = numbers_of(check, outcome, measures, thresholds, spec)
    if outcome.status == PASS:
        return CheckResult(check.name, PASS, numbers, None)
    if outcome.status == FAIL:
        reason = Reason(check.code, f"{spec.symbol}: {check.finding}", check.fix, numbers)
        return CheckResult(check.name, FAIL, numbers, reason)
    reason = Reason(
        ReasonCode.DATA_QUALITY_UNKNOWN,
        f"{spec.symbol}: check {check.name} could not be decided: {outcome.problem}",
        "Mend what hindered the check and judge the snapshot again; until then it counts as failed.",
        {**numbers, "check": check.name},
    )
    return CheckResult(check.name, UNKNOWN, numbers, reason)
