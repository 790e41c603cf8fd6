"""``blaid lake``: what the lake holds by what cites it, and the clean-up that removes what nothing cites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from blaid_pipelines.cli.output import json_option, note, print_json, print_table

if TYPE_CHECKING:
    from blaid_pipelines.market.lake.cleanup import LakeFile

_age = click.option(
    "--older-than",
    "age_hours",
    type=click.FloatRange(min=1),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Leave files that changed since then: somebody may be about to record them.",
)
_bought = click.option("--bought", is_flag=True, help="Also bars that nothing rests on and that were paid for.")


@click.group()
def lake() -> None:
    """Show what the lake holds, and remove what nothing cites."""


@lake.command()
@_age
@_bought
@json_option
def status(age_hours: float, bought: bool, as_json: bool) -> None:
    """Files and bytes by what cites them, and what `blaid lake clean` would remove."""
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.market.lake.cleanup import KINDS, lake_report
    from blaid_pipelines.market.lake.identity import is_own_lake
    from blaid_pipelines.settings import load_settings

    with open_lab(load_settings()) as lab:
        report = lake_report(lab.store, lab.lake, lab.clock(), age_hours=age_hours, bought=bought)
        own = is_own_lake(lab.store, lab.lake)
    counts, sizes = _by_kind(report.files)
    if as_json:
        print_json(
            {
                "success": True,
                "own_lake": own,
                "files": len(report.files),
                "bytes": sum(sizes.values()),
                "kinds": {kind: {"files": counts[kind], "bytes": sizes[kind]} for kind in KINDS},
                "removable": [_as_json(file) for file in report.removable],
                "removable_bytes": sum(file.size for file in report.removable),
                "missing": report.missing,
            }
        )
        return
    rows = [(kind, f"{counts[kind]:,}", _size(sizes[kind]), text) for kind, text in KINDS.items()]
    print_table("Lake", ("files that are", "count", "size", "what they are"), rows, right=("count", "size"))
    removable = sum(file.size for file in report.removable)
    click.echo(f"`blaid lake clean` would remove {len(report.removable):,} files, {_size(removable)}.")
    if own is False:
        click.echo("This lake is noted as another database's: nothing is pulled into it or removed from it.")
    if report.missing:
        click.echo(f"{len(report.missing)} files that something rests on are not there, such as {report.missing[0]}.")


@lake.command()
@click.option("--dry-run", is_flag=True, help="Show what would go; remove nothing.")
@_age
@_bought
@json_option
def clean(dry_run: bool, age_hours: float, bought: bool, as_json: bool) -> None:
    """Remove bar files that no decision, backtest, reconciliation, series head or newest verdict rests on.

    Bars that were paid for stay unless --bought is given. Each file is on record before it goes.
    """
    from blaid_pipelines.lab import lake as work
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.market.lake.cleanup import lake_report
    from blaid_pipelines.market.lake.identity import check_lake
    from blaid_pipelines.settings import load_settings

    trace_id, kept = None, 0
    with open_lab(load_settings()) as lab:
        if dry_run:
            check_lake(lab.store, lab.lake)
            gone = lake_report(lab.store, lab.lake, lab.clock(), age_hours=age_hours, bought=bought).removable
        else:
            said = (lambda _: None) if as_json else (lambda file: note(f"  removed {file.path} ({_size(file.size)})"))
            trace_id, result = work.clean(lab, age_hours=age_hours, bought=bought, progress=said)
            gone, kept = result.removed, len(result.kept)
    total = sum(file.size for file in gone)
    if as_json:
        document: dict[str, Any] = {"success": True, "dry_run": dry_run, "trace_id": trace_id, "bytes": total}
        print_json({**document, "files": [_as_json(file) for file in gone], "left_because_they_changed": kept})
        return
    if dry_run and gone:
        rows = [(file.path, _size(file.size), file.kind) for file in gone]
        print_table("Would be removed", ("file", "size", "why"), rows, right=("size",))
    click.echo(f"{'Would remove' if dry_run else 'Removed'} {len(gone):,} files, {_size(total)}.")


@lake.command()
@json_option
def adopt(as_json: bool) -> None:
    """Say that this lake is this database's, after one of the two was lost or replaced for good."""
    from blaid_pipelines.lab.context import open_lab
    from blaid_pipelines.market.lake.identity import adopt_lake
    from blaid_pipelines.settings import load_settings

    with open_lab(load_settings()) as lab:
        adopt_lake(lab.store, lab.lake)
        path = lab.lake
    if as_json:
        print_json({"success": True, "lake": path})
    else:
        click.echo(f"{path} is this database's lake now.")


def _by_kind(files: Iterable[LakeFile]) -> tuple[Counter[str], Counter[str]]:
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for file in files:
        counts[file.kind] += 1
        sizes[file.kind] += file.size
    return counts, sizes


def _as_json(file: LakeFile) -> dict[str, Any]:
    return {"path": file.path, "bytes": file.size, "why": file.kind}


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
