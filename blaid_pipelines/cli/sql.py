"""``blaid sql``: one read-only query on the analysts' warehouse, as a table or as JSON.

The query runs on the versioned file that is current when it starts, so a rebuild never gets in its way. Only statements
that read are run, on a read-only connection that reaches no file but the warehouse and the lake.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blaid_pipelines.cli.output import json_option, note, print_json, print_table
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, StopAndFix
from blaid_pipelines.settings import load_settings

if TYPE_CHECKING:
    import duckdb

EXPLAIN = re.compile(r"^\s*explain\s+(analyze\s+)?(\([^)]*\)\s*)?", re.IGNORECASE)
TABLES_QUERY = (
    'select table_schema || \'.\' || table_name as "table", estimated_size as "rows", comment from '
    "(select schema_name as table_schema, table_name, estimated_size, comment from duckdb_tables()) order by 1"
)


@click.command()
@click.argument("query", required=False)
@click.option("--limit", type=click.IntRange(min=0), default=1000, show_default=True, help="Rows to show; 0 for all.")
@click.option("--refresh", is_flag=True, help="Build the warehouse from the newest evidence first.")
@json_option
def sql(query: str | None, limit: int, refresh: bool, as_json: bool) -> None:
    """Run one read-only QUERY on the warehouse; without QUERY, list its tables.

    \b
    blaid sql "select bot_name, decision, first_failing_gate from marts.promotion_evidence where is_latest"
    blaid sql "select bot_name, sum(net_pnl_usd) from marts.fct_trades where is_latest group by all"
    """
    from blaid_pipelines.lab.warehouse import built_at, current_warehouse

    settings = load_settings()
    if refresh:
        from resources.commands import run_warehouse

        note("Building the warehouse ...")
        run_warehouse(settings)
    warehouse = current_warehouse(settings)
    answer = run_query(warehouse, settings.lake, TABLES_QUERY if query is None else query, limit)
    made = built_at(warehouse)
    if as_json:
        print_json({"success": True, "warehouse": warehouse.stem, "built_at": made, **answer})
        return
    columns = [column["name"] for column in answer["columns"]]
    numeric = [column["name"] for column in answer["columns"] if _is_number(column["type"])]
    print_table("", columns, [[row[name] for name in columns] for row in answer["rows"]], right=numeric)
    age = "" if made is None else f", built {_age(made, datetime.now(UTC))} ago"
    more = f" (the first {limit}; --limit 0 shows all)" if answer["truncated"] else ""
    note(f"{len(answer['rows'])} rows{more}; warehouse {warehouse.stem}{age}")


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
