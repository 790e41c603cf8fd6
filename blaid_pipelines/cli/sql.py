"""``blaid sql``: one read-only query on the analysts' warehouse, as a table, as CSV or as JSON.

The query runs on the versioned file that is current when it starts, so a rebuild never gets in its way. Only statements
that read are run, on a read-only connection that reaches no file but the warehouse and the lake. Beside the answer it
says how many rows the database has that the warehouse does not.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blaid_pipelines.cli.output import json_option, note, print_json, print_table
from blaid_pipelines.reasons import BlaidError, InvalidRequest, Reason, ReasonCode, StopAndFix
from blaid_pipelines.settings import Settings, load_settings

if TYPE_CHECKING:
    import duckdb

EXPLAIN = re.compile(r"^\s*explain\s+(analyze\s+)?(\([^)]*\)\s*)?", re.IGNORECASE)
TABLES_QUERY = (
    'select schema_name || \'.\' || table_name as "table", estimated_size as "rows", comment as description '
    "from duckdb_tables() order by schema_name, table_name"
)
COLUMNS_QUERY = (
    'select column_name as "column", lower(data_type) as type, comment as description from duckdb_columns() '
    "where schema_name || '.' || table_name = {table} order by column_index"
)
SHOWN_ROWS = 1000


@click.command()
@click.argument("query", required=False)
@click.option("--tables", is_flag=True, help="List the tables, each with its rows and what a row is.")
@click.option("--describe", metavar="TABLE", help="Columns of a table with their types and meanings.")
@click.option("--limit", type=click.IntRange(min=0), help=f"Rows to show; 0 for all. [default: {SHOWN_ROWS}; CSV: all]")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header line.")
@click.option("--refresh", is_flag=True, help="Build the warehouse from the newest evidence first.")
@click.option("--no-check", is_flag=True, help="Do not compare the warehouse with the database.")
@json_option
def sql(
    query: str | None,
    tables: bool,
    describe: str | None,
    limit: int | None,
    as_csv: bool,
    refresh: bool,
    no_check: bool,
    as_json: bool,
) -> None:
    """Run one read-only QUERY on the warehouse; without QUERY, list its tables.

    \b
    blaid sql "select bot_name, decision, first_failing_gate from promotion_evidence where is_latest"
    blaid sql "select bot_name, sum(net_pnl_usd) from daily_pnl where is_latest group by all"
    blaid sql --describe daily_pnl
    """
    from blaid_pipelines.lab.warehouse import built_at, current_warehouse

    if (query is not None) + tables + (describe is not None) > 1 or (as_csv and as_json):
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                "one of QUERY, --tables and --describe is wanted, and one of --csv and --json",
                "Leave all but one out.",
                {},
            )
        )
    settings = load_settings()
    if refresh:
        from resources.commands import run_warehouse

        note("Building the warehouse ...")
        run_warehouse(settings)
    warehouse = current_warehouse(settings)
    rows_wanted = limit if limit is not None else 0 if as_csv else SHOWN_ROWS
    if describe is not None:
        query = _columns_query(warehouse, settings.lake, describe)
    answer = run_query(warehouse, settings.lake, TABLES_QUERY if query is None else query, rows_wanted)
    age = None if no_check else _age_of(settings, warehouse)
    made = built_at(warehouse)
    if as_json:
        behind = None if age is None else {"newer": age.newer, "unknown": age.unknown}
        print_json({"success": True, "warehouse": warehouse.stem, "built_at": made, "database": behind, **answer})
        return
    columns = [column["name"] for column in answer["columns"]]
    cells = [[row[name] for name in columns] for row in answer["rows"]]
    if as_csv:
        _print_csv(columns, cells)
    else:
        numeric = [column["name"] for column in answer["columns"] if _is_number(column["type"])]
        print_table("", columns, cells, right=numeric)
    old = "" if made is None else f", built {_age(made, datetime.now(UTC))} ago"
    more = f" (the first {rows_wanted}; --limit 0 shows all)" if answer["truncated"] else ""
    note(f"{len(cells)} row{'' if len(cells) == 1 else 's'}{more}; warehouse {warehouse.stem}{old}")
    if age is not None and age.text:
        note(age.text)


@dataclass(frozen=True)
class Age:
    """How the warehouse stands to the database: rows by kind that it does not hold, or why that is not known."""

    newer: dict[str, int] | None
    unknown: str | None = None

    @property
    def text(self) -> str:
        """A line for people; empty when the warehouse holds everything."""
        if self.newer is None:
            return f"Whether the database holds newer rows is not known: {self.unknown}"
        more = [f"{count} {kind}" for kind, count in self.newer.items() if count > 0]
        if any(count < 0 for count in self.newer.values()):
            return "The database holds fewer rows than this warehouse was built from: it was restored, or is another."
        return f"The database is newer: {', '.join(more)} more. `--refresh` builds the warehouse again." if more else ""


def _age_of(settings: Settings, warehouse: Path) -> Age:
    from blaid_pipelines.lab.warehouse import newer_rows
    from blaid_pipelines.store.database import open_store

    try:
        with open_store(settings) as store:
            newer = newer_rows(store, warehouse)
            return Age(newer, "this file does not say what it was built from" if newer is None else None)
    except BlaidError as error:  # the answer stands without a database; how old it is does not, and says so
        return Age(None, error.reason.message)


def _columns_query(warehouse: Path, lake: Path, name: str) -> str:
    """The query for a table's columns, by its name with or without schema; marts come before staging."""
    known = [row["table"] for row in run_query(warehouse, lake, TABLES_QUERY, 0)["rows"]]
    found = [table for table in known if name.lower() in {table, table.partition(".")[2]}]
    if not found:
        close = difflib.get_close_matches(name, sorted({table.partition(".")[2] for table in known}), n=3)
        advice = f"Did you mean {', '.join(close)}? " if close else ""
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"the warehouse has no table {name!r}",
                f"{advice}`blaid sql --tables` lists them.",
                {"table": name},
            )
        )
    return COLUMNS_QUERY.format(table="'" + min(found).replace("'", "''") + "'")


