"""``blaid sql``: answers as table, JSON and CSV, lists and describes, says how old it is, refuses what writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from blaid_pipelines.lab.warehouse import (
    current_warehouse,
    open_build,
    publish,
)
from blaid_pipelines.reasons import ReasonCode
from blaid_pipelines.settings import Settings
from tests.analysts.test_warehouse import NOW, publish_version, rows


def blaid(*arguments: str) -> tuple[int, str, str]:
    """Run a command as a person does: exit code, output, errors."""
    done = subprocess.run(
        [sys.executable, "-m", "blaid_pipelines.cli.main", *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_sql_without_a_warehouse_says_how_to_get_one(settings: Settings) -> None:
    code, _, errors = blaid("sql", "select 1")
    assert code == 1
    assert "no warehouse has been built yet" in errors
    assert "blaid sql --refresh" in errors


def test_sql_answers_as_a_table_and_as_json(settings: Settings) -> None:
    warehouse = publish_version(settings, 7)
    query = "select value, 1.5::decimal(4,2) as d, 'nan'::double as n, [1, 2] as l, null as e, value as value from t"
    code, output, errors = blaid("sql", "--json", query)
    assert (code, errors) == (0, "")
    answer = json.loads(output)
    assert answer["rows"] == [{"value": 7, "d": "1.50", "n": "nan", "l": [1, 2], "e": None, "value_2": 7}]
    assert answer["warehouse"] == warehouse.stem
    assert answer["built_at"] == NOW.replace(second=7).isoformat()
    code, output, errors = blaid("sql", "select value from t")
    assert code == 0
    assert "value" in output
    assert "7" in output
    assert "1 row; warehouse" in errors
    code, output, _ = blaid("sql", "--json")
    assert [row["table"] for row in json.loads(output)["rows"]] == ["main.t"]


@pytest.fixture
def query(settings: Settings) -> Any:
    """``query(sql)`` on a small warehouse, in this process: exit code and what it said."""
    from click.testing import CliRunner

    from blaid_pipelines.cli.sql import sql
    from blaid_pipelines.reasons import BlaidError

    publish_version(settings, 7)

    def ask(*arguments: str) -> tuple[int, Any]:
        result = CliRunner().invoke(sql, [*arguments, "--json"])
        if isinstance(result.exception, BlaidError):
            return result.exception.exit_code, result.exception.reason
        assert result.exception is None, result.exception
        return result.exit_code, json.loads(result.stdout)

    return ask


@pytest.mark.parametrize(
    "text",
    [
        "selekt 1",
        "select nothing from t",
        "select * from nowhere",
        "",
        "select 1; select 2",
        "insert into t values (1)",
        "create table u as select 1",
        "drop table t",
        "update t set value = 0",
        "copy t to 'FILE'",
        "copy (select 1) to 'FILE' (format parquet)",
        "export database 'FILE'",
        "attach 'FILE' as other",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "pragma enable_profiling",
        "call pragma_version()",
        "explain analyze copy t to 'FILE'",
        "explain analyze copy t to 'LAKE/written'",
        "explain (analyze, format json) copy t to 'LAKE/written'",
        "/* explain */ explain analyze copy t to 'LAKE/written'",
        "copy t to 'LAKE/written'",
        "select * from read_csv('SECRET')",
        "select * from read_text('SECRET')",
        "select * from glob('SECRET')",
        "select * from 'SECRET'",
    ],
)
def test_sql_that_is_wrong_or_writes_or_reaches_out_is_a_usage_error(
    query: Any, settings: Settings, tmp_path: Path, text: str
) -> None:
    secret = settings.home / "secret.csv"
    secret.write_text("a\n1\n")
    settings.lake.mkdir(exist_ok=True)
    target = tmp_path / "written"
    code, reason = query(
        text.replace("FILE", str(target)).replace("SECRET", str(secret)).replace("LAKE", str(settings.lake))
    )
    assert code == 2
    assert reason.code is ReasonCode.INVALID_REQUEST
    assert reason.suggested_fix
    assert not target.exists()
    assert not (settings.lake / "written").exists()
    assert rows(current_warehouse(settings), "from t") == [(7,)]


@pytest.mark.parametrize(
    "text", ["from t", "with a as (from t) from a", "describe t", "summarize t", "show tables", "explain from t"]
)
def test_sql_reads_in_every_usual_form(query: Any, text: str) -> None:
    code, answer = query(text)
    assert code == 0
    assert answer["rows"]


def test_sql_lists_and_describes_tables(query: Any, settings: Settings) -> None:
    with open_build(settings, NOW.replace(second=9), "run00009") as build:
        with duckdb.connect(str(build.database)) as connection:
            connection.execute("create schema staging; create schema marts")
            connection.execute("create table marts.pnl as select 1::bigint as cents, 'x' as name")
            connection.execute("comment on table marts.pnl is 'One row per day'")
            connection.execute("comment on column marts.pnl.cents is 'Profit in cents'")
            connection.execute("create table staging.pnl as select 1 as other")
        publish(settings, build)
    listed = {"table": "marts.pnl", "rows": 1, "description": "One row per day"}
    assert query("--tables")[1]["rows"][0] == listed
    assert query()[1]["rows"][0] == listed
    for name in ("pnl", "marts.pnl", "PNL"):
        assert query("--describe", name)[1]["rows"] == [
            {"column": "cents", "type": "bigint", "description": "Profit in cents"},
            {"column": "name", "type": "varchar", "description": None},
        ]
    assert [row["column"] for row in query("--describe", "staging.pnl")[1]["rows"]] == ["other"]
    code, reason = query("--describe", "pnll")
    assert (code, reason.suggested_fix) == (2, "Did you mean pnl? `blaid sql --tables` lists them.")
    code, reason = query("--describe", "nothing' or 1 = 1 --")
    assert (code, reason.code) == (2, ReasonCode.INVALID_REQUEST)


@pytest.mark.parametrize("both", [("--tables", "from t"), ("--tables", "--describe", "t"), ("--csv", "from t")])
def test_sql_wants_one_thing_at_a_time(query: Any, both: tuple[str, ...]) -> None:
    code, reason = query(*both)  # with --json
    assert (code, reason.code) == (2, ReasonCode.INVALID_REQUEST)


def test_sql_as_csv(query: Any) -> None:
    from click.testing import CliRunner

    from blaid_pipelines.cli.sql import sql

    text = "select 1.50::decimal(4,2) as usd, 'a,\"b' as quoted, null as none, true as yes, [1, 2] as list, "
    text += "timestamp with time zone '2024-03-04 00:00:00+00' as ts, date '2024-03-04' as d"
    done = CliRunner().invoke(sql, ["--csv", text])
    assert done.stdout == (
        'usd,quoted,none,yes,list,ts,d\n1.50,"a,""b",,true,"[1, 2]",2024-03-04T00:00:00+00:00,2024-03-04\n'
    )
    assert len(CliRunner().invoke(sql, ["--csv", "from range(3000)"]).stdout.splitlines()) == 3001
    cut = CliRunner().invoke(sql, ["--csv", "--limit", "2", "from range(3000)"])
    assert len(cut.stdout.splitlines()) == 3
    assert "the first 2" in cut.stderr


def test_sql_says_when_it_cannot_know_how_old_it_is(query: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert query("from t")[1]["database"] == {
        "newer": None,
        "unknown": "this file does not say what it was built from",
    }
    monkeypatch.setenv("BLAID_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    code, answer = query("from t")
    assert code == 0
    assert answer["rows"] == [{"value": 7}]
    assert answer["database"]["newer"] is None
    assert answer["database"]["unknown"]
    assert query("--no-check", "from t")[1]["database"] is None


def test_sql_reads_the_lake(query: Any, settings: Settings) -> None:
    folder = settings.lake / "bars"
    folder.mkdir(parents=True)
    duckdb.sql("select 42 as close").write_parquet(str(folder / "a.parquet"))
    code, answer = query(f"select close from read_parquet('{settings.lake}/**/*.parquet')")
    assert code == 0
    assert answer["rows"] == [{"close": 42}]


def test_sql_limits_what_it_shows_and_says_so(query: Any) -> None:
    assert query("from range(5)", "--limit", "3")[1]["truncated"] is True
    assert len(query("from range(5)", "--limit", "3")[1]["rows"]) == 3
    assert query("from range(5)", "--limit", "5")[1]["truncated"] is False
    assert len(query("from range(5)", "--limit", "0")[1]["rows"]) == 5


def test_sql_on_a_spoilt_file_stops(settings: Settings) -> None:
    publish_version(settings, 1).write_bytes(b"spoilt")
    code, _, errors = blaid("sql", "select 1")
    assert code == 1
    assert "INSTALLATION_BROKEN" in errors
