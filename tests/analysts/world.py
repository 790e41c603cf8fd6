"""A small, hand-made LAB on real Postgres and real files, with sums that a person can check.

Three bots: ``earner`` with three trades and a refusal by its last gate, ``quiet`` with none, ``barred`` whose bars
failed the quality gate and whose session has no snapshot.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow as pa

from blaid_pipelines.backtest.ledger import TRADE_SCHEMA
from blaid_pipelines.ids import new_id
from blaid_pipelines.lab.results import IDENTITY, result_path, write_result
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import (
    AutonomyScore,
    BacktestSession,
    Bot,
    PromotionDecision,
    ProviderRequest,
    QualityVerdict,
    Snapshot,
)

NOW = datetime(2024, 7, 1, 12, 0, tzinfo=UTC)
TRACE = "0123456789abcdef0123456789abcdef"
REQUEST_ID = UUID("01900000-0000-7000-8000-000000000001")
SNAPSHOT = "snap-mes"
EARNER_PNL_CENTS = (12_345, -6_789, 1)  # nets of its three trades
EARNER_NET_CENTS = 5_557

Gates = list[dict[str, object]]


def gate(name: str, status: str, code: str | None = None) -> dict[str, object]:
    """One gate as ``policy.gates`` stores it."""
    reason = None if code is None else {"code": code, "message": f"{name} says no", "suggested_fix": "", "numbers": {}}
    return {
        "name": name,
        "status": status,
        "input": 1.5,
        "comparison": ">=",
        "threshold": 1.15,
        "code": code,
        "reason": reason,
        "note": None,
    }


def trades_table(nets_cents: tuple[int, ...]) -> pa.Table:
    """Trades of one contract long, a minute each, with the given nets; costs of 124 cents and no slippage."""
    rows = [
        {
            "entry_ts": NOW + timedelta(minutes=2 * number),
            "exit_ts": NOW + timedelta(minutes=2 * number + 1),
            "side": 1,
            "contracts": 1,
            "entry_ticks": 22_000,
            "entry_price": Decimal("5500.25"),
            "exit_ticks": 22_004,
            "exit_price": Decimal("5501.25"),
            "exit_reason": "SIGNAL",
            "gross_pnl_cents": net + 124,
            "commission_cents": 124,
            "slippage_cents": 0,
            "net_pnl_cents": net,
            "target_first_net_pnl_cents": net,
            "mae_ticks": 1,
            "mfe_ticks": 5,
            "mae_cents": 125,
            "mfe_cents": 625,
            "bars_held": 1,
            "ambiguous": False,
            "session_date": 20240701,
            "contract": "MESU4",
        }
        for number, net in enumerate(nets_cents)
    ]
    return pa.Table.from_pylist(rows, schema=TRADE_SCHEMA)


def populate(store: Store, lake: Path, *, session_net_cents: int = EARNER_NET_CENTS) -> dict[str, UUID]:
    """Fill an empty LAB; returns the session id of each bot. A wrong ``session_net_cents`` makes the sums disagree."""
    verdict_id = new_id()
    bots = {name: _bot(name) for name in ("earner", "quiet", "barred")}
    sessions = {name: new_id() for name in bots}
    with store.session() as session:
        session.add_all([_request(), _snapshot(), *bots.values()])
        session.flush()
        session.add(
            QualityVerdict(
                id=verdict_id,
                snapshot_id=SNAPSHOT,
                content_hash="c" * 64,
                status="PASS",
                policy_hash="p" * 64,
                suite_version="1",
                checks=[],
                reasons=[],
                trace_id=TRACE,
            )
        )
        session.flush()
        for name, bot in bots.items():
            nets = {"earner": EARNER_PNL_CENTS, "quiet": ()}.get(name)
            row = _session(bot, sessions[name], nets, verdict_id)
            if name == "earner":
                row.net_pnl_cents = session_net_cents
            session.add(row)
            session.flush()
            if nets is not None:
                write_result(
                    lake,
                    result_path("trades", bot.id, sessions[name]),
                    trades_table(nets),
                    {**dict.fromkeys(IDENTITY, "x"), "session_id": str(sessions[name]), "bot_id": str(bot.id)},
                )
            _judge(session, name, bot, sessions[name])
    return sessions


def _bot(name: str) -> Bot:
    return Bot(
        id=new_id(),
        name=name,
        instrument="MES",
        symbol="MES.c.0",
        schema="ohlcv-1m",
        strategy_family="ma_cross",
        params={"fast": 5},
        params_hash="a" * 64,
        capital_cents=2_500_000,
        contracts=1,
    )


def _request() -> ProviderRequest:
    return ProviderRequest(
        id=REQUEST_ID,
        trace_id=TRACE,
        category="market_data",
        provider="databento",
        endpoint="timeseries.get_range",
        request_fingerprint="f" * 64,
        params={"symbol": "MES.c.0"},
        simulated=True,
        symbol="MES.c.0",
        schema="ohlcv-1m",
        completed_at=NOW,
        success=True,
        latency_ms=12,
        bar_count=3,
        cost_usd=Decimal("0.012345"),
    )


def _snapshot() -> Snapshot:
    return Snapshot(
        snapshot_id=SNAPSHOT,
        content_hash="c" * 64,
        dataset="GLBX.MDP3",
        schema="ohlcv-1m",
        symbol="MES.c.0",
        instrument="MES",
        range_start=NOW - timedelta(days=1),
        range_end=NOW,
        bar_count=3,
        files=[],
        contracts=["MESU4"],
        provenance={"source": "databento", "request_ids": [str(REQUEST_ID)]},
        simulated=True,
        trace_id=TRACE,
    )


def _session(bot: Bot, session_id: UUID, nets: tuple[int, ...] | None, verdict_id: UUID) -> BacktestSession:
    row = BacktestSession(
        id=session_id,
        bot_id=bot.id,
        trace_id=TRACE,
        status="REFUSED" if nets is None else "COMPLETED",
        instrument="MES",
        symbol="MES.c.0",
        request_ids=[],
        strategy_family=bot.strategy_family,
        strategy_hash="s" * 64,
        params=dict(bot.params),
        params_hash=bot.params_hash,
        engine_version="1",
        policy_hash="p" * 64,
        spec={},
        capital_cents=bot.capital_cents,
    )
    if nets is None:
        row.reason = {"code": "DATA_QUALITY_FAILED", "message": "no", "suggested_fix": "", "numbers": {}}
        return row
    row.snapshot_id, row.content_hash, row.verdict_id = SNAPSHOT, "c" * 64, verdict_id
    row.request_ids = [str(REQUEST_ID)]
    row.trades, row.net_pnl_cents, row.max_drawdown_pct = len(nets), sum(nets), 0.5
    row.metrics = {"win_rate_pct": 66.6, "profit_factor": 1.8186 if nets else None, "psr0": 0.97}
    row.result_hash = "r" * 64
    row.trades_path = result_path("trades", bot.id, session_id)
    return row


def _judge(session: object, name: str, bot: Bot, session_id: UUID) -> None:
    score_id = new_id() if name != "barred" else None
    if score_id is not None:
        session.add(  # type: ignore[attr-defined]
            AutonomyScore(
                id=score_id,
                bot_id=bot.id,
                session_id=session_id,
                trace_id=TRACE,
                score=55.0,
                tier="SUPERVISED",
                subscores=[],
                blockers=["supervisor_trust"],
                policy_hash="p" * 64,
            )
        )
        session.flush()  # type: ignore[attr-defined]
    gates = {
        "earner": [gate("sessions", "PASS"), gate("broker", "FAIL", "BROKER_REQUIRED_FOR_PAPER")],
        "quiet": [gate("sessions", "FAIL", "TOO_FEW_SESSIONS"), gate("broker", "FAIL", "BROKER_REQUIRED_FOR_PAPER")],
        "barred": [gate("sessions", "UNKNOWN", "DATA_QUALITY_FAILED"), gate("broker", "PASS")],
    }[name]
    session.add(  # type: ignore[attr-defined]
        PromotionDecision(
            id=new_id(),
            bot_id=bot.id,
            session_id=session_id,
            score_id=score_id,
            trace_id=TRACE,
            from_stage="LAB",
            to_stage="PAPER",
            decision="REFUSE",
            gate_set="gates-v1",
            gates=gates,
            failing_gates=[entry["name"] for entry in gates if entry["status"] != "PASS"],
            snapshot_id=None if name == "barred" else SNAPSHOT,
            strategy_hash="s" * 64,
            policy_hash="p" * 64,
            request_ids=[] if name == "barred" else [str(REQUEST_ID)],
            decision_hash="d" * 64,
        )
    )


__all__ = ["EARNER_NET_CENTS", "EARNER_PNL_CENTS", "NOW", "SNAPSHOT", "date", "populate"]
