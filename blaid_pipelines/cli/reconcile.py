"""``blaid reconcile``: hold the bars of a series against daily bars, other copies, or the backup provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blaid_pipelines.cli.data import schema_option
from blaid_pipelines.cli.output import json_option, note, print_json, print_table, reason_lines

if TYPE_CHECKING:
    from blaid_pipelines.lab.reconciliation import ReconcileOutcome

_SHOWN = 20


@click.command()
@click.argument("symbol")
@click.option(
    "--with",
    "kind",
    type=click.Choice(["daily", "overlap", "backup"]),
    help="What to hold the bars against (default: overlap).",
)
@click.option(
    "--daily", "daily_file", type=click.Path(path_type=Path), help="File of daily bars (implies --with daily)."
)
@click.option("--days", "convention", type=click.Choice(["auto", "session", "utc_day", "regular"]), default="auto",
              show_default=True, help="What a daily bar covers: a session, a UTC day, regular hours.")  # fmt: skip
@click.option("--stamp", type=click.Choice(["open", "close"]), help="The daily file's times are of the open or close.")
@click.option("--tz", help="Zone of the daily file's times where they name none.")
@schema_option
@click.option("--snapshot", "snapshot_id", help="A snapshot of the series (default: the one that bots read).")
@click.option("--start", metavar="DATE", help="Ask the backup from here on (default: the snapshot's range).")
@click.option("--end", metavar="DATE", help="Ask the backup up to here, exclusive.")
@json_option
@click.pass_context
def reconcile(
    context: click.Context,
    symbol: str,
    kind: str | None,
    daily_file: Path | None,
    convention: str,
    stamp: str | None,
    tz: str | None,
    schema: str,
    snapshot_id: str | None,
    start: str | None,
    end: str | None,
    as_json: bool,
) -> None:
    """Hold the bars of SYMBOL against a second account of them, and write what was found.

    daily: daily bars of a FILE, or of the series' own ohlcv-1d in the lake. overlap: every other copy of the same bars
    in the lake. backup: Massive, contract by contract. Exit code 1 for a difference, and where there was nothing to
    compare with.

    \b
    blaid reconcile MES.c.0 --with backup --start 2024-03-11 --end 2024-03-13
    blaid reconcile ESZ3 --daily es_trade.zip
    """
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.lab.reconciliation import DailyBars, ReconcileRequest, head_snapshot, reconcile_series
    from blaid_pipelines.lab.series import parse_instant
    from blaid_pipelines.market.lake.snapshots import get_snapshot
    from blaid_pipelines.settings import load_settings

    chosen = kind or ("daily" if daily_file is not None else "overlap")
    if daily_file is not None and chosen != "daily":
        raise click.UsageError("--daily goes with --with daily.")
    bounds = {name: parse_instant(name, value) for name, value in (("start", start), ("end", end)) if value is not None}
    if bounds and chosen != "backup":
        raise click.UsageError("--start and --end go with --with backup.")
    with open_lab(load_settings()) as lab:
        snapshot = head_snapshot(lab, symbol, schema) if snapshot_id is None else get_snapshot(lab.store, snapshot_id)
        if snapshot.symbol != symbol:
            raise click.UsageError(f"The snapshot is of {snapshot.symbol}.")
        if not as_json:
            note(f"{symbol}: {snapshot.bar_count:,} bars held against {chosen} ...")
        request = ReconcileRequest(
            snapshot.snapshot_id,
            chosen,
            DailyBars(daily_file, convention, stamp, tz),
            **bounds,
        )
        outcome = reconcile_series(lab, request)
    if as_json:
        print_json({"success": outcome.status == "PASS", **outcome.metadata})
    else:
        _show(outcome)
    if outcome.status != "PASS":
        context.exit(1)


def _show(outcome: ReconcileOutcome) -> None:
    plain = {name: value for name, value in outcome.numbers.items() if not isinstance(value, list | dict)}
    rows: list[tuple[str, Any]] = [
        ("status", outcome.status),
        ("snapshot", outcome.snapshot.snapshot_id),
        ("held against", outcome.other.get("source_key") or outcome.other.get("name") or outcome.other["source"]),
        *((name.replace("_", " "), value) for name, value in plain.items() if value is not None),
        ("simulated", "yes" if outcome.snapshot.simulated else "no"),
        ("trace", outcome.trace_id),
    ]
    print_table(f"{outcome.snapshot.symbol} {outcome.snapshot.schema} {outcome.kind}", ("what", "value"), rows)
    if outcome.kind == "daily":
        _show_days(outcome.numbers)
    else:
        _show_bars(outcome.numbers)
    for reason in outcome.reasons:
        for line in reason_lines(_brief(reason)):
            click.echo(line)


def _brief(reason: Any) -> Any:
    from blaid_pipelines.reasons import Reason

    numbers = {name: value for name, value in reason.numbers.items() if not isinstance(value, list | dict)}
    return Reason(reason.code, reason.message, reason.suggested_fix, numbers)


def _show_days(numbers: Mapping[str, Any]) -> None:
    fits = [
        (name, fit["days"], fit["range_fits"], fit["volume_fits"], fit["median_factor"])
        for name, fit in numbers.get("conventions", {}).items()
    ]
    print_table("Read as", ("daily bars of", "days", "range fits", "volume fits", "median factor"), fits)
    days = [
        (day["contract"], day["day"], day.get("minute_volume"), day.get("daily_volume"), day["factor"],
         day.get("high_ticks"), day.get("low_ticks"))
        for day in numbers.get("worst", [])[:_SHOWN]
    ]  # fmt: skip
    columns = ("contract", "day", "minutes' volume", "daily volume", "factor", "high, ticks", "low, ticks")
    if days:
        print_table("Days, the worst first", columns, days, right=columns[2:])


def _show_bars(numbers: Mapping[str, Any]) -> None:
    def values(side: Mapping[str, Any]) -> str:
        return " ".join(str(side[name]) for name in ("open", "high", "low", "close", "volume"))

    rows = [(bar["ts"], bar["contract"], values(bar["ours"]), values(bar["other"]))
            for bar in numbers.get("first_differing", [])[:_SHOWN]]  # fmt: skip
    rows += [(bar["ts"], bar["contract"], "there", "") for bar in numbers.get("first_only_ours", [])[:_SHOWN]]
    rows += [(bar["ts"], bar["contract"], "", "there") for bar in numbers.get("first_only_other", [])[:_SHOWN]]
    if rows:
        print_table("Bars that differ", ("time", "contract", "ours", "other"), rows)
