"""What the commands that bring bars in share: running the ``market_data`` job, and showing the snapshot that it made.

The job runs on the Dagster instance, in this process, so that each command leaves its lineage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from blaid_pipelines.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from blaid_pipelines.store.tables import QualityVerdict, Snapshot

symbol_help = "Series symbol: a contract (6EH4, MESZ6) or a continuous series (MES.c.0)."
schema_option = click.option("--schema", default="ohlcv-1m", show_default=True, help="Bar schema.")


def run_market_data(symbol: str, config: dict[str, Any], *, as_json: bool) -> None:
    """Run the job for one series, in this process, and show its snapshot and verdict."""
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.market.instruments import get_instrument
    from blaid_pipelines.market.lake.snapshots import current_head, get_snapshot, verdict_of
    from blaid_pipelines.settings import load_settings

    settings = load_settings()
    # What cannot be asked at all is refused here: it starts no run and leaves no partition behind.
    with open_lab(settings) as lab:
        get_instrument(lab.store, symbol)
    if not as_json:
        note(f"{symbol}: bars, then the quality gate (Dagster job market_data) ...")
    # Dagster is imported here, once there is something to run.
    from resources.commands import run_market_data as run_job

    run = run_job(settings, symbol, config)
    with open_lab(settings) as lab:
        snapshot = get_snapshot(lab.store, run.bars["snapshot_id"])
        verdict = verdict_of(lab.store, snapshot.snapshot_id)
        head = current_head(lab.store, snapshot.symbol, snapshot.schema)
    current = head is not None and head.snapshot_id == snapshot.snapshot_id
    _print_series(snapshot, verdict, run.bars, run.run_id, current=current, as_json=as_json)


def _print_series(
    snapshot: Snapshot,
    verdict: QualityVerdict | None,
    metadata: Mapping[str, Any],
    run_id: str,
    *,
    current: bool,
    as_json: bool,
) -> None:
    quality = "UNKNOWN" if verdict is None else verdict.status
    reasons = [] if verdict is None else verdict.reasons
    if as_json:
        print_json(
            {
                "success": True,
                "symbol": snapshot.symbol,
                "schema": snapshot.schema,
                "instrument": snapshot.instrument,
                "snapshot_id": snapshot.snapshot_id,
                "content_hash": snapshot.content_hash,
                "bars": snapshot.bar_count,
                "first_ts": snapshot.first_ts,
                "last_ts": snapshot.last_ts,
                "contracts": snapshot.contracts,
                "simulated": snapshot.simulated,
                "provenance": snapshot.provenance,
                "current": current,
                "quality": quality,
                "quarantined": quality != "PASS",
                "reasons": reasons,
                "checks": [] if verdict is None else verdict.checks,
                "request_ids": metadata.get("request_ids", []),
                "quoted_usd": metadata.get("quoted_usd"),
                "cost_usd": metadata.get("cost_usd"),
                "spent_today_usd": metadata.get("spent_today_usd"),
                "months_pulled": metadata.get("months_pulled"),
                "data_ends_at": metadata.get("data_ends_at"),
                "bars_pulled": metadata.get("bars_pulled"),
                "trace_id": metadata.get("trace_id"),
                "run_id": run_id,
            }
        )
        return
    rows = [
        ("bars", f"{snapshot.bar_count:,}"),
        ("first bar", snapshot.first_ts),
        ("last bar", snapshot.last_ts),
        ("contracts", ", ".join(snapshot.contracts)),
        ("snapshot", snapshot.snapshot_id),
        ("content hash", snapshot.content_hash),
        ("source", snapshot.provenance.get("source") or snapshot.provenance.get("kind")),
        ("simulated", "yes" if snapshot.simulated else "no"),
        ("quality", quality),
        ("bots read", "this snapshot" if current else "another, wider snapshot of this series"),
    ]
    stands_in_for = snapshot.provenance.get("fallback_for")
    if stands_in_for:
        rows.append(("stands in for", f"{stands_in_for['source']}, which failed: {stands_in_for['code']}"))
    if metadata.get("cost_usd") is not None:
        quoted = metadata.get("quoted_usd")
        before = "" if quoted is None else f" (quoted {quoted:.4f})"
        rows.append(("cost", f"{metadata['cost_usd']:.4f} USD{before}, {metadata['bars_pulled']:,} bars pulled now"))
    if metadata.get("spent_today_usd") is not None:
        rows.append(
            ("spent today", f"{metadata['spent_today_usd']:.4f} of {metadata['budget_usd_per_day']:.2f} USD a day")
        )
    if metadata.get("data_ends_at"):
        rows.append(("data ends", f"the provider has nothing after {metadata['data_ends_at']}"))
    print_table(f"{snapshot.symbol} {snapshot.schema}", ("what", "value"), rows)
    if quality != "PASS":
        click.echo("Quarantined: no backtest will use this snapshot.")
        for reason in reasons:
            click.echo(f"  {reason['code']}: {reason['message']}")
            click.echo(f"    Found: {_found(reason.get('numbers') or {})}")
            click.echo(f"    Next: {reason['suggested_fix']}")


def _found(numbers: Mapping[str, Any]) -> str:
    """What a check found, and where first: the times or sessions to look at."""
    summary = numbers.get("summary") or "no number"
    first = numbers.get("first_at") or numbers.get("sessions") or []
    return f"{summary}; first at {', '.join(map(str, first))}" if first else str(summary)
