"""``blaid rolls``: when the contracts of a root stop trading and roll, and where a series in the lake really rolled.

A root (``ES``) shows its calendar by expiry; a series (``ES.c.0``) shows the rolls in its bars, each with its step and
how that was seen.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from blaid_pipelines.cli.output import json_option, note, print_json, print_table

if TYPE_CHECKING:
    from blaid_pipelines.lab.context import LabContext
    from blaid_pipelines.market.instruments import InstrumentSpec
    from blaid_pipelines.market.rolls import RollStep

FIRST_YEAR, LAST_YEAR = 2001, 2097


@click.command()
@click.argument("symbol")
@click.option(
    "--year",
    "years",
    type=click.IntRange(FIRST_YEAR, LAST_YEAR),
    multiple=True,
    help="Contract year of the calendar; give it twice for a range. The years of the series, or this one, by default.",
)
@click.option("--schema", default="ohlcv-1m", show_default=True, help="Bar schema of the series.")
@json_option
def rolls(symbol: str, years: tuple[int, ...], schema: str, as_json: bool) -> None:
    """Show the roll calendar of a root, or the rolls of a series in the lake.

    SYMBOL is a root (ES) or a series (MES.c.0). The last trade is the definition's where one was imported, else the
    product's rule; a series by expiry rolls before the session of that day.

    \b
    blaid rolls ES --year 2024 --year 2026
    blaid rolls MES.c.0
    """
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.market.instruments import get_instrument, is_continuous
    from blaid_pipelines.settings import load_settings

    with open_lab(load_settings()) as lab:
        spec = get_instrument(lab.store, symbol)
        series = None if symbol == spec.symbol else _series(lab, spec, symbol, schema)
        spanned = years or (() if series is None else series["years"]) or (datetime.now(UTC).year,)
        wanted = is_continuous(symbol) or series is None
        calendar = _calendar(lab, spec, min(spanned), max(spanned)) if wanted else []
    payload = {"success": True, "symbol": symbol, "instrument": spec.symbol, "calendar": calendar}
    if series is not None:
        payload |= {key: series[key] for key in ("snapshot_id", "schema", "first_ts", "last_ts", "contracts", "rolls")}
    if as_json:
        print_json(payload)
        return
    if calendar:
        columns = ("contract", "last trade (UTC)", "from", "next", "first session of the next")
        print_table(f"{spec.symbol}: contracts by expiry", columns, [tuple(row.values()) for row in calendar])
    if series is not None:
        _print_series(symbol, series)


def _print_series(symbol: str, series: dict[str, Any]) -> None:
    rows = [
        (row["first_bar"], row["from"], row["to"], row["step_ticks"], row["step"], row["basis"].replace("_", " "))
        for row in series["rolls"]
    ]
    title = f"{symbol} {series['schema']}: rolls, {series['first_ts']:%Y-%m-%d} to {series['last_ts']:%Y-%m-%d}"
    if not rows:
        note(f"{title}: none ({', '.join(series['contracts'])}).")
        return
    columns = ("first bar of the new (UTC)", "from", "to", "step in ticks", "step", "seen")
    print_table(title, columns, rows, right=("step in ticks", "step"))


def _series(lab: LabContext, spec: InstrumentSpec, symbol: str, schema: str) -> dict[str, Any]:
    """The rolls of the snapshot that bots on the series read."""
    from blaid_pipelines.lab.inputs import steps_of
    from blaid_pipelines.market.lake.snapshots import load_bars, resolve_snapshot
    from blaid_pipelines.market.rolls import rolls_of

    snapshot = resolve_snapshot(lab.store, spec.symbol, symbol, schema)
    found = rolls_of(load_bars(lab.store, lab.lake, snapshot), steps_of(snapshot))
    return {
        "snapshot_id": snapshot.snapshot_id,
        "schema": schema,
        "first_ts": snapshot.first_ts,
        "last_ts": snapshot.last_ts,
        "contracts": snapshot.contracts,
        "years": tuple(ts.year for ts in (snapshot.first_ts, snapshot.last_ts) if ts is not None),
        "rolls": [_roll_row(step, spec) for step in found],
    }


def _roll_row(step: RollStep, spec: InstrumentSpec) -> dict[str, Any]:
    nanos = step.step_nanos
    ticks: int | str | None = None
    if nanos is not None:
        whole, rest = divmod(nanos, spec.tick_nanos)
        ticks = f"{nanos / spec.tick_nanos:.2f}" if rest else whole
    return {
        "first_bar": _utc(step.ts_ns),
        "from": step.from_contract,
        "to": step.to_contract,
        "step_ticks": ticks,  # a series off its tick grid fails the gate, and is shown as it is
        "step": None if nanos is None else f"{Decimal(nanos).scaleb(-9).normalize():f}",
        "basis": step.basis,
    }


def _calendar(lab: LabContext, spec: InstrumentSpec, first: int, last: int) -> list[dict[str, Any]]:
    from blaid_pipelines.market.contracts import known_expiries
    from blaid_pipelines.market.rolls import roll_calendar

    # one-digit years come round again: each year asks what its names mean then
    known = {year: known_expiries(lab.store, spec.symbol, date(year, 1, 1)) for year in range(first - 1, last + 1)}
    rows = []
    for roll in roll_calendar(spec.symbol, spec.contract_months, first, last):
        defined = known[roll.roll_session.year].get(roll.contract)
        last_trade_ns = roll.last_trade_ns if defined is None else defined
        rows.append(
            {
                "contract": roll.contract,
                "last_trade": _utc(last_trade_ns),
                "source": "rule" if defined is None else "definition",
                "next_contract": roll.next_contract,
                # every last trade is in the middle of a Chicago day: its UTC date is the session's
                "roll_session": _utc(last_trade_ns)[:10],
            }
        )
    return rows


def _utc(nanos: int) -> str:
    return datetime.fromtimestamp(nanos // 10**9, UTC).strftime("%Y-%m-%d %H:%M")
