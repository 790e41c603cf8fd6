"""Explain: the bundle by one call, the same by SQL, and sentences that hold for every state a bot can be in."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from blaid_pipelines.ids import new_trace_id
from blaid_pipelines.jobs.machine import JobStatus, JobType, create_job, move_job
from blaid_pipelines.lab.explain import explain, explain_sql
from blaid_pipelines.policy.model import Stage
from blaid_pipelines.policy.stages import move_stage
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import AutonomyScore, Bot, PromotionDecision
from tests.policy.rows import add_bars, add_bot, add_cycle, deep_ledger, good_ledger

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "policy.md"
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
FAILED = Reason(ReasonCode.DATA_QUALITY_FAILED, "the bars failed the quality gate", "Pull other bars.", {})
GAP = Reason(ReasonCode.SESSION_GAP, "240 minutes without a bar", "Pull the range again.", {"minutes": 240}).as_dict()


def said(bundle: dict[str, Any]) -> str:
    return "\n".join(bundle["why"])


def test_the_whole_bundle_of_a_refused_bot(store: Store) -> None:
    cycle = add_cycle(store, add_bot(store, "deep"), deep_ledger(), brokers=[])
    bundle = explain(store, "deep")
    json.dumps(bundle, allow_nan=False)
    assert bundle["stage"] == bundle["bot"]["stage"] == "LAB"
    assert bundle["session"]["id"] == str(cycle.session_id)
    assert bundle["metrics"]["max_drawdown_pct"] == 21.0081
    assert bundle["diagnostics"] == {"by_hour": [{"hour": 9, "trades": 3}]}
    assert bundle["score"]["id"] == str(cycle.score_id)
    assert len(bundle["score"]["subscores"]) == 5
    assert bundle["decision"]["id"] == str(cycle.decision_id)
    assert bundle["decision_hash_valid"] is True
    assert bundle["snapshot"]["snapshot_id"] == cycle.snapshot_id
    assert bundle["verdict"]["status"] == "PASS"
    assert [request["id"] for request in bundle["requests"]] == [str(cycle.request_id)]
    assert bundle["requests_cited"] == 1
    assert bundle["trace_ids"]["session"] == bundle["trace_ids"]["decision"] == cycle.trace_id
    text_of_it = said(bundle)
    assert "Not promoted from LAB to PAPER: 2 of the 18 gates of gates-v1 did not pass." in text_of_it
    assert "max_drawdown: FAIL MAX_DRAWDOWN_EXCEEDED: the drawdown is 21.0081 % of the capital" in text_of_it
    assert "broker_for_paper: FAIL BROKER_REQUIRED_FOR_PAPER" in text_of_it
    assert "simulated bars" in text_of_it
    assert "Proof: 1 external calls cited, 1 rows in the request log, 1 of them succeeded." in text_of_it
    assert bundle["next_steps"] == [
        "Trade fewer contracts, use tighter stops, or give the bot more capital.",
        "Set the variables of one broker: IRONBEAM_USERNAME and IRONBEAM_API_KEY, or TRADOVATE_NAME, "
        "TRADOVATE_PASSWORD, TRADOVATE_CID and TRADOVATE_SEC.",
    ]


def test_the_sql_alone_gives_the_same_bundle(store: Store) -> None:
    add_cycle(store, add_bot(store, "deep"), deep_ledger(), brokers=[])
    with store.session() as session:
        by_sql = session.execute(text(explain_sql()), {"bot": "deep"}).scalar_one()
        assert session.execute(text(explain_sql()), {"bot": "nobody"}).one_or_none() is None
    by_call = explain(store, "deep")
    added = {"why", "next_steps", "decision_hash_valid"}
    assert {name: part for name, part in by_call.items() if name not in added} == by_sql


def test_the_documented_sql_is_this_sql() -> None:
    assert explain_sql() in DOCS.read_text(encoding="utf-8")


def test_the_docs_name_every_gate_and_every_sub_score(store: Store) -> None:
    cycle = add_cycle(store, add_bot(store, "deep"), deep_ledger(), brokers=[])
    with store.session() as session:
        gates = session.get_one(PromotionDecision, cycle.decision_id).gates
        parts = session.get_one(AutonomyScore, cycle.score_id).subscores
    words = DOCS.read_text(encoding="utf-8")
    assert [
        name
        for name in (*(gate["name"] for gate in gates), *(part["name"] for part in parts))
        if f"| `{name}` |" not in words
    ] == []


def test_a_bot_that_was_never_backtested(store: Store) -> None:
    add_bot(store, "new")
    bundle = explain(store, "new")
    assert bundle["session"] is bundle["decision"] is bundle["score"] is bundle["decision_hash_valid"] is None
    assert "It has not been backtested yet" in said(bundle)
    assert "There are no bars of its series in the lake." in said(bundle)
    assert bundle["next_steps"] == [
        "Get bars: `blaid pull MES.c.0 --start D --end D`, or `blaid ingest FILE... --symbol S`.",
        "Backtest it: `blaid backtest new`.",
    ]
    add_bars(store)
    with_bars = explain(store, "new")
    assert "quality PASS" in said(with_bars)
    assert with_bars["next_steps"] == ["Backtest it: `blaid backtest new`."]


@pytest.mark.parametrize("status", ["FAIL", None])
def test_a_bot_whose_bars_did_not_pass_yet(store: Store, status: str | None) -> None:
    add_bot(store, "new")
    add_bars(store, status)
    assert explain(store, "new")["next_steps"][0] == "Get bars that pass the quality gate; the backtest refuses these."


def test_a_bot_that_was_refused_for_its_bars(store: Store) -> None:
    cycle = add_cycle(
        store, add_bot(store, "bad"), None, brokers=[], refusal=FAILED, bars=add_bars(store, "FAIL", [GAP])
    )
    bundle = explain(store, "bad")
    assert bundle["metrics"] is bundle["diagnostics"] is None
    assert bundle["snapshot"]["snapshot_id"] == cycle.snapshot_id
    assert bundle["verdict"]["status"] == "FAIL"
    assert bundle["decision"]["failing_gates"][0] == "backtest"
    assert ") was refused: DATA_QUALITY_FAILED: the bars failed the quality gate." in said(bundle)
    assert "bars: SESSION_GAP: 240 minutes without a bar." in said(bundle)
    assert "min_trades" not in said(bundle)
    assert bundle["next_steps"] == ["Pull other bars."]


def test_a_promoted_bot(store: Store) -> None:
    cycle = add_cycle(store, add_bot(store, "ready"), good_ledger(), brokers=["ironbeam"])
    with store.session() as session:
        move_stage(
            session, cycle.bot_id, Stage.PAPER, actor="test", trace_id=cycle.trace_id, decision_id=cycle.decision_id
        )
    bundle = explain(store, "ready")
    assert bundle["stage"] == "PAPER"
    assert [event["decision_id"] for event in bundle["stage_events"]] == [str(cycle.decision_id)]
    assert "Promoted from LAB to PAPER: all 18 gates of gates-v1 passed." in said(bundle)
    assert bundle["next_steps"] == ["Nothing: watch ready in PAPER."]


def test_a_bot_that_was_reset_since_its_backtest(store: Store) -> None:
    cycle = add_cycle(store, add_bot(store, "reset"), good_ledger(), brokers=["ironbeam"])
    with store.session() as session:
        session.get_one(Bot, cycle.bot_id).reset_at = datetime(2100, 1, 1, tzinfo=UTC)
    bundle = explain(store, "reset")
    assert "before the bot's last reset" in said(bundle)
    assert bundle["next_steps"][0] == "Backtest it again: `blaid backtest reset`."


def test_a_decision_that_was_changed_is_called_out(store: Store) -> None:
    add_cycle(store, add_bot(store, "deep"), deep_ledger(), brokers=["ironbeam"])
    with store.session() as session:
        session.execute(text("ALTER TABLE blaid.promotion_decisions DISABLE TRIGGER USER"))
        session.execute(text("UPDATE blaid.promotion_decisions SET decision = 'PROMOTE', failing_gates = '[]'"))
    bundle = explain(store, "deep")
    assert bundle["decision_hash_valid"] is False
    assert "does not match its own hash" in said(bundle)


def test_a_running_job_is_shown(store: Store) -> None:
    bot_id = add_bot(store, "busy")
    with store.session() as session:
        job = create_job(session, JobType.BACKTEST, trace_id=new_trace_id(), bot_id=bot_id)
        move_job(session, job, JobStatus.RUNNING, now=NOW)
    assert "A BACKTEST job is RUNNING since 2026-01-05 12:00" in said(explain(store, "busy"))


def test_the_newest_cycle_counts(store: Store) -> None:
    bot_id = add_bot(store, "twice")
    add_cycle(store, bot_id, deep_ledger(), brokers=["ironbeam"])
    newest = add_cycle(store, bot_id, good_ledger(), brokers=["ironbeam"])
    bundle = explain(store, "twice")
    assert bundle["session"]["id"] == str(newest.session_id)
    assert bundle["decision"]["decision"] == "PROMOTE"


@pytest.mark.parametrize("name", ["nobody", "", "x'; DROP TABLE blaid.bots; --", "a\nb", "%s :bot"])
def test_an_unknown_name_is_refused(store: Store, name: str) -> None:
    add_bot(store, "somebody")
    with pytest.raises(InvalidRequest) as caught:
        explain(store, name)
    assert caught.value.reason.code is ReasonCode.NOT_FOUND
    assert explain(store, "somebody")["stage"] == "LAB"
