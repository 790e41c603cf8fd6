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
@click.option("--stamp", type=click.Choice(["open", "close"]), help="What a bar's stamp marks; DBN files say it.")
@click.option("--tz", help="Time zone of naive stamps, such as UTC or America/Chicago; DBN files say it.")
@schema_option
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
    run_market_data(symbol, config, as_json=as_json)
