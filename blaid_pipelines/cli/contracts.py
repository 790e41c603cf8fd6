"""``blaid contracts``: what providers say of single contracts, their last trade and open interest, taken in, shown."""

from __future__ import annotations

from pathlib import Path

import click

from blaid_pipelines.cli.output import json_option, print_json, print_table


@click.group()
def contracts() -> None:
    """Definitions and open interest of single contracts: import them from files, list what is known.

    A definition's last trade time beats the product's rule when series are stitched, and names the instrument ids of
    DBN files. Open interest is what ES.n.0 rolls by.
    """


@contracts.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--tz", help="Time zone of times without one in CSV: UTC, America/Chicago.")
@json_option
def import_command(files: tuple[Path, ...], tz: str | None, as_json: bool) -> None:
    """Add what DBN (definition, statistics) or CSV FILEs say of contracts; all of it, or nothing.

    A definition that contradicts the product's row in the instrument table is refused. What is on record already is
    not repeated. CSV needs the columns contract and expiration, or contract, session_date and open_interest (or
    volume).

    \b
    blaid contracts import es.definition.dbn.zst es.statistics.dbn.zst
    blaid contracts import expiries.csv --tz America/Chicago
    """
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.lab.contracts import import_contract_files
    from blaid_pipelines.settings import load_settings

    with open_lab(load_settings()) as lab:
        outcome = import_contract_files(lab, files, tz=tz)
    found = outcome.imported
    if as_json:
        print_json(
            {
                "success": True,
                "files": found.files,
                "definitions_added": found.definitions,
                "definitions_known": found.definitions_known,
                "days_added": found.days,
                "days_known": found.days_known,
                "contracts": found.contracts,
                "left_out": found.left_out,
                "simulated": found.simulated,
                "trace_id": outcome.trace_id,
            }
        )
        return
    rows = [
        ("definitions", f"{found.definitions:,} new, {found.definitions_known:,} known before"),
        ("days", f"{found.days:,} new, {found.days_known:,} known before"),
        ("contracts", f"{len(found.contracts):,}: {_few(found.contracts)}"),
        ("simulated", "yes" if found.simulated else "no"),
        *((f"left out: {why}", f"{count:,}") for why, count in sorted(found.left_out.items())),
        ("trace", outcome.trace_id),
    ]
    print_table("Contracts imported", ("what", "value"), rows)


@contracts.command("list")
@click.argument("root")
@json_option
def list_command(root: str, as_json: bool) -> None:
    """Show the contracts of a product ROOT (ES, 6E) that definitions name, by their last trade."""
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.market.contracts import differs_from_rule, list_contracts
    from blaid_pipelines.settings import load_settings

    with open_lab(load_settings()) as lab:
        known = list_contracts(lab.store, root)
    by_rule = [(contract, differs_from_rule(contract)) for contract in known]
    if as_json:
        print_json(
            {
                "success": True,
                "root": root,
                "contracts": [
                    {
                        "contract": contract.contract,
                        "expires": contract.expires,
                        "expires_by_rule_instead": instead,
                        "instrument_id": contract.instrument_id,
                        "open_interest_days": contract.open_interest_days,
                        "last_open_interest": contract.last_open_interest,
                        "last_session": contract.last_session,
                        "simulated": contract.simulated,
                        "source": contract.source_key,
                        "definition": contract.definition,
                    }
                    for contract, instead in by_rule
                ],
            }
        )
        return
    if not known:
        click.echo(f"No definition of a contract of {root} is on record; expiries come from the product's rule.")
        click.echo("Next: blaid contracts import FILE...")
        return
    print_table(
        f"Contracts of {root}",
        ("contract", "last trade (UTC)", "by rule", "id", "days with open interest", "newest", "simulated"),
        [
            (
                contract.contract,
                f"{contract.expires:%Y-%m-%d %H:%M}",
                "same" if instead is None else f"{instead:%Y-%m-%d %H:%M}",
                contract.instrument_id,
                f"{contract.open_interest_days:,}",
                None
                if contract.last_session is None
                else f"{contract.last_open_interest:,} on {contract.last_session}",
                "yes" if contract.simulated else "no",
            )
            for contract, instead in by_rule
        ],
        right=("id", "days with open interest"),
    )


def _few(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