def _print_csv(columns: list[str], rows: list[list[Any]]) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(_csv_cell(cell) for cell in row)
    click.echo(out.getvalue(), nl=False)


def _csv_cell(cell: Any) -> Any:
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, list | dict):
        return json.dumps(cell, default=str)
    return cell.isoformat() if isinstance(cell, datetime) else cell


def run_query(warehouse: Path, lake: Path, query: str, limit: int) -> dict[str, Any]:
    """Columns and rows of one reading statement; ``limit`` 0 means all rows.

    Raises :class:`InvalidRequest` for SQL that does not parse or run, that writes, or that is not one statement, and
    :class:`StopAndFix` for a warehouse that cannot be opened.
    """
    import duckdb

    try:
        connection = duckdb.connect(str(warehouse), read_only=True)
        _confine(connection, lake)
    except duckdb.Error as error:
        raise StopAndFix(
            Reason(
                ReasonCode.INSTALLATION_BROKEN,
                f"the warehouse cannot be opened: {error}",
                "Build it again with `blaid sql --refresh`.",
                {"path": str(warehouse)},
            )
        ) from error
    with connection:
        _require_reading(connection, query)
        try:
            cursor = connection.execute(query)
            names = _distinct([str(column[0]) for column in cursor.description or []])
            kinds = [str(column[1]) for column in cursor.description or []]
            rows = cursor.fetchall() if limit == 0 else cursor.fetchmany(limit + 1)
        except duckdb.Error as error:
            raise InvalidRequest(_bad_query(f"the query failed: {error}", query)) from error
    truncated = 0 < limit < len(rows)
    if truncated:
        rows = rows[:limit]
    return {
        "columns": [{"name": name, "type": kind} for name, kind in zip(names, kinds, strict=True)],
        "rows": [dict(zip(names, (_value(cell) for cell in row), strict=True)) for row in rows],
        "truncated": truncated,
    }


def _confine(connection: duckdb.DuckDBPyConnection, lake: Path) -> None:
    """No file but the warehouse and the lake, no extension, and no way to change that again."""
    folder = str(lake).replace("'", "''")
    connection.execute(f"set allowed_directories = ['{folder}/']")
    # Marts first: an analyst asks for fct_trades, not for the schema that it lives in.
    there = {str(row[0]) for row in connection.execute("select distinct schema_name from duckdb_schemas()").fetchall()}
    wanted = ",".join(schema for schema in ("marts", "staging", "main") if schema in there)
    connection.execute(f"set search_path = '{wanted}'")
    for setting in ("autoload_known_extensions = false", "enable_external_access = false", "TimeZone = 'UTC'"):
        connection.execute(f"set {setting}")
    connection.execute("set lock_configuration = true")


def _require_reading(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    import duckdb

    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise InvalidRequest(_bad_query(f"this is not SQL that DuckDB understands: {error}", query)) from error
    if len(statements) != 1:
        raise InvalidRequest(_bad_query(f"one statement is wanted, this is {len(statements)}", query))
    kind = statements[0].type
    if kind == duckdb.StatementType.EXPLAIN:
        # EXPLAIN ANALYZE runs what it explains, a COPY as well: what counts is the statement inside.
        inside = EXPLAIN.sub("", statements[0].query, count=1)
        if inside != statements[0].query:
            _require_reading(connection, inside)
            return
    if kind != duckdb.StatementType.SELECT:
        text = f"the warehouse is read-only, and this is a statement of type {kind.name}"
        fix = "Ask with SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN."
        raise InvalidRequest(_bad_query(text, query, fix))


def _bad_query(message: str, query: str, fix: str = "Correct the query; `blaid sql` alone lists the tables.") -> Reason:
    return Reason(ReasonCode.INVALID_REQUEST, message, fix, {"query": query[:500]})


def _distinct(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return result


def _value(cell: Any) -> Any:
    """A cell as JSON knows it: NaN and infinities as text, nested values in turn, the unknown as text."""
    if isinstance(cell, float) and not math.isfinite(cell):
        return str(cell)
    if isinstance(cell, list | tuple):
        return [_value(item) for item in cell]
    if isinstance(cell, dict):
        return {str(key): _value(item) for key, item in cell.items()}
    if cell is None or isinstance(cell, bool | int | float | str | Decimal | datetime):
        return cell
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)


def _is_number(kind: str) -> bool:
    return not kind.endswith("[]") and any(word in kind.upper() for word in ("INT", "DOUBLE", "FLOAT", "DECIMAL"))


def _age(made: datetime, now: datetime) -> str:
    seconds = max(0, int((now - made).total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
