"""``blaid backtest``, ``reproduce``, ``explain`` and ``status``: what happens to a bot, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from blaid_pipelines.cli.output import dollars, json_option, note, print_json, print_table

if TYPE_CHECKING:
    from blaid_pipelines.lab.status import BotStatus

REFUSED = 3
# How people read the inputs of gates whose numbers have a unit.
UNITS: Mapping[str, Callable[[Any], str]] = {
    "min_win_rate": lambda value: f"{value:.2f} %",
    "max_drawdown": lambda value: f"{value:.2f} %",
    "worst_day": lambda value: f"{dollars(value)} USD",
}
GATE_COLUMNS = ("name", "status", "input", "comparison", "threshold", "code")
DIFFERENT = 1


@click.command()
@click.argument("name")
@click.option("--snapshot", "snapshot_id", help="Snapshot to use instead of the newest of the bot's series.")
@json_option
@click.pass_context
def backtest(ctx: click.Context, name: str, snapshot_id: str | None, as_json: bool) -> None:
    """Backtest, diagnose, score and judge the bot called NAME.

    Exits 0 when the backtest was done, promoted or not; 3 when a gate refused it (bars without a passing verdict).
    """
    from blaid_pipelines.lab.bots import require_bots
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.lab.status import session_status
    from blaid_pipelines.market.lake.snapshots import get_snapshot
    from blaid_pipelines.settings import load_settings

    settings = load_settings()
    with open_lab(settings) as lab:
        require_bots(lab, [name])
        if snapshot_id is not None:
            get_snapshot(lab.store, snapshot_id)
    if not as_json:
        note(f"{name}: backtest, diagnostics, score, decision (Dagster job lab_cycle) ...")
    # Dagster is imported here, once there is something to run.
    from resources.commands import run_lab_cycle

    run = run_lab_cycle(settings, [name], snapshot_id=snapshot_id)
    decided = next(made.metadata for made in run.materialized if made.asset == "promotion_decision")
    with open_lab(settings) as lab:
        status = session_status(lab, UUID(str(decided["session_id"])))
        session = session_json(lab, status)
    if as_json:
        done = status.session_status == "COMPLETED"
        reason = session["reason_detail"] or {}
        error = {"error_code": reason.get("code"), **{name: reason.get(name) for name in ("message", "suggested_fix")}}
        print_json({"success": done, **({} if done else error), "run_id": run.run_id, **status.as_json(), **session})
    else:
        print_statuses([status], "Backtest")
        _print_session(status, session)
    if status.session_status == "REFUSED":
        ctx.exit(REFUSED)
    if status.session_status != "COMPLETED":
        ctx.exit(DIFFERENT)


def session_json(lab: Any, status: BotStatus) -> dict[str, Any]:
    """What a session row adds to a bot's line: metrics, hashes, files and the reason of a refusal."""
    from blaid_pipelines.store.tables import BacktestSession, Snapshot

    with lab.store.session() as session:
        row = session.get_one(BacktestSession, status.session_id)
        snapshot = None if row.snapshot_id is None else session.get_one(Snapshot, row.snapshot_id)
        return {
            "bars": None if snapshot is None else snapshot.bar_count,
            "first_ts": None if snapshot is None else snapshot.first_ts,
            "last_ts": None if snapshot is None else snapshot.last_ts,
            "simulated": None if snapshot is None else snapshot.simulated,
            "source": None if snapshot is None else snapshot.provenance.get("source"),
            "metrics": row.metrics,
            "reason_detail": row.reason,
            "snapshot_id": row.snapshot_id,
            "content_hash": row.content_hash,
            "strategy_hash": row.strategy_hash,
            "params_hash": row.params_hash,
            "policy_hash": row.policy_hash,
            "engine_version": row.engine_version,
            "result_hash": row.result_hash,
            "trades_path": None if row.trades_path is None else str(lab.lake / row.trades_path),
            "equity_path": None if row.equity_path is None else str(lab.lake / row.equity_path),
        }


def _print_session(status: BotStatus, session: Mapping[str, Any]) -> None:
    if session["reason_detail"] is not None:
        reason = session["reason_detail"]
        click.echo(f"{reason['code']}: {reason['message']}")
        click.echo(f"  Next: {reason['suggested_fix']}")
        return
    kind = "simulated bars" if session["simulated"] else "bars"
    click.echo(f"Read {session['bars']:,} {kind} of {status.symbol}, {session['first_ts']} to {session['last_ts']}")
    click.echo(f"  snapshot {session['snapshot_id']}, source {session['source']}")
    click.echo(f"Session {status.session_id}; trades in {session['trades_path']}")
    click.echo(f"Next: blaid explain {status.name}   or   blaid reproduce {status.session_id}")


def print_statuses(statuses: Sequence[BotStatus], title: str) -> None:
    """The table that `blaid status`, `blaid backtest` and `blaid demo` share."""
    print_table(
        title,
        ("bot", "stage", "instrument", "trades", "net PnL USD", "max drawdown %", "score", "tier", "decision",
         "first failing gate"),
        (
            (
                row.name,
                row.stage,
                row.symbol or row.instrument,
                row.trades,
                None if row.net_pnl is None else f"{row.net_pnl:,.2f}",
                None if row.max_drawdown_pct is None else f"{row.max_drawdown_pct:.2f}",
                None if row.score is None else f"{row.score:.1f}",
                row.tier,
                row.decision,
                row.first_failing_gate and f"{row.first_failing_gate} ({row.reason})",
            )
            for row in statuses
        ),
        right=("trades", "net PnL USD", "max drawdown %", "score"),
    )  # fmt: skip


