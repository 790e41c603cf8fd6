"""What the market data's events show of a series: what a quant reads in the Dagster UI, and where the rest of it is.

Pictures and tables first, numbers that Dagster plots over the runs next, ids and hashes last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from blaid_pipelines.lab.pictures import line_chart
from resources.lab import day_of, markdown_table, picture

if TYPE_CHECKING:
    from blaid_pipelines.lab.portrait import Portrait
    from blaid_pipelines.lab.series import SeriesOutcome
    from blaid_pipelines.store.tables import QualityVerdict

SUITE_NUMBERS = ("element_count", "missing_count", "unexpected_percent")
"""What the expectations library counts of every check: kept, but not worth a plot."""
PROOF = ("trace_id", "request_ids", "snapshot_id", "content_hash", "policy_hash")


def bars_event(outcome: SeriesOutcome, portrait: Portrait) -> dict[str, Any]:
    """The metadata of one materialization of ``bars``."""
    snapshot, values = outcome.snapshot, dict(outcome.metadata)
    proof = {name: values.pop(name, None) for name in PROOF}
    kind = "simulated bars" if snapshot.simulated else "bars"
    source = snapshot.provenance.get("source")
    span = f"{snapshot.range_start:%Y-%m-%d %H:%M} to {snapshot.range_end:%Y-%m-%d %H:%M} UTC"
    return {
        "summary": f"{snapshot.bar_count:,} {kind} of {snapshot.symbol} ({snapshot.schema}) from {source}, {span}",
        **series_pictures(portrait),
        "first_and_last_bars": markdown_table(
            ("opens, UTC", "contract", "open", "high", "low", "close", "volume"), portrait.bars
        ),
        "rolls": rolls_table(portrait),
        "dagster/row_count": snapshot.bar_count,
        "missing_pct": portrait.missing_pct,
        **values,
        **proof,
    }


def rolls_table(portrait: Portrait) -> dg.MetadataValue | None:
    """Where the series goes over to another contract, and how prices step there; None where it does not."""
    columns = ("first bar, UTC", "from", "to", "step", "ticks", "seen")
    return markdown_table(columns, portrait.rolls) if portrait.rolls else None


def series_pictures(portrait: Portrait) -> dict[str, dg.MetadataValue | None]:
    """The last price and the minutes without a bar of each session; None where there is no session to draw."""
    if not portrait.session_dates:
        return {"last_price": None, "missing_minutes": None}
    days = [day_of(date) for date in portrait.session_dates]
    price, missing = portrait.closes, portrait.missing_minutes
    worst = max(range(len(missing)), key=missing.__getitem__)
    return {
        "last_price": picture(
            line_chart("Last price of each session, contracts as they are", days, price),
            f"last price from {price[0]:g} to {price[-1]:g}",
        ),
        "missing_minutes": picture(
            line_chart("Open-market minutes without a bar", days, missing),
            f"at most {missing[worst]:g} minutes without a bar, in session {days[worst]}",
        ),
    }


def verdict_event(verdict: QualityVerdict, portrait: Portrait) -> dict[str, Any]:
    """The metadata of one materialization of ``quality_verdict``: what was found first, every check below."""
    passed = sum(check["status"] == "PASS" for check in verdict.checks)
    rows = [(check["name"], check["status"], summary_of(check)) for check in verdict.checks]
    return {
        "status": verdict.status,
        "findings": findings_table(verdict.checks),
        "missing_minutes": series_pictures(portrait)["missing_minutes"],
        "checks": markdown_table(("check", "status", "what was found"), rows),
        "checks_passed": passed,
        "checks_not_passed": len(verdict.checks) - passed,
        "reason_codes": [str(reason["code"]) for reason in verdict.reasons] or None,
        "suite_version": verdict.suite_version,
        "verdict_id": str(verdict.id),
        "trace_id": verdict.trace_id,
        "snapshot_id": verdict.snapshot_id,
        "content_hash": verdict.content_hash,
        "policy_hash": verdict.policy_hash,
    }


def check_event(check: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of one check of the gate. Numbers stand by themselves, so that Dagster plots them over the runs."""
    reason = check.get("reason") or {}
    numbers = dict(check.get("numbers") or {})
    summary = numbers.pop("summary", None)
    plotted = {
        name: float(value)
        for name, value in numbers.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in SUITE_NUMBERS
    }
    rest = {name: value for name, value in numbers.items() if name not in plotted and name != "symbol"}
    return {
        "status": check["status"],
        "found": summary,
        "error_code": reason.get("code"),
        "refused_because": reason.get("message"),
        "what_to_do": reason.get("suggested_fix"),
        **plotted,
        "details": rest or None,
    }


def summary_of(check: Mapping[str, Any]) -> str | None:
    """What a check found, in a sentence; None where it reports nothing."""
    summary = (check.get("numbers") or {}).get("summary")
    return None if summary is None else str(summary)


def findings_table(checks: Sequence[Mapping[str, Any]]) -> dg.MetadataValue | None:
    """What the gate refuses, a line for each check that did not pass; None where all passed."""
    rows = []
    for check in checks:
        if check["status"] != "PASS":
            reason = check.get("reason") or {}
            numbers = check.get("numbers") or {}
            where = numbers.get("first_at") or numbers.get("sessions") or []
            place = f"; first at {where[0]}" if where and str(where[0]) not in str(summary_of(check)) else ""
            # Three columns: the page is narrow, and what to do must not be cut off.
            name = f"{check['name']}: {reason.get('code') or check['status']}"
            rows.append((name, f"{summary_of(check)}{place}", reason.get("suggested_fix")))
    return markdown_table(("check", "what was found", "what to do"), rows) if rows else None
