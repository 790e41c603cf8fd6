"""``blaid pull`` and ``blaid ingest``: bars into the lake and through the quality gate.

Both run the ``market_data`` job on the Dagster instance, in this process, so that each leaves its lineage.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blaid_pipelines.cli.output import json_option, note, print_json, print_table
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode

if TYPE_CHECKING:
    from blaid_pipelines.store.tables import QualityVerdict, Snapshot

_symbol_help = "Series symbol: a contract (6EH4, MESZ6) or a continuous series (MES.c.0)."
_schema_option = click.option("--schema", default="ohlcv-1m", show_default=True, help="Bar schema.")


@click.command()
@click.argument("symbol")
@_schema_option
@click.option("--start", required=True, metavar="DATE", help="First instant, inclusive: a date or ISO time, UTC.")
@click.option("--end", required=True, metavar="DATE", help="Last instant, exclusive.")
@click.option("--dataset", default="GLBX.MDP3", show_default=True, help="Databento dataset.")
@json_option
def pull(symbol: str, schema: str, start: str, end: str, dataset: str, as_json: bool) -> None:
    """Pull bars of SYMBOL from Databento: cost first, only what is missing, then the quality gate.

    In the sandbox world the local gateway serves (`blaid sandbox`, or `blaid up`).
    """
    from blaid_pipelines.lab.series import parse_instant

    for name, value in (("start", start), ("end", end)):
        parse_instant(name, value)
    config = {"source": "pull", "data_schema": schema, "start": start, "end": end, "dataset": dataset}
    _run_market_data(symbol, config, as_json=as_json)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--symbol", required=True, help=_symbol_help)
@click.option("--stamp", type=click.Choice(["open", "close"]), help="What a bar's stamp marks; DBN files say it.")
@click.option("--tz", help="Time zone of naive stamps, such as UTC or America/Chicago; DBN files say it.")
@_schema_option
@click.option("--start", metavar="DATE", help="Begin of what the files answer for; without it, their first bar.")
@click.option("--end", metavar="DATE", help="End of it, exclusive; without it, the last bar's session or UTC day.")
@json_option
def ingest(
    files: tuple[Path, ...],
    symbol: str,
    stamp: str | None,
    tz: str | None,
    schema: str,
    start: str | None,
    end: str | None,
    as_json: bool,
) -> None:
    """Take bars of one series from DBN, Parquet or CSV FILEs, then through the quality gate.

    Parquet and CSV files need --stamp, and --tz where their times name no zone: nothing is guessed.
    """
    from blaid_pipelines.lab.series import parse_instant

    span = {name: value for name, value in (("start", start), ("end", end)) if value is not None}
    for name, value in span.items():
        parse_instant(name, value)
    for path in files:
        if not path.is_file():
            raise InvalidRequest(
                Reason(
                    ReasonCode.FILE_UNREADABLE,
                    f"{path} is not a file",
                    "Name files that exist: DBN, Parquet or CSV.",
                    {"path": str(path)},
                )
            )
    config = {
        "source": "file",
        "data_schema": schema,
        "files": [str(path.expanduser().absolute()) for path in files],
        **span,
        **({"stamp": stamp} if stamp else {}),
        **({"tz": tz} if tz else {}),
    }
    _run_market_data(symbol, config, as_json=as_json)


def _run_market_data(symbol: str, config: dict[str, Any], *, as_json: bool) -> None:
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
    from resources.commands import run_market_data

    run = run_market_data(settings, symbol, config)
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
                "cost_usd": metadata.get("cost_usd"),
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
    if metadata.get("cost_usd") is not None:
        rows.append(("cost", f"{metadata['cost_usd']:.4f} USD, {metadata['bars_pulled']:,} bars pulled now"))
    print_table(f"{snapshot.symbol} {snapshot.schema}", ("what", "value"), rows)
    if quality != "PASS":
        click.echo("Quarantined: no backtest will use this snapshot.")
        for reason in reasons:
            click.echo(f"  {reason['code']}: {reason['message']}")
            click.echo(f"    Next: {reason['suggested_fix']}")
