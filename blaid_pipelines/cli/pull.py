"""``blaid pull``: bars from Databento into the lake and through the quality gate, as one ``market_data`` run."""

from __future__ import annotations

import click

from blaid_pipelines.cli.data import run_market_data, schema_option
from blaid_pipelines.cli.output import json_option


@click.command()
@click.argument("symbol")
@schema_option
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
    run_market_data(symbol, config, as_json=as_json)
