"""What events show: readable, small, and never more or other than what is stored."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from assets.lab_events import SHOWN
from assets.market import verdict_checks
from assets.market_events import check_event, findings_table, summary_of
from blaid_pipelines.lab.status import deciding_gate
from blaid_pipelines.market.gate.checks import QUALITY_CHECKS
from blaid_pipelines.market.gate.suite import CHECKS
from blaid_pipelines.policy.gates import GateResult, GateStatus
from resources.lab import event_metadata, markdown_table
from tests.analysts.world import GATES

PROOF = {
    "trace_id": "t" * 32,
    "session_id": "0190",
    "request_ids": ["r"],
    "snapshot_id": "s",
    "content_hash": "c",
    "strategy_hash": "h",
    "policy_hash": "p",
}


def test_every_check_of_the_gate_is_an_asset_check() -> None:
    assert list(QUALITY_CHECKS) == [check.name for check in CHECKS]
    results = {result.check_name: result for result in verdict_checks("FAIL", [], [])}
    assert list(results) == [*QUALITY_CHECKS, "verdict"]
    assert not any(result.passed for result in results.values())


@pytest.mark.parametrize("missing", ["bar_count", "copied_sessions"])
def test_a_check_that_the_verdict_does_not_report_refuses(missing: str) -> None:
    reported = [{"name": name, "status": "PASS", "numbers": {}, "reason": None} for name in QUALITY_CHECKS]
    results = list(verdict_checks("PASS", [check for check in reported if check["name"] != missing], []))
    assert [result.check_name for result in results if not result.passed] == [missing, "verdict"]
    assert results[-1].metadata["reasons"].value is not None
    assert all(result.passed for result in verdict_checks("PASS", reported, []))


@pytest.mark.parametrize("bot", GATES)
def test_a_decision_shows_the_gates_as_a_table_and_the_one_that_decided(bot: str) -> None:
    values = {
        **PROOF,
        "decision": "REFUSE",
        "from_stage": "LAB",
        "to_stage": "PAPER",
        "gates": GATES[bot],
        "decision_hash": "d",
    }
    shown = event_metadata(SHOWN["promotion_decision"](values))
    assert (shown["first_failing_gate"].value, shown["first_failing_reason"].value) == deciding_gate(GATES[bot])
    head, rule, *lines = str(shown["gates"].value).splitlines()
    assert len(lines) == len(GATES[bot])
    assert {line.count("|") for line in (head, rule, *lines)} == {8}
    assert {name: shown[name].value for name in PROOF} == PROOF


def test_a_gate_that_read_ids_shows_which_were_there() -> None:
    ids = GateResult("evidence", GateStatus.PASS, {"session_id": "0190", "result_hash": None}, "every id", "has")
    values = {**PROOF, "decision": "REFUSE", "from_stage": "LAB", "to_stage": "PAPER", "decision_hash": "d"}
    shown = event_metadata(SHOWN["promotion_decision"]({**values, "gates": [ids.as_json()]}))
    assert str(shown["gates"].value).splitlines()[-1] == "| evidence | PASS | session_id | has | every id |  |  |"
    assert "first_failing_gate" not in shown


def test_a_refused_backtest_shows_why() -> None:
    reason = {"code": "SNAPSHOT_MISSING", "message": "no | bars", "suggested_fix": "pull\nthem", "numbers": {}}
    values = {**PROOF, "status": "REFUSED", "reason": reason, "metrics": None, "result_hash": None}
    shown = event_metadata(SHOWN["backtest"](values))
    assert shown["reason_code"].value == "SNAPSHOT_MISSING"
    assert str(shown["reason"].value).splitlines()[-1] == "| SNAPSHOT_MISSING | no \\| bars | pull them |"
    assert "metrics" not in shown


def test_diagnostics_show_the_headline_and_say_where_the_rest_is() -> None:
    bucket = {"bucket": "LONG", "trades": 3, "net_pnl_cents": 5, "expectancy_cents": 1.6666667}
    bucket |= {"win_rate_pct": None, "profit_factor": None, "expectancy_interval_cents": [1, 2]}
    payload: dict[str, Any] = {
        "overall": bucket,
        "breakdown": {"side": [bucket], "exit_reason": [], "hour": [bucket] * 24},
        "exposure_pct": 1.5,
        "ambiguous_trades": 0,
    }
    shown = event_metadata(SHOWN["diagnostics"]({**PROOF, "diagnostics": payload}))
    assert shown["trades"].value == 3
    assert "| side | LONG | 3 | 5 | 1.66667 |  |  |" in str(shown["breakdown"].value)
    assert "session_id = '0190'" in str(shown["whole_payload"].value)
    assert shown["views"].value == ["exit_reason", "hour", "side"]


def test_a_table_keeps_its_columns_whatever_a_cell_holds() -> None:
    table = markdown_table(("a", "b"), [("x|y", None), ("two\nlines", 0.1 + 0.2)])
    assert table.value == "| a | b |\n| --- | --- |\n| x\\|y |  |\n| two lines | 0.3 |"


def test_a_check_explains_itself_and_its_numbers_can_be_plotted() -> None:
    numbers = {"summary": "worst 12 minutes at session 20240115, 30 allowed", "symbol": "MES", "worst": 12.0}
    numbers |= {"max_gap_minutes": 30, "worst_at": "session 20240115"}
    check = {"name": "session_gaps", "status": "PASS", "numbers": numbers, "reason": None}
    shown = event_metadata(check_event(check))
    assert shown["found"].value == numbers["summary"] == summary_of(check)
    assert (shown["worst"].value, shown["max_gap_minutes"].value) == (12.0, 30.0)
    assert all(isinstance(shown[name], dg.FloatMetadataValue) for name in ("worst", "max_gap_minutes"))
    assert shown["details"].value == {"worst_at": "session 20240115"}


def test_findings_name_what_was_refused_where_and_what_to_do() -> None:
    reason = {"code": "SESSION_GAP", "message": "MES: holes", "suggested_fix": "Pull again.", "numbers": {}}
    numbers = {"summary": "worst 45 minutes, 30 allowed", "sessions": [20240115, 20240116]}
    failed = {"name": "session_gaps", "status": "FAIL", "numbers": numbers, "reason": reason}
    passed = {"name": "bar_count", "status": "PASS", "numbers": {"summary": "fine"}, "reason": None}
    table = findings_table([passed, failed])
    assert table is not None
    assert str(table.value).splitlines()[2:] == [
        "| session_gaps: SESSION_GAP | worst 45 minutes, 30 allowed; first at 20240115 | Pull again. |"
    ]
    assert findings_table([passed]) is None
