"""Why a bot is, or is not, promoted: one bundle with the whole chain of evidence, and the sentences a person reads.

The bundle is what ``explain.sql`` returns (anyone with ``psql`` gets the same), plus the sentences and a check of the
decision's hash. Nothing is computed again and nothing is guessed: a part that does not exist is None, and the
sentences say what is missing and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import Any

from sqlalchemy import text

from blaid_pipelines.policy.promotion import PROMOTE, decision_hash_of
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode
from blaid_pipelines.store.database import Store

Row = Mapping[str, Any]


def explain_sql() -> str:
    """The SQL statement of the bundle; its one parameter ``:bot`` is the bot's name."""
    return (resources.files(__package__) / "explain.sql").read_text(encoding="utf-8")


def explain(store: Store, bot_name: str) -> dict[str, Any]:
    """The bundle of one bot, JSON-ready.

    Keys: ``bot``, ``stage``, ``session`` and its ``metrics`` and ``diagnostics``, ``score``, ``decision`` with every
    gate, ``snapshot``, ``verdict``, ``requests``, ``requests_cited``, ``stage_events``, ``jobs``, ``trace_ids`` (all
    from one SQL statement), ``decision_hash_valid`` (None without a decision), ``why`` and ``next_steps`` (sentences).
    Raises :class:`InvalidRequest` (NOT_FOUND) for an unknown bot.
    """
    with store.session() as session:
        row = session.execute(text(explain_sql()), {"bot": bot_name}).one_or_none()
    if row is None:
        raise InvalidRequest(
            Reason(
                ReasonCode.NOT_FOUND, f"there is no bot called {bot_name}", "See `blaid bot list`.", {"bot": bot_name}
            )
        )
    bundle: dict[str, Any] = dict(row[0])
    decision = bundle["decision"]
    bundle["decision_hash_valid"] = None
    if decision is not None:
        bundle["decision_hash_valid"] = decision_hash_of(decision) == decision["decision_hash"]
    bundle["why"] = why(bundle)
    bundle["next_steps"] = next_steps(bundle)
    return bundle


def why(bundle: Row) -> list[str]:
    """Sentences that answer "why is this bot where it is", most important first."""
    bot, session = bundle["bot"], bundle["session"]
    series = bot["symbol"] or bot["instrument"]
    lines = [
        f"{bot['name']} is in {bot['stage']}: {bot['strategy_family']} on {series}, {_contracts(bot['contracts'])},"
        f" capital {_usd(bot['capital_cents'])}."
    ]
    lines += _job_lines(bundle)
    if session is None:
        lines.append("It has not been backtested yet, so there is no evidence and nothing to promote it on.")
        lines += _data_lines(bundle)
        return lines
    lines += _session_lines(bundle)
    lines += _decision_lines(bundle)
    lines += _score_lines(bundle)
    lines += _data_lines(bundle)
    return lines


def next_steps(bundle: Row) -> list[str]:
    """What to do next, first things first; each sentence once."""
    bot, session, decision = bundle["bot"], bundle["session"], bundle["decision"]
    steps: list[str] = []
    if session is None:
        if bundle["snapshot"] is None:
            symbol = bot["symbol"] or f"{bot['instrument']}.c.0"
            steps.append(f"Get bars: `blaid pull {symbol} --start D --end D`, or `blaid ingest FILE... --symbol S`.")
        elif bundle["verdict"] is None or bundle["verdict"]["status"] != "PASS":
            steps.append("Get bars that pass the quality gate; the backtest refuses these.")
        steps.append(f"Backtest it: `blaid backtest {bot['name']}`.")
        return steps
    if session["reason"] is not None:
        steps.append(session["reason"]["suggested_fix"])
    if bundle["decision_hash_valid"] is False or _before_reset(bundle) or decision is None:
        steps.append(f"Backtest it again: `blaid backtest {bot['name']}`.")
    if session["reason"] is None and decision is not None:
        steps += [gate["reason"]["suggested_fix"] for gate in _open_gates(decision) if gate["reason"] is not None]
    if not steps:
        steps.append(f"Nothing: watch {bot['name']} in {bot['stage']}.")
    return list(dict.fromkeys(steps))


def _job_lines(bundle: Row) -> list[str]:
    return [
        f"A {job['job_type']} job is {job['status']} since {_when(job['started_at'] or job['created_at'])}"
        f" (trace {job['trace_id']})."
        for job in bundle["jobs"]
        if job["status"] in {"QUEUED", "RUNNING"}
    ]


