"""How commands speak: tables and progress for people on a terminal, one JSON document for scripts.

Results go to standard output; progress, notes and errors go to standard error, so that ``--json`` output stays clean.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

from blaid_pipelines.reasons import BlaidError, InvalidRequest, Reason, ReasonCode, StopAndFix

if TYPE_CHECKING:
    from rich.console import Console

_F = TypeVar("_F", bound=Callable[..., Any])

json_option: Callable[[_F], _F] = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def _jsonable(value: Any) -> Any:
    if isinstance(value, UUID | Decimal | Path):
        return str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


_READABLE = 24
"""Characters a line that text is wrapped to must have: less is harder to read than a block."""


def print_json(payload: Any) -> None:
    """Print ``payload`` as one indented JSON document on standard output."""
    click.echo(json.dumps(payload, indent=2, default=_jsonable, allow_nan=False))


def note(text: str) -> None:
    """One line of progress or advice for people, on standard error."""
    click.echo(text, err=True)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[str] = ()) -> None:
    """A readable table on standard output; columns named in ``right`` are aligned right.

    Where the columns do not fit, the longest text is wrapped between its words; where that does not help either, each
    row becomes a block of its own: no number is ever broken over two lines.
    """
    from rich.console import Console

    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    console = Console()
    # Into a pipe or file there is no width to keep to, unless somebody states one.
    width = console.width if console.is_terminal or "COLUMNS" in os.environ else 10_000
    needed = [max(map(len, (line for cell in column for line in cell.splitlines() or [""]))) for column in
              zip(columns, *cells, strict=True)]  # fmt: skip
    if sum(needed) + 3 * len(columns) <= width or (len(columns) == 2 and needed[0] < width // 2):
        _print_grid(Console(width=width if width < 10_000 else sum(needed) + 3 * len(columns) + 2), title, columns,
                    cells, set(right))  # fmt: skip
        return
    longest = needed.index(max(needed))
    words = [word for row in cells for word in row[longest].split()]
    room = width - 3 * len(columns) - (sum(needed) - needed[longest])
    if room >= max(_READABLE, *map(len, words)) and len(words) >= 4 * len(cells):
        _print_grid(Console(width=width), title, columns, cells, set(right), wrapped=columns[longest])
        return
    if title:
        click.echo(title)
    margin = max(map(len, columns))
    for row in cells:
        click.echo("")
        for column, cell in zip(columns, row, strict=True):
            if cell:
                click.echo(f"  {column:<{margin}}  {cell}")


def _print_grid(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: list[list[str]],
    right: set[str],
    wrapped: str | None = None,
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        whole = wrapped is not None and column != wrapped
        table.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def program() -> str:
    """How this command was called, so that advice can be pasted: ``blaid`` where it is on the path."""
    called = Path(sys.argv[0])
    found = shutil.which("blaid")
    if called.name != "blaid" or (found is not None and Path(found).resolve() == called.resolve()):
        return "blaid"
    path = called.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def dollars(cents: int | None) -> str:
    """Cents as dollars for people: ``-1,234.50``; empty for None."""
    return "" if cents is None else f"{cents / 100:,.2f}"


def reason_lines(reason: Reason) -> list[str]:
    """A reason for people: what, the numbers, what to do next."""
    lines = [f"{reason.code.value}: {reason.message}"]
    if reason.numbers:
        lines.append("  " + ", ".join(f"{name}={value}" for name, value in reason.numbers.items()))
    if reason.suggested_fix:
        lines.append(f"  Next: {reason.suggested_fix}")
    return lines


def unexpected(error: Exception) -> BlaidError:
    """A defect of ours as an error with a reason; its stack goes to a file that only the owner reads."""
    handle, path = tempfile.mkstemp(prefix="blaid-error-", suffix=".log")
    with os.fdopen(handle, "w") as log:
        log.writelines(traceback.format_exception(error))
    return StopAndFix(
        Reason(
            ReasonCode.JOB_FAILED,
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}",
            f"This is a defect of Blaid: report it with {path}.",
            {"log": path},
        )
    )


def usage_error(error: click.ClickException) -> InvalidRequest:
    """A mistake in the call itself, as an error with a reason."""
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else "blaid"
    return InvalidRequest(
        Reason(ReasonCode.INVALID_REQUEST, error.format_message(), f"See `{command} --help`.", {"command": command})
    )


def report_error(error: BlaidError, *, as_json: bool) -> None:
    """Print an error's reasons: to people on standard error, to scripts as a JSON document on standard output."""
    if as_json:
        print_json(
            {
                "success": False,
                "error_code": error.reason.code.value,
                "message": error.reason.message,
                "suggested_fix": error.reason.suggested_fix,
                "reasons": [reason.as_dict() for reason in error.reasons],
            }
        )
        return
    for reason in error.reasons:
        for line in reason_lines(reason):
            note(line)
