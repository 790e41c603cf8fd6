"""What the LAB's events show of a bot: what a quant reads in the Dagster UI, and where the rest of it is.

Postgres keeps every document whole, under the session id; an event holds the proof, the headline numbers and tables to
read. A cohort of two hundred bots writes eight hundred events a cycle, so what is in here is paid for each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from resources.lab import day_of, markdown_table, picture, reasons_table

Values = Mapping[str, Any]
# Numbers that Dagster plots over the runs of a bot, lifted out of the document that holds them all.
PLOTTED = ("sessions", "trades", "max_drawdown_pct", "win_rate_pct", "profit_factor", "psr0")
PROOF = ("trace_id", "session_id", "request_ids", "snapshot_id", "content_hash", "strategy_hash", "policy_hash")
BUCKETS = ("side", "exit_reason")


def _proof(values: Values) -> dict[str, Any]:
    return {name: values.get(name) for name in PROOF}


def _backtest(values: Values) -> dict[str, Any]:
    metrics = values.get("metrics") or {}
    reason = values.get("reason")
    return {
        "status": values.get("status"),
        "reason_code": None if reason is None else reason["code"],
        "reason": None if reason is None else reasons_table([reason]),
        "equity_curve": _equity_curve(values),
        "net_pnl_usd": metrics["net_pnl_cents"] / 100 if "net_pnl_cents" in metrics else None,
        **{name: metrics[name] for name in PLOTTED if name in metrics},
        "metrics": markdown_table(("metric", "value"), sorted(metrics.items())) if metrics else None,
        "result_hash": values.get("result_hash"),
        **_proof(values),
    }


def _equity_curve(values: Values) -> dg.MetadataValue | None:
    """The balance at the end of each session, as a picture."""
    equity = values.get("equity") or {}
    if not equity.get("equity_usd"):
        return None
    from blaid_pipelines.lab.pictures import line_chart

    dates = [day_of(date) for date in equity["session_date"]]
    start = equity["equity_usd"][0]
    svg = line_chart("Equity at each session's end, USD", dates, equity["equity_usd"], level=start)
    return picture(svg, f"equity from {start:,.2f} to {equity['equity_usd'][-1]:,.2f} USD")


def _diagnostics(values: Values) -> dict[str, Any]:
    payload = values["diagnostics"]
    overall = payload["overall"]
    buckets = [(view, bucket) for view in BUCKETS for bucket in payload["breakdown"][view]]
    numbers = ("trades", "net_pnl_cents", "expectancy_cents", "win_rate_pct", "profit_factor")
    columns = ("view", "bucket", *numbers)
    rows = [(view, bucket["bucket"], *(bucket[name] for name in numbers)) for view, bucket in buckets]
    session_id = values["session_id"]
    return {
        **{name: overall[name] for name in numbers},
        "exposure_pct": payload["exposure_pct"],
        "ambiguous_trades": payload["ambiguous_trades"],
        "breakdown": markdown_table(columns, rows),
        "views": sorted(payload["breakdown"]),
        "whole_payload": f"SELECT payload FROM backtest_diagnostics WHERE session_id = '{session_id}'",
        **_proof(values),
    }


def _autonomy_score(values: Values) -> dict[str, Any]:
    columns = ("name", "status", "value", "weight", "points", "problem")
    rows = [[part[name] for name in columns] for part in values["subscores"]]
    return {
        "score": values["score"],
        "tier": values["tier"],
        "subscores": markdown_table(columns, rows),
        "blockers": reasons_table(values["blockers"]),
        **_proof(values),
    }


def _promotion_decision(values: Values) -> dict[str, Any]:
    from blaid_pipelines.lab.status import deciding_gate

    gates = values["gates"]
    name, code = deciding_gate(gates)
    columns = ("gate", "status", "input", "compared", "threshold", "why", "what to do")
    rows = []
    for gate in gates:
        reason = gate["reason"] or {}
        why = reason.get("message") or gate["note"]
        read = gate["input"]
        if isinstance(read, Mapping):  # ids: which were there; their values are in the decision's row
            read = ", ".join(name for name, value in read.items() if value)
        compared = (read, gate["comparison"], gate["threshold"])
        rows.append((gate["name"], gate["status"], *compared, why, reason.get("suggested_fix")))
    return {
        "decision": values["decision"],
        "from_stage": values["from_stage"],
        "to_stage": values["to_stage"],
        "first_failing_gate": name,
        "first_failing_reason": code,
        "gates_passed": sum(gate["status"] == "PASS" for gate in gates),
        "gates_not_passed": sum(gate["status"] != "PASS" for gate in gates),
        "failing_gates": _failing_gates(gates),
        "gates": markdown_table(columns, rows),
        "decision_hash": values["decision_hash"],
        **_proof(values),
    }


def _failing_gates(gates: Sequence[Values]) -> dg.MetadataValue | None:
    """The gates that did not pass, short enough to be shown without a click; None where all passed."""
    rows = []
    for gate in gates:
        if gate["status"] != "PASS":
            value = gate["input"]
            read = None if isinstance(value, Mapping | list) else value
            code = (gate["reason"] or {}).get("code") or gate["status"]
            rows.append((gate["name"], code, read, gate["comparison"], gate["threshold"]))
    return markdown_table(("gate", "code", "input", "wanted", "threshold"), rows) if rows else None


SHOWN: Mapping[str, Callable[[Values], dict[str, Any]]] = {
    "backtest": _backtest,
    "diagnostics": _diagnostics,
    "autonomy_score": _autonomy_score,
    "promotion_decision": _promotion_decision,
}
"""Per asset of the cohort: from the metadata of ``lab.cycle`` to what its event shows."""