def _session_lines(bundle: Row) -> list[str]:
    session, metrics = bundle["session"], bundle["metrics"]
    when = _when(session["created_at"])
    lines = []
    if session["status"] != "COMPLETED":
        reason = session["reason"]
        ended = "was refused" if session["status"] == "REFUSED" else "failed"
        lines.append(f"Its last backtest ({when}) {ended}: {reason['code']}: {reason['message']}.")
        if reason["code"].startswith("DATA_QUALITY") and bundle["verdict"] is not None:
            lines += [f"  bars: {check['code']}: {check['message']}." for check in bundle["verdict"]["reasons"]]
    else:
        lines.append(
            f"Its last backtest ({when}) made {session['trades']} trades in {metrics.get('sessions', '?')} sessions:"
            f" net {_usd(session['net_pnl_cents'])}, drawdown {_number(session['max_drawdown_pct'])} % of capital."
        )
    if _before_reset(bundle):
        lines.append("That was before the bot's last reset, so it does not count any more.")
    return lines


def _decision_lines(bundle: Row) -> list[str]:
    decision, session = bundle["decision"], bundle["session"]
    if decision is None:
        return ["No promotion decision has been made on it."]
    gates, open_gates = decision["gates"], _open_gates(decision)
    move = f"{decision['from_stage']} to {decision['to_stage']}"
    lines = []
    if decision["session_id"] != session["id"]:
        lines.append("The newest decision is about an older backtest than the newest one.")
    if decision["decision"] == PROMOTE:
        lines.append(f"Promoted from {move}: all {len(gates)} gates of {decision['gate_set']} passed.")
    else:
        lines.append(
            f"Not promoted from {move}: {len(open_gates)} of the {len(gates)} gates of {decision['gate_set']}"
            " did not pass."
        )
    refusal_said = session["status"] != "COMPLETED"
    for gate in open_gates:
        if refusal_said and gate["status"] == "UNKNOWN":
            continue  # a backtest that never ran leaves every number unknown; its own reason stands above
        message = "" if gate["reason"] is None else gate["reason"]["message"]
        lines.append(f"  {gate['name']}: {gate['status']} {gate['code']}: {message}.")
    lines += [f"  {gate['name']}: {gate['note']}." for gate in gates if gate["status"] == "PASS" and gate.get("note")]
    if bundle["decision_hash_valid"] is False:
        lines.append("The decision's row does not match its own hash: it was changed; do not rely on it.")
    return lines


def _score_lines(bundle: Row) -> list[str]:
    score = bundle["score"]
    if score is None:
        return ["It has no autonomy score."]
    lines = [f"Autonomy score {_number(score['score'])} of 100, tier {score['tier']}. What blocks more:"]
    lines += [f"  {blocker['message']}." for blocker in score["blockers"]]
    return lines if score["blockers"] else [f"Autonomy score {_number(score['score'])} of 100, tier {score['tier']}."]


def _data_lines(bundle: Row) -> list[str]:
    snapshot, verdict = bundle["snapshot"], bundle["verdict"]
    if snapshot is None:
        return ["There are no bars of its series in the lake."]
    kind = "simulated bars" if snapshot["simulated"] else "bars"
    quality = "not judged" if verdict is None else verdict["status"]
    line = (
        f"Data: {snapshot['bar_count']:,} {kind} of {snapshot['symbol']} ({snapshot['schema']}) from"
        f" {_when(snapshot['range_start'])} to {_when(snapshot['range_end'])}, snapshot {snapshot['snapshot_id'][:16]},"
        f" quality {quality}."
    )
    cited, found = bundle["requests_cited"], bundle["requests"]
    if bundle["session"] is None or not cited:
        return [line] if cited else [line, "No external call stands behind it (bars from files, or none were read)."]
    good = sum(1 for request in found if request["success"] is True)
    proof = f"Proof: {cited} external calls cited, {len(found)} rows in the request log, {good} of them succeeded."
    return [line, proof]


def _open_gates(decision: Row) -> Sequence[Row]:
    return [gate for gate in decision["gates"] if gate["status"] != "PASS"]


def _before_reset(bundle: Row) -> bool:
    created = datetime.fromisoformat(bundle["session"]["created_at"])
    return created < datetime.fromisoformat(bundle["bot"]["reset_at"])


def _when(stamp: str) -> str:
    return datetime.fromisoformat(stamp).strftime("%Y-%m-%d %H:%M")


def _usd(cents: int | None) -> str:
    return "?" if cents is None else f"{cents / 100:,.2f} USD"


def _number(value: float | int | None) -> str:
    return "?" if value is None else f"{value:.10g}"


def _contracts(count: int) -> str:
    return f"{count} contract" if count == 1 else f"{count} contracts"
