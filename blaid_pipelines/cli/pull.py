"""``blaid pull``: bars from Databento into the lake and through the quality gate, as one ``market_data`` run."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import click

from blaid_pipelines.cli.data import run_market_data, schema_option
from blaid_pipelines.cli.output import json_option, note, print_json, print_table, reason_lines

if TYPE_CHECKING:
    from blaid_pipelines.market.purchase.pull import PullRequest


@click.command()
@click.argument("symbol")
@schema_option
@click.option("--start", metavar="DATE", help="First instant, inclusive: a date or ISO time, UTC.")
@click.option("--end", metavar="DATE", help="Last instant, exclusive.")
@click.option("--dataset", default="GLBX.MDP3", show_default=True, help="Databento dataset.")
@click.option("--dry-run", is_flag=True, help="Show what is missing and what it would cost; buy nothing.")
@json_option
def pull(
    symbol: str, schema: str, start: str | None, end: str | None, dataset: str, dry_run: bool, as_json: bool
) -> None:
    """Pull bars of SYMBOL from Databento: cost first, only what is missing, by month, then the quality gate.

    Without --start and --end: the range that bots on the series read now; of a new series the newest 90 days. In the
    sandbox world the local gateway serves (`blaid sandbox`, or `blaid up`). A pull that was interrupted, in whatever
    way, goes on where it stopped when it is asked for again.
    """
    from datetime import UTC, datetime

    from blaid_pipelines.lab.series import parse_instant, watching_pulls
    from blaid_pipelines.market.instruments import instrument_root
    from blaid_pipelines.market.purchase.pull import PullRequest, check_request

    if (start is None) != (end is None):
        raise click.UsageError("Give both --start and --end, or neither.")
    instrument_root(symbol)
    config = {"source": "pull", "data_schema": schema, "dataset": dataset}
    if start is not None and end is not None:
        request = PullRequest(symbol, parse_instant("start", start), parse_instant("end", end), schema, dataset)
        # What cannot be asked at all starts no run and leaves no failed partition behind.
        check_request(request, datetime.now(UTC))
        config |= {"start": start, "end": end}
    if dry_run:
        _quote(symbol, schema, dataset, None if start is None else request, as_json=as_json)
        return
    with watching_pulls((lambda _: None) if as_json else (lambda text: note(f"  {text}"))):
        run_market_data(symbol, config, as_json=as_json)


def _quote(symbol: str, schema: str, dataset: str, request: PullRequest | None, *, as_json: bool) -> None:
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.lab.series import quote_series, usual_range
    from blaid_pipelines.market.bars import from_ns
    from blaid_pipelines.market.purchase.pull import PullRequest
    from blaid_pipelines.settings import load_settings

    with open_lab(load_settings()) as lab:
        if request is None:
            request = PullRequest(symbol, *usual_range(lab, symbol, schema, dataset), schema, dataset)
        found = quote_series(lab, request)
        budget = lab.policy.budgets.data
    plan = found.plan
    purchases = [] if plan is None else plan.purchases
    rows = [(from_ns(buy.span[0]), from_ns(buy.span[1]), buy.price) for buy in purchases]
    cost = sum((price for *_, price in rows), Decimal(0))
    if as_json:
        print_json(
            {
                "success": True,
                "dry_run": True,
                "symbol": request.symbol,
                "schema": request.schema,
                "missing": [] if plan is None else [[from_ns(left), from_ns(right)] for left, right in plan.missing],
                "purchases": [{"start": left, "end": right, "cost_usd": price} for left, right, price in rows],
                "cost_usd": cost,
                "spent_today_usd": None if plan is None else plan.position.spent_today,
                "budget_usd_per_pull": budget.max_cost_usd_per_pull,
                "budget_usd_per_day": budget.max_cost_usd_per_day,
                "data_ends_at": None if plan is None or plan.ends_ns is None else from_ns(plan.ends_ns),
                "would_be_refused": None if plan is None or plan.refusal is None else plan.refusal.as_dict(),
                "request_ids": found.request_ids,
                "trace_id": found.trace_id,
            }
        )
        return
    if plan is None:
        click.echo(f"{request.symbol} {request.schema}: the lake holds the whole range; a pull would buy nothing.")
        return
    print_table(
        f"{request.symbol} {request.schema}: missing, and not bought",
        ("from", "to (exclusive)", "USD"),
        [(f"{left:%Y-%m-%d %H:%M}", f"{right:%Y-%m-%d %H:%M}", f"{price:.4f}") for left, right, price in rows],
        right=("USD",),
    )
    count = "1 purchase" if len(rows) == 1 else f"{len(rows)} purchases"
    click.echo(
        f"{count}, {cost:.4f} USD; spent today {plan.position.spent_today:.4f} USD; budget "
        f"{budget.max_cost_usd_per_pull} USD a pull, {budget.max_cost_usd_per_day} USD a day."
    )
    if plan.ends_ns is not None:
        click.echo(f"The provider's data ends at {from_ns(plan.ends_ns):%Y-%m-%d %H:%M} UTC.")
    if plan.refusal is not None:
        click.echo("A pull would be refused:")
        for line in reason_lines(plan.refusal):
            click.echo(f"  {line}")
