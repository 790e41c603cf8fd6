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

import numpy as np

from blaid_pipelines.market.bars import Bars, bar_nanos, from_ns, to_ns
from blaid_pipelines.market.gate.measures import Measures, measure
from blaid_pipelines.market.gate.suite import CHECKS, FAIL, PASS, UNKNOWN, Check, Outcome, run_suite
from blaid_pipelines.market.gate.thresholds import SUITE_VERSION, QualityThresholds
from blaid_pipelines.market.instruments import InstrumentSpec, get_instrument
from blaid_pipelines.market.lake.snapshots import load_bars
from blaid_pipelines.reasons import Reason, ReasonCode
from blaid_pipelines.store.tables import QualityVerdict, Snapshot

if TYPE_CHECKING:
    from blaid_pipelines.store.database import Store

_EXAMPLES = 3


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
) -> QualityReport:
    """Hold ``bars`` of the range ``covered`` against the suite, as things stood at ``as_of``. Writes nothing."""
    start, end = covered
    measures = measure(bars, spec, bar_nanos(schema), to_ns(start), to_ns(end), to_ns(as_of))
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
    report = evaluate(bars, spec, thresholds, as_of or snapshot.created_at, covered, snapshot.schema)
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
    numbers: dict[str, Any] = {"symbol": spec.symbol, **outcome.observed}
    if check.threshold is not None:
        numbers[check.threshold] = getattr(thresholds, check.threshold)
    if check.name == "tick_grid":
        numbers["tick_size"] = str(spec.tick_size)
    if check.name == "price_scale":
        numbers["plausible_range"] = [str(spec.price_low), str(spec.price_high)]
    numbers.update(_worst(check, measures))
    if outcome.status == PASS:
        return CheckResult(check.name, PASS, numbers, None)
    if outcome.status == FAIL:
        numbers.update(_examples(check, measures, thresholds))
        reason = Reason(check.code, f"{spec.symbol}: {check.finding}", check.fix, numbers)
        return CheckResult(check.name, FAIL, numbers, reason)
    reason = Reason(
        ReasonCode.DATA_QUALITY_UNKNOWN,
        f"{spec.symbol}: check {check.name} could not be decided: {outcome.problem}",
        "Mend what hindered the check and judge the snapshot again; until then it counts as failed.",
        {**numbers, "check": check.name},
    )
    return CheckResult(check.name, UNKNOWN, numbers, reason)


def _worst(check: Check, measures: Measures) -> dict[str, Any]:
    """The largest value of a measured column that is a number; NaN, which JSON has no word for, is left out."""
    column = measures.frames[check.frame].get(check.column or "")
    if column is None or column.dtype == np.bool_ or not len(column):
        return {}
    worst = float(column.max())
    return {"worst": round(worst, 6)} if np.isfinite(worst) else {}


def _examples(check: Check, measures: Measures, thresholds: QualityThresholds) -> dict[str, Any]:
    """The first few offenders, by time or session, so that a person can look."""
    frame = measures.frames[check.frame]
    if check.name == "duplicate_keys":
        same = (np.diff(frame["ts_open"]) == 0) & (np.diff(frame["contract"]) == 0)
        rows = np.flatnonzero(same) + 1
    elif check.column is None:
        return {}
    elif frame[check.column].dtype == np.bool_:
        rows = np.flatnonzero(frame[check.column] == (check.column == "copied"))
    else:
        rows = np.flatnonzero(frame[check.column] > getattr(thresholds, check.threshold or ""))
    if check.frame == "bars":
        return {"first_at": [from_ns(int(frame["ts_open"][row])).isoformat() for row in rows[:_EXAMPLES]]}
    if check.frame == "sessions":
        return {"sessions": [int(frame["session_date"][row]) for row in rows[:_EXAMPLES]]}
    return {}
