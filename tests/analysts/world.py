"""A small, hand-made LAB on real Postgres and real files, with sums that a person can check.

Every row is as the product writes it; ``test_the_marts_of_a_real_pull_and_cycle`` sees the same of a real one. The
bots: ``earner`` with three trades and a refusal by its last gate, ``quiet`` with none, ``unpriced`` whose bars have no
quote, ``barred`` whose bars failed the quality gate, and ``early`` whose series was never pulled.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
from sqlalchemy.orm import Session

from blaid_pipelines.backtest.ledger import TRADE_SCHEMA, equity_table
from blaid_pipelines.ids import new_id
from blaid_pipelines.lab.results import IDENTITY, result_path, write_result
from blaid_pipelines.policy.gates import GateResult, GateStatus
from blaid_pipelines.reasons import Reason, ReasonCode
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
BASE = NOW - timedelta(days=4)  # where the pulled ranges begin
# Quotes of the ranges that a snapshot was pulled in.
QUOTES_USD = {
    "snap-mes": (Decimal("0.010000"), Decimal("0.002345")),
    "snap-m2k": (Decimal("0.5"),),
    "snap-mnq": (Decimal("0.25"), None),
}
EARNER_PNL_CENTS = (12_345, -6_789, 1)  # nets of its three trades
EARNER_NET_CENTS = 5_557
SESSION_DATES = (20240628, 20240701)  # the first without a trade
RATES = {"commission_per_side_microusd": 250_000, "fees_per_side_microusd": 370_000}  # 124 cents a round turn
SNAPSHOTS = {"earner": "snap-mes", "quiet": "snap-mes", "barred": "snap-m2k", "unpriced": "snap-mnq"}
PULLED = {"snap-mes": "MES.c.0", "snap-m2k": "M2K.c.0", "snap-mnq": "MNQ.c.0"}


def reason(code: ReasonCode) -> Reason:
    """A reason of few words."""
    return Reason(code, f"no: {code.value}", "do something", {"seen": 1})


def gate(name: str, status: str, code: ReasonCode | None = None) -> dict[str, Any]:
    """One gate as the product stores it."""
    why = None if code is None else reason(code)
    return GateResult(name, GateStatus(status), None if status == "UNKNOWN" else 1.5, 1.15, ">=", why).as_json()


QUALITY, BROKER = ReasonCode.DATA_QUALITY_FAILED, ReasonCode.BROKER_REQUIRED_FOR_PAPER
GATES = {
    "earner": [gate("min_sessions", "PASS"), gate("quality", "PASS"), gate("broker_for_paper", "FAIL", BROKER)],
    # what cannot be evaluated comes before what failed, and is not what decides
    "quiet": [
        gate("min_win_rate", "UNKNOWN", ReasonCode.EVIDENCE_MISSING),
        gate("quality", "PASS"),
        gate("broker_for_paper", "FAIL", BROKER),
    ],
    "unpriced": [gate("min_sessions", "PASS"), gate("broker_for_paper", "FAIL", BROKER)],
    "barred": [gate("backtest", "FAIL", QUALITY), gate("quality", "FAIL", QUALITY), gate("stage_eligible", "PASS")],
    "early": [
        gate("quality", "UNKNOWN", ReasonCode.DATA_QUALITY_UNKNOWN),
        gate("reproducible", "UNKNOWN", ReasonCode.EVIDENCE_MISSING),
    ],
}
REFUSALS = {"barred": reason(QUALITY), "early": reason(ReasonCode.SNAPSHOT_MISSING)}


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
    bots = {name: _bot(name) for name in GATES}
    sessions = {name: new_id() for name in bots}
    cited = {snapshot_id: _pull(store, symbol, QUOTES_USD[snapshot_id]) for snapshot_id, symbol in PULLED.items()}
    with store.session() as session:
        session.add_all([_snapshot(snapshot_id, symbol, cited[snapshot_id]) for snapshot_id, symbol in PULLED.items()])
        session.add_all(bots.values())
        session.flush()
        verdicts = {name: _verdict(name, "FAIL" if name == "snap-m2k" else "PASS") for name in PULLED}
        session.add_all(verdicts.values())
        session.flush()
        for name, bot in bots.items():
            snapshot_id = SNAPSHOTS.get(name)
            request_ids = [] if snapshot_id is None else [str(value) for value in cited[snapshot_id]]
            row = _session(bot, sessions[name], snapshot_id, request_ids)
            row.verdict_id = None if snapshot_id is None else verdicts[snapshot_id].id
            if name in REFUSALS:
                row.reason = REFUSALS[name].as_dict()
            else:
                nets = EARNER_PNL_CENTS if name == "earner" else ()
                _complete(row, nets)
                identity = dict.fromkeys(IDENTITY, "x") | {"session_id": str(row.id), "bot_id": str(bot.id)}
                trades = trades_table(nets)
                equity = equity_table(trades, np.array(SESSION_DATES, np.int32), row.capital_cents)
                write_result(lake, result_path("trades", bot.id, row.id), trades, identity)
                write_result(lake, result_path("equity", bot.id, row.id), equity, identity)
            if name == "earner":
                row.net_pnl_cents = session_net_cents
            session.add(row)
            session.flush()
            _judge(session, bot, row)
    return sessions


def _bot(name: str) -> Bot:
    instrument = PULLED[SNAPSHOTS.get(name, "snap-mes")].split(".")[0]
    return Bot(
        id=new_id(),
        name=name,
        instrument=instrument,
        symbol=f"{instrument}.c.0",
        schema="ohlcv-1m",
        strategy_family="ma_cross",
        params={"fast": 5},
        params_hash="a" * 64,
        capital_cents=2_500_000,
        contracts=1,
    )


def _pull(store: Store, symbol: str, quotes_usd: tuple[Decimal | None, ...]) -> list[UUID]:
    """The requests of one pull, range by range in days: all quotes first, then per range a resolution and the bars.

    A quote carries the cost, a purchase never does. The first quote failed and was asked for again, and one range was
    quoted and not bought; another trace asked for the same ranges and found them dearer. A range whose quote is None
    was bought without one. Returns the ids that a snapshot cites.
    """
    ranges = [(BASE + timedelta(days=day), BASE + timedelta(days=day + 1)) for day in range(len(quotes_usd))]
    unbought = (BASE + timedelta(days=9), BASE + timedelta(days=10))
    rows = [_request(symbol, "metadata.get_cost", ranges[0], success=False)]
    for span, quote in zip([*ranges, unbought], [*quotes_usd, Decimal(7)], strict=True):
        if quote is not None:
            rows.append(_request(symbol, "metadata.get_cost", span, cost_usd=quote))
    answers = []
    for span in ranges:
        answers.append(_request(symbol, "symbology.resolve", span, schema=None))
        answers.append(_request(symbol, "timeseries.get_range", span, bar_count=3))
    other = [_request(symbol, "metadata.get_cost", span, trace_id="f" * 32, cost_usd=Decimal(9)) for span in ranges]
    with store.session() as session:
        for number, row in enumerate([*rows, *answers, *other]):
            row.created_at = row.completed_at = NOW + timedelta(seconds=number)
            session.add(row)
    return [row.id for row in answers]


def _request(
    symbol: str,
    endpoint: str,
    span: tuple[datetime, datetime],
    *,
    trace_id: str = TRACE,
    schema: str | None = "ohlcv-1m",
    success: bool = True,
    cost_usd: Decimal | None = None,
    bar_count: int | None = None,
) -> ProviderRequest:
    return ProviderRequest(
        id=new_id(),
        trace_id=trace_id,
        stage="LAB",
        category="market_data",
        provider="databento",
        endpoint=endpoint,
        request_fingerprint="f" * 64,
        params={"symbols": [symbol]},
        simulated=True,
        symbol=symbol,
        schema=schema,
        start_ts=span[0],
        end_ts=span[1],
        success=success,
        latency_ms=12,
        http_status=200 if success else 500,
        error_code=None if success else "UPSTREAM_5XX",
        bar_count=bar_count,
        cost_usd=cost_usd,
    )


def _snapshot(snapshot_id: str, symbol: str, request_ids: list[UUID]) -> Snapshot:
    return Snapshot(
        snapshot_id=snapshot_id,
        content_hash="c" * 64,
        dataset="GLBX.MDP3",
        schema="ohlcv-1m",
        symbol=symbol,
        instrument=symbol.split(".")[0],
        range_start=BASE,
        range_end=BASE + timedelta(days=2),
        bar_count=3,
        files=[],
        contracts=["MESU4"],
        provenance={"source": "databento", "request_ids": [str(value) for value in request_ids]},
        simulated=True,
        trace_id=TRACE,
    )


def _verdict(snapshot_id: str, status: str) -> QualityVerdict:
    return QualityVerdict(
        id=new_id(),
        snapshot_id=snapshot_id,
        content_hash="c" * 64,
        status=status,
        policy_hash="p" * 64,
        suite_version="1",
        checks=[
            {"name": "bar_count", "status": "PASS", "numbers": {"min_bars": 3, "observed_value": 3}, "reason": None},
            {
                "name": "session_gaps",
                "status": status,
                "numbers": {"max_gap_minutes": 30, "worst": 3.0 if status == "PASS" else 240.0},
                "reason": None if status == "PASS" else reason(ReasonCode.SESSION_GAP).as_dict(),
            },
        ],
        reasons=[] if status == "PASS" else [reason(ReasonCode.SESSION_GAP).as_dict()],
        trace_id=TRACE,
    )


def _session(bot: Bot, session_id: UUID, snapshot_id: str | None, request_ids: list[str]) -> BacktestSession:
    return BacktestSession(
        id=session_id,
        bot_id=bot.id,
        trace_id=TRACE,
        status="REFUSED",
        instrument=bot.instrument,
        symbol=bot.symbol,
        snapshot_id=snapshot_id,
        content_hash=None if snapshot_id is None else "c" * 64,
        request_ids=request_ids,
        strategy_family=bot.strategy_family,
        strategy_hash="s" * 64,
        params=dict(bot.params),
        params_hash=bot.params_hash,
        engine_version="1",
        policy_hash="p" * 64,
        spec={"costs": RATES},
        capital_cents=bot.capital_cents,
    )


def _complete(row: BacktestSession, nets: tuple[int, ...]) -> None:
    row.status = "COMPLETED"
    row.trades, row.net_pnl_cents, row.max_drawdown_pct = len(nets), sum(nets), 0.5
    row.metrics = {"win_rate_pct": 66.6, "profit_factor": 1.8186 if nets else None, "psr0": 0.97}
    row.result_hash = "r" * 64
    row.trades_path = result_path("trades", row.bot_id, row.id)
    row.equity_path = result_path("equity", row.bot_id, row.id)


def _judge(session: Session, bot: Bot, row: BacktestSession) -> None:
    scored = AutonomyScore(
        id=new_id(),
        bot_id=bot.id,
        session_id=row.id,
        trace_id=TRACE,
        score=55.0 if row.metrics else 5.0,
        tier="SUPERVISED" if row.metrics else "LOCKED",
        subscores=[],
        blockers=[reason(ReasonCode.EVIDENCE_MISSING).as_dict()],
        policy_hash="p" * 64,
    )
    session.add(scored)
    session.flush()
    gates = GATES[bot.name]
    session.add(
        PromotionDecision(
            id=new_id(),
            bot_id=bot.id,
            session_id=row.id,
            score_id=scored.id,
            trace_id=TRACE,
            from_stage="LAB",
            to_stage="PAPER",
            decision="REFUSE",
            gate_set="gates-v1",
            gates=gates,
            failing_gates=[entry["name"] for entry in gates if entry["status"] != "PASS"],
            snapshot_id=row.snapshot_id,
            strategy_hash="s" * 64,
            policy_hash="p" * 64,
            request_ids=row.request_ids,
            decision_hash="d" * 64,
        )
    )


__all__ = ["EARNER_NET_CENTS", "EARNER_PNL_CENTS", "GATES", "NOW", "populate"]