def proof_line(proof: Mapping[str, Any]) -> str:
    """One line that compares the counts and says whether they prove anything."""
    names = {"calls": "external calls", "rows": "request rows"}
    if proof["counted_by_gateway"]:
        names["sandbox_received"] = "requests that the sandbox received"
    notes = []
    if proof["unreached"]:
        notes.append(f"{proof['unreached']} of the calls met no server, so nobody received them")
    if proof["unknown"]:
        notes.append(f"{proof['unknown']} rows have no known outcome: their process was killed in between")
    if proof["unsent"]:
        notes.append(f"{proof['unsent']} rows are of calls that were not made: process or disk gave out before")
    if proof["equal"] and len({proof[key] for key in names}) == 1:
        line = f"Proof: {' = '.join(names.values())} = {proof['rows']}"
    else:
        shown = ", ".join(f"{name} {'unknown' if proof[key] is None else proof[key]}" for key, name in names.items())
        line = f"Proof: {shown} - " + ("they agree" if proof["equal"] else "THEY DO NOT AGREE")
    return line + "".join(f"; {text}" for text in notes)


@click.command()
@click.argument("session")
@json_option
@click.pass_context
def reproduce(ctx: click.Context, session: str, as_json: bool) -> None:
    """Run the recorded SESSION again from its recorded inputs and compare bit for bit (exit 1: a difference)."""
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.lab.reproduce import reproduce as run_again
    from blaid_pipelines.settings import load_settings

    with open_lab(load_settings()) as lab:
        outcome = run_again(lab, session)
    if as_json:
        print_json(
            {
                "success": outcome.identical,
                "session_id": str(outcome.session_id),
                "identical": outcome.identical,
                "recorded_hash": outcome.recorded_hash,
                "result_hash": outcome.result_hash,
                "trades": outcome.trades,
                "differences": outcome.differences,
            }
        )
    elif outcome.identical:
        click.echo(f"Identical: {outcome.trades} trades, bit for bit (result {outcome.result_hash}).")
    else:
        click.echo(f"NOT REPRODUCED: {len(outcome.differences)} differences.")
        for difference in outcome.differences:
            click.echo(f"  {difference}")
        click.echo("  Next: compare code and data with the session's row; `blaid backtest` makes a new session.")
    if not outcome.identical:
        ctx.exit(DIFFERENT)


@click.command()
@click.argument("name")
@json_option
@click.pass_context
def explain(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show why the bot called NAME is or is not promoted: gates, score, diagnostics, data, requests, trace ids.

    Exits 1 when the stored decision does not match its own hash: it was changed, and nothing it says counts.
    """
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.lab.explain import explain as build
    from blaid_pipelines.settings import load_settings

    with open_lab(load_settings()) as lab:
        bundle = build(lab.store, name)
    tampered = bundle["decision_hash_valid"] is False
    if as_json:
        print_json({"success": not tampered, **bundle})
    else:
        if tampered:
            click.echo("THE DECISION'S ROW DOES NOT MATCH ITS OWN HASH: it was changed. Do not rely on what follows.")
        _print_bundle(bundle)
    if tampered:
        ctx.exit(DIFFERENT)


def _gate_cells(gate: Mapping[str, Any]) -> list[Any]:
    """A gate as cells, with units; ids that make up the evidence are in the JSON bundle, not in the table."""
    cells = []
    for key in GATE_COLUMNS:
        value = gate[key]
        if isinstance(value, dict | list):
            value = "complete"
        elif key in {"input", "threshold"} and value is not None and gate["name"] in UNITS:
            value = UNITS[gate["name"]](value)
        elif isinstance(value, float):
            value = f"{value:.6g}"
        cells.append(value)
    return cells


def _print_bundle(bundle: Mapping[str, Any]) -> None:
    for line in bundle["why"]:
        click.echo(line)
    decision, score, session = bundle["decision"], bundle["score"], bundle["session"]
    if decision is not None:
        print_table(
            f"Gates ({decision['gate_set']}, policy {decision['policy_hash'][:12]})",
            ("gate", "status", "input", "", "threshold", "reason"),
            (_gate_cells(gate) for gate in decision["gates"]),
            right=("input",),
        )
    if score is not None:
        print_table(
            f"Autonomy score {score['score']:.1f}, {score['tier']}",
            ("sub-score", "status", "value", "points", "of", "what is missing"),
            (
                (
                    part["name"],
                    part["status"],
                    None if part["value"] is None else f"{part['value']:.3f}",
                    f"{part['points']:.1f}",
                    f"{part['weight']:g}",
                    part["problem"],
                )
                for part in score["subscores"]
            ),
            right=("value", "points", "of"),
        )
    if session is not None:
        click.echo(f"Session {session['id']}, snapshot {session['snapshot_id']}")
        click.echo("Trace ids: " + ", ".join(f"{what} {trace_id}" for what, trace_id in bundle["trace_ids"].items()))
    for step in bundle["next_steps"]:
        click.echo(f"Next: {step}")


@click.command()
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show every bot with its latest result and decision, and the proof of use.

    Exits 1 when the counts of external calls do not agree: then nothing is proven.
    """
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.lab.status import bot_statuses, status_report
    from blaid_pipelines.settings import load_settings

    with open_lab(load_settings()) as lab:
        report = status_report(lab)
        rows = bot_statuses(lab)
    if as_json:
        print_json({"success": report["proof"]["equal"], **report})
    else:
        if rows:
            print_statuses(rows, f"Bots ({report['environment']})")
        else:
            click.echo("No bots yet. `blaid demo` shows the whole way; `blaid bot create` makes one.")
        click.echo(proof_line(report["proof"]))
    if not report["proof"]["equal"]:
        ctx.exit(DIFFERENT)
