"""``blaid ingest``: bars of files into the lake and through the quality gate, as one ``market_data`` run."""

from __future__ import annotations

from pathlib import Path

import click

from blaid_pipelines.cli.data import run_market_data, schema_option, symbol_help
from blaid_pipelines.cli.output import json_option
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--symbol", required=True, help=symbol_help)
@click.option(
    "--content",
    type=click.Choice(["bars", "trades", "ohlcv-1s"]),
    default="bars",
    show_default=True,
    help="What the files hold: bars of --schema, or trades or one-second bars to be made into such.",
)
@click.option("--stamp", type=click.Choice(["open", "close"]), help="What the time of a bar in Parquet or CSV marks.")
@click.option("--tz", help="Time zone of times without one in Parquet or CSV: UTC, America/Chicago.")
@click.option(
    "--time-unit", type=click.Choice(["s", "ms", "us", "ns"]), help="What whole numbers for times in them count."
)
@schema_option
@click.option("--start", metavar="DATE", help="Begin of what the files answer for; without it, their first bar.")
@click.option("--end", metavar="DATE", help="End of it, exclusive; without it, the last bar's session or UTC day.")
@json_option
def ingest(
    files: tuple[Path, ...],
    symbol: str,
    content: str,
    stamp: str | None,
    tz: str | None,
    time_unit: str | None,
    schema: str,
    start: str | None,
    end: str | None,
    as_json: bool,
) -> None:
    """Take bars of one series from DBN, Parquet, CSV or LEAN zip FILEs, then through the quality gate.

    Nothing is guessed: Parquet and CSV files of bars need --stamp, and --tz where their times name no zone; DBN and
    LEAN files say both. FILEs may hold other contracts too: --symbol ESZ3 takes that one, --symbol ES.v.0 stitches
    them into a series that rolls by volume (ES.c.0: by expiry; ES.n.0: by open interest, once it was imported).

    \b
    blaid ingest 6EH4.csv.gz --symbol 6EH4 --stamp close --tz UTC
    blaid ingest ticks.csv.gz --symbol ESU3 --content trades --tz America/Chicago
    blaid ingest minute/*_trade.zip --symbol ES.v.0
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
                    "Name files that exist: DBN, Parquet, CSV or LEAN zips.",
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
        **({"time_unit": time_unit} if time_unit else {}),
        **({"content": content} if content != "bars" else {}),
    }
    run_market_data(symbol, config, as_json=as_json)
