"""Reproduction: a recorded session run again from its recorded inputs and compared bit for bit.

The snapshot is read by its id, the kernel's settings come from the session's row, and today's code must be the code of
then: another strategy hash or engine version is a difference of its own, named as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from blaid_pipelines.backtest.engine import BacktestSpec, run_backtest
from blaid_pipelines.backtest.reproduce import compare
from blaid_pipelines.backtest.strategy import get_family
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.lab.inputs import instrument_facts, load_arrays
from blaid_pipelines.lab.results import read_result
from blaid_pipelines.market.instruments import get_instrument
from blaid_pipelines.market.lake.snapshots import get_snapshot
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, Refused
from blaid_pipelines.store.tables import BacktestSession


@dataclass(frozen=True)
class Reproduction:
    """What a second run gave: equal only without a single difference."""

    session_id: UUID
    recorded_hash: str
    result_hash: str | None
    trades: int
    differences: list[str]

    @property
    def identical(self) -> bool:
        """True when trades, equity, metrics and code are the recorded ones, bit for bit."""
        return not self.differences


def find_session(lab: LabContext, session_id: str) -> BacktestSession:
    """The session whose id is, or begins with, ``session_id``; raises :class:`InvalidRequest` (NOT_FOUND)."""
    wanted = session_id.lower().replace("-", "")
    with lab.store.session() as session:
        rows = [
            row
            for row in session.scalars(select(BacktestSession).order_by(BacktestSession.created_at))
            if row.id.hex.startswith(wanted)
        ]
        session.expunge_all()
    if len(wanted) < 8 or len(rows) != 1:
        raise InvalidRequest(
            Reason(
                ReasonCode.NOT_FOUND,
                f"{len(rows)} sessions have an id that begins with {session_id!r}",
                "Give the whole id; `blaid status --json` lists the latest of each bot.",
                {"session_id": session_id, "matches": len(rows)},
            )
        )
    return rows[0]


def reproduce(lab: LabContext, session_id: str) -> Reproduction:
    """Run the recorded session again.

    Raises :class:`Refused` (SESSION_INCOMPLETE) for a session that ended without metrics, and what loading its snapshot
    raises when the bars are gone or spoilt.
    """
    row = find_session(lab, session_id)
    if row.status != "COMPLETED" or row.snapshot_id is None or row.result_hash is None or row.trades_path is None:
        raise Refused(
            Reason(
                ReasonCode.SESSION_INCOMPLETE,
                f"session {row.id} ended {row.status} and has no result to compare with",
                "Reproduce a completed session.",
                {"session_id": str(row.id), "status": row.status},
            )
        )
    snapshot = get_snapshot(lab.store, row.snapshot_id)
    instrument = get_instrument(lab.store, row.instrument)
    arrays = load_arrays(lab, instrument, snapshot)
    spec = BacktestSpec.from_json({name: value for name, value in row.spec.items() if name != "sources"})
    differences = []
    strategy_hash = get_family(row.strategy_family).source_hash
    if strategy_hash != row.strategy_hash:
        differences.append(f"strategy hash: recorded {row.strategy_hash}, now {strategy_hash}")
    if snapshot.content_hash != row.content_hash:
        differences.append(f"content hash: recorded {row.content_hash}, now {snapshot.content_hash}")
    recorded, now = row.spec["sources"]["instrument"], instrument_facts(instrument)
    differences += [
        f"instrument {name}: recorded {recorded.get(name)}, now {now[name]}"
        for name in now
        if recorded.get(name) != now[name]
    ]
    result = run_backtest(spec, arrays)
    differences += compare(
        row.result_hash,
        read_result(lab.lake, row.trades_path),
        result,
        recorded_metrics=row.metrics,
        recorded_engine_version=row.engine_version,
    )
    return Reproduction(row.id, row.result_hash, result.result_hash, result.trades.num_rows, differences)
