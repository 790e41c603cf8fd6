"""The warehouse: marts right to the cent, built aside, swapped in whole, never in a reader's way."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlalchemy import select

from blaid_pipelines.lab.bots import NewBot, create_bot
from blaid_pipelines.lab.context import LabContext, open_lab
from blaid_pipelines.lab.coverage import head_coverage
from blaid_pipelines.lab.cycle import run_cohort
from blaid_pipelines.lab.dbt_project import PROJECT, read_project
from blaid_pipelines.lab.series import judge_series, pull_series
from blaid_pipelines.lab.status import bot_statuses, deciding_gate
from blaid_pipelines.lab.warehouse import (
    WarehouseBuild,
    built_at,
    coverage_cache,
    current_warehouse,
    dbt_cache,
    docs_of,
    export_tables,
    open_build,
    publish,
)
from blaid_pipelines.market.purchase.budget import UNBILLED
from blaid_pipelines.market.purchase.pull import PullRequest
from blaid_pipelines.reasons import ReasonCode, RetryLater, StopAndFix
from blaid_pipelines.sandbox.synthetic import Defect, Recipe, synthesise
from blaid_pipelines.settings import Settings, load_settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import SeriesHead, Snapshot
from resources.dbt import DbtOutcome, dbt_build
from resources.launch import run_job_in_process
from tests.analysts.world import EARNER_NET_CENTS, EARNER_PNL_CENTS, GATES, populate
from tests.sandbox.fixtures import StartGateway
from tests.support import eventually

NOW = datetime(2024, 7, 1, 12, 0, tzinfo=UTC)


def build_with_dbt(settings: Settings, store: Store, build: WarehouseBuild) -> DbtOutcome:
    export_tables(store, settings.lake, build, coverage_cache(settings))
    return dbt_build(build.folder, dbt_cache(settings))


def rows(warehouse: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        found: list[tuple[Any, ...]] = connection.sql(query).fetchall()
        return found


def write_version(build: WarehouseBuild, value: int) -> None:
    """A stand-in for dbt: a warehouse with one number in it."""
    with duckdb.connect(str(build.database)) as connection:
        connection.execute(f"create table t as select {value} as value")


def write_version_twice(build: WarehouseBuild) -> None:
    """A build that breaks halfway: its file is there, and something failed after it."""
    write_version(build, 2)
    write_version(build, 2)


def publish_version(settings: Settings, number: int) -> Path:
    with open_build(settings, NOW.replace(second=number), f"run{number:05d}") as build:
        write_version(build, number)
        return publish(settings, build)


class TestMarts:
    """One dbt build on the hand-made LAB, looked at from all sides."""

    @pytest.fixture
    def published(self, warehouse_settings: Settings, store: Store) -> Path:
        settings = warehouse_settings
        populate(store, settings.lake)
        # a file that no session names: of a run that died before its rows were written
        orphan = settings.lake / "trades" / "bot_id=x" / "orphan.parquet"
        orphan.parent.mkdir(parents=True)
        orphan.write_bytes(b"not even parquet")
        job = run_job_in_process(settings, "warehouse")
        job.raise_for_failure()
        assert job.failed_checks == ()
        counts = {made.asset: made.metadata.get("dagster/row_count") for made in job.materialized}
        assert set(counts) == {*(model.name for model in read_project().models), "warehouse"}
        assert (counts["fct_trades"], counts["promotion_evidence"], counts["gate_results"]) == (3, 5, 13)
        return current_warehouse(settings)

    def test_marts_are_right_to_the_cent(self, published: Path) -> None:
        trades = rows(
            published, "select net_pnl_cents, net_pnl_usd, side, simulated from marts.fct_trades order by trade_number"
        )
        assert [trade[0] for trade in trades] == list(EARNER_PNL_CENTS)
        assert [trade[1] for trade in trades] == [Decimal("123.45"), Decimal("-67.89"), Decimal("0.01")]
        assert {trade[2:] for trade in trades} == {("LONG", True)}
        assert rows(published, "select sum(net_pnl_usd) from marts.fct_trades") == [(Decimal("55.57"),)]
        evidence = {
            row[0]: row[1:]
            for row in rows(
                published,
                "select bot_name, decision, gates_total, gates_passed, gates_failed, gates_unknown, first_failing_gate,"
                " first_failing_reason, trades, net_pnl_usd, score, tier, quality_status, requests_cited,"
                " requests_proven, requests_cost_usd, session_reason from marts.promotion_evidence",
            )
        }
        broker, cost = "BROKER_REQUIRED_FOR_PAPER", Decimal("0.012345")
        assert evidence == {
            "earner": (
                *("REFUSE", 3, 2, 1, 0, "broker_for_paper", broker, 3, Decimal("55.57"), 55.0, "SUPERVISED"),
                *("PASS", 4, 4, cost, None),
            ),
            "quiet": (
                *("REFUSE", 3, 1, 1, 1, "broker_for_paper", broker, 0, Decimal("0.00"), 55.0, "SUPERVISED"),
                *("PASS", 4, 4, cost, None),
            ),
            "unpriced": (
                *("REFUSE", 2, 1, 1, 0, "broker_for_paper", broker, 0, Decimal("0.00"), 55.0, "SUPERVISED"),
                *("PASS", 4, 4, None, None),
            ),
            "barred": (
                *("REFUSE", 3, 1, 2, 0, "backtest", "DATA_QUALITY_FAILED", None, None, 5.0, "LOCKED"),
                *("FAIL", 2, 2, Decimal("0.5"), "DATA_QUALITY_FAILED"),
            ),
            "early": (
                *("REFUSE", 2, 0, 0, 2, "quality", "DATA_QUALITY_UNKNOWN", None, None, 5.0, "LOCKED"),
                *("UNKNOWN", 0, 0, Decimal("0"), "SNAPSHOT_MISSING"),
            ),
        }
        shown = {name: deciding_gate(gates) for name, gates in GATES.items()}
        assert {name: row[5:7] for name, row in evidence.items()} == shown
        assert rows(published, "select count(*) from marts.gate_results") == [(13,)]
        documented = {
            f"{model.folder}.{model.name}": [column[:2] for column in model.columns] for model in read_project().models
        }
        found: dict[str, list[tuple[str, str]]] = {}
        columns = (
            "select schema_name, table_name, column_name, lower(data_type) from duckdb_columns() where not internal"
        )
        for schema, table, column, kind in rows(published, f"{columns} order by schema_name, table_name, column_index"):
            found.setdefault(f"{schema}.{table}", []).append((column, kind))
        assert found == documented
        self.check_every_mart(published)
        self.check_docs(published)
        self.check_comments(published)

    def check_every_mart(self, published: Path) -> None:
        """The hand-made days, costs and verdicts, mart by mart."""
        ids = "select bot_name, session_date::varchar, "
        daily = ids + "trades, winners, losers, net_pnl_usd, cumulative_net_pnl_usd from daily_pnl order by all"
        with duckdb.connect(str(published), read_only=True) as connection:
            connection.execute("set search_path = 'marts,staging'")
            assert [row for row in connection.sql(daily).fetchall() if row[0] == "earner"] == [
                ("earner", "2024-06-28", 0, 0, 0, Decimal(0), Decimal(0)),
                ("earner", "2024-07-01", 3, 2, 1, Decimal("55.57"), Decimal("55.57")),
            ]
            curve = ids + "equity_usd, peak_usd, drawdown_usd, return_pct from equity order by all"
            assert [row for row in connection.sql(curve).fetchall() if row[0] == "earner"] == [
                ("earner", "2024-06-28", Decimal(25_000), Decimal(25_000), Decimal(0), 0.0),
                ("earner", "2024-07-01", Decimal("25055.57"), Decimal("25055.57"), Decimal(0), pytest.approx(0.22228)),
            ]
            costs = "select bot_name, month::varchar, trades, costs_usd, commission_usd, fees_usd from trading_costs"
            assert connection.sql(costs).fetchall() == [
                ("earner", "2024-07-01", 3, Decimal("3.72"), Decimal("1.500000"), Decimal("2.220000"))
            ]
            failed = (
                "select series, verdict, check_name, status, reason_code, observed, threshold_name, threshold "
                "from quality where status <> 'PASS'"
            )
            assert connection.sql(failed).fetchall() == [
                ("M2K.c.0", "FAIL", "session_gaps", "FAIL", "SESSION_GAP", "240.0", "max_gap_minutes", "30")
            ]
            assert connection.sql("select count(*), count(distinct verdict_id) from quality").fetchall() == [(6, 3)]
            spent = "select endpoint, requests, failed, purchases_without_price, cost_usd from data_costs order by 1"
            assert connection.sql(spent).fetchall() == [
                # a purchase without a quote makes the sum unknown, not lower
                ("metadata.get_cost", 15, 3, 0, Decimal(0)),
                ("symbology.resolve", 5, 0, 0, Decimal(0)),
                ("timeseries.get_range", 5, 0, 1, None),
            ]

    def check_docs(self, published: Path) -> None:
        """The page of docs lies beside the file, asks nobody else for anything and names no folder of ours."""
        page = docs_of(published).read_text()
        assert "One row per backtest session and exchange session: profit by day" in page
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)\s*=\s*[\"']?https?:[^>]*>", page)
        assert loaded == []
        project = (Path(__file__).resolve().parents[2] / "dbt_like_sql").as_posix()
        assert project not in page

    def check_comments(self, published: Path) -> None:
        """Every table and column explains itself in the file."""
        silent = "select table_name, column_name from duckdb_columns() where comment is null and not internal"
        assert rows(published, silent) == []
        assert rows(published, "select table_name from duckdb_tables() where comment is null") == []


class TestOldAndNew:
    """A warehouse of an empty LAB, and what happens when the LAB moves on."""

    def test_it_says_that_it_is_old_and_a_wrong_cent_keeps_it(self, warehouse_settings: Settings, store: Store) -> None:
        settings = warehouse_settings
        from click.testing import CliRunner

        from blaid_pipelines.cli.sql import sql

        query = "select (select count(*) from fct_trades) as trades, (select count(*) from stg_instruments) as roots"
        result = CliRunner().invoke(sql, ["--refresh", "--json", query])
        assert result.exception is None, result.exception
        answer = json.loads(result.stdout)
        assert answer["rows"] == [{"trades": 0, "roots": 17}]
        assert set(answer["database"]["newer"].values()) == {0}
        assert "Building the warehouse" in result.stderr
        before = current_warehouse(settings)

        populate(store, settings.lake, session_net_cents=EARNER_NET_CENTS + 1)
        newer = {"sessions": 5, "decisions": 5, "changes of series": 0, "verdicts": 3}
        assert json.loads(CliRunner().invoke(sql, ["--json", query]).stdout)["database"]["newer"] == newer
        told = CliRunner().invoke(sql, [query]).stderr
        assert "The database is newer: 5 sessions, 5 decisions, 3 verdicts more." in told
        assert "--refresh" in told
        assert "newer" not in CliRunner().invoke(sql, ["--no-check", query]).stderr

        job = run_job_in_process(settings, "warehouse")
        unequal = {"fct_trades:trades_sum_to_their_session", "daily_pnl:daily_pnl_sums_to_its_session"}
        assert set(job.failed_checks) == unequal
        assert not job.success
        assert job.failures[0].reason.numbers["not_successful"] == {check.split(":")[1]: "fail" for check in unequal}
        assert job.materialized == ()
        assert current_warehouse(settings) == before


def test_unbilled_failures_are_those_of_the_budget() -> None:
    macro = (PROJECT / "macros" / "unbilled.sql").read_text()
    assert set(re.findall(r"'([A-Z_]+)'", macro)) == set(UNBILLED)


def stored_usd(cost: float) -> Decimal:
    """A cost as the request log keeps it: to the millionth of a dollar."""
    return Decimal(str(cost)).quantize(Decimal("0.000001"), ROUND_HALF_UP)


def test_the_marts_of_a_real_pull_and_cycle(warehouse_settings: Settings, gateway: StartGateway) -> None:
    """Nothing made by hand: two pulls of one series and one that the gate refuses, three bots, one build."""
    hole = Defect("gap", int(datetime(2024, 3, 5, 15, tzinfo=UTC).timestamp()) * 10**9, 240)
    recipes = [
        Recipe(symbol, date(2024, 3, 1), date(2024, 3, 12), defects=defects)
        for symbol, defects in (("MES.c.0", ()), ("M2K.c.0", (hole,)))
    ]
    world = gateway(series=[synthesise(recipe) for recipe in recipes]).settings
    ends = {"MES.c.0": (7, 9), "M2K.c.0": (9,)}
    bought: dict[str, Decimal] = {}
    with open_lab(world) as lab:
        for symbol, days in ends.items():
            for end in days:
                request = PullRequest(symbol, datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, end, tzinfo=UTC))
                made = pull_series(lab, request)
                bought[symbol] = bought.get(symbol, Decimal(0)) + stored_usd(made.metadata["cost_usd"])
            judge_series(lab, made.snapshot.snapshot_id)
        for name, symbol in (("a", "MES.c.0"), ("barred", "M2K.c.0"), ("early", "MNQ.c.0")):
            create_bot(lab, NewBot(name, symbol.split(".")[0], "ma_cross", {}, 2_500_000, symbol=symbol))
        run_cohort(lab, ["a", "barred", "early"])
        statuses = {status.name: status for status in bot_statuses(lab)}
        with open_build(world, NOW, "0123456789") as build:
            outcome = build_with_dbt(world, lab.store, build)
            assert outcome.returncode == 0, outcome.log_tail
            found = rows(
                build.database,
                "select bot_name, first_failing_gate, first_failing_reason, quality_status, requests_cost_usd,"
                " requests_cited - requests_proven, session_status, trades from marts.promotion_evidence",
            )
            purchases = rows(
                build.database,
                "select endpoint, count(*), count(cost_usd) from staging.stg_provider_requests group by all",
            )
            data_cost = rows(build.database, "select sum(cost_usd) from marts.data_costs")
            series = rows(
                build.database,
                "select series, bars, sessions, quality_status, reconciliation_status, longest_gap_minutes,"
                " segments > 0, reason_code from marts.series order by series",
            )
            holed = rows(
                build.database,
                "select series, session_date::varchar, status, expected_minutes, missing_minutes > 240, contracts"
                " from marts.coverage where longest_gap_minutes > 60",
            )
            equal = rows(
                build.database,
                "select (select sum(net_pnl_cents) from marts.daily_pnl) = sum(net_pnl_cents), count(*) > 0"
                " from marts.fct_trades",
            )
        counted = {snapshot.symbol: snapshot.bar_count for snapshot in heads(lab.store)}
        check_broken_lake(lab, world)
    assert data_cost == [(sum(bought.values()),)]
    assert series == [
        ("M2K.c.0", counted["M2K.c.0"], 5, "FAIL", "NONE", 240.0, True, None),
        ("MES.c.0", counted["MES.c.0"], 5, "PASS", "NONE", pytest.approx(2, abs=2), True, None),
    ]
    assert holed == [("M2K.c.0", "2024-03-05", "PARTIAL", 1380.0, True, "M2KH4")]
    assert equal == [(True, True)]
    evidence = {row[0]: row[1:] for row in found}
    assert {name: row[:2] for name, row in evidence.items()} == {
        name: (status.first_failing_gate, status.reason) for name, status in statuses.items()
    }
    assert {name: row[2] for name, row in evidence.items()} == {"a": "PASS", "barred": "FAIL", "early": "UNKNOWN"}
    assert {name: row[3] for name, row in evidence.items()} == {
        "a": bought["MES.c.0"],
        "barred": bought["M2K.c.0"],
        "early": Decimal(0),
    }
    assert all(cost > 0 for cost in bought.values())
    assert {row[4] for row in evidence.values()} == {0}
    assert evidence["a"][5] == "COMPLETED"
    assert evidence["a"][6] == statuses["a"].trades
    # the shape that the hand-made rows copy: the price is on the quote, never on the purchase
    shape = {endpoint: (count, priced) for endpoint, count, priced in purchases}
    assert shape["metadata.get_cost"] == (3, 3)
    assert shape["timeseries.get_range"] == (3, 0)


def heads(store: Store) -> list[Snapshot]:
    """The snapshots that bots read."""
    with store.session() as session:
        ids = {head.symbol: head.snapshot_id for head in session.scalars(select(SeriesHead).order_by(SeriesHead.id))}
        found = list(session.scalars(select(Snapshot).where(Snapshot.snapshot_id.in_(ids.values()))))
        session.expunge_all()
    return found


def check_broken_lake(lab: LabContext, settings: Settings) -> None:
    """Known numbers come from the cache; a snapshot whose files are gone is a finding, and does not stop the others."""
    known = head_coverage(lab.store, lab.lake, coverage_cache(settings))
    victim = next(snapshot for snapshot in heads(lab.store) if snapshot.symbol == "MES.c.0")
    (lab.lake / victim.files[0]["path"]).unlink()
    assert head_coverage(lab.store, lab.lake, coverage_cache(settings)) == known
    fresh = head_coverage(lab.store, lab.lake, settings.home / "other-cache")
    said = {row["snapshot_id"]: row["reason_code"] for row in fresh.readings.to_pylist()}
    assert said.pop(victim.snapshot_id) == "SNAPSHOT_CORRUPT"
    assert set(said.values()) == {None}
    assert set(fresh.sessions.column("snapshot_id").to_pylist()) == set(said)


def test_a_trade_file_that_is_gone_stops_the_export(settings: Settings, store: Store) -> None:
    populate(store, settings.lake)
    next(settings.lake.rglob("*.parquet")).unlink()
    with open_build(settings, NOW, "0123456789") as build, pytest.raises(StopAndFix) as stopped:
        export_tables(store, settings.lake, build)
    assert stopped.value.reason.code is ReasonCode.SESSION_INCOMPLETE
    assert stopped.value.reason.numbers["count"] == 1


def test_a_reader_keeps_its_version_while_new_ones_are_swapped_in(settings: Settings) -> None:
    first = publish_version(settings, 1)
    held = current_warehouse(settings)
    assert held == first
    assert built_at(held) == NOW.replace(second=1)
    with duckdb.connect(str(held), read_only=True) as reader:
        for number in range(2, 7):
            newest = publish_version(settings, number)
            assert rows(current_warehouse(settings), "from t") == [(number,)]
            assert reader.sql("from t").fetchall() == [(1,)]
    assert current_warehouse(settings) == newest
    kept = sorted((settings.warehouse_dir / "versions").iterdir())
    assert len(kept) == 3
    assert kept[-1] == newest
    assert not (settings.warehouse_dir / "builds").exists()


def build_on_a_full_disk(settings: Settings) -> None:
    """A build whose files may hold no more than 100 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with open_build(settings, NOW, "run00003") as build:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
            (build.tables / "bots.parquet").write_bytes(b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_build_on_a_full_disk_says_so_and_leaves_the_old_one(settings: Settings) -> None:
    old = publish_version(settings, 1)
    with pytest.raises(StopAndFix, match="cannot be written") as refused:
        build_on_a_full_disk(settings)
    assert refused.value.reason.code is ReasonCode.INSTALLATION_BROKEN
    assert current_warehouse(settings) == old


def test_a_build_that_fails_leaves_the_old_one(settings: Settings) -> None:
    first = publish_version(settings, 1)
    with pytest.raises(duckdb.Error), open_build(settings, NOW, "run00002") as build:
        write_version_twice(build)
    assert current_warehouse(settings) == first
    assert rows(first, "from t") == [(1,)]


KILLED_BUILD = """
import sys, time
from datetime import UTC, date, datetime
from blaid_pipelines.lab.warehouse import open_build
from blaid_pipelines.settings import load_settings
from tests.analysts.test_warehouse import write_version
with open_build(load_settings(), datetime(2024, 7, 1, tzinfo=UTC), "killed-run") as build:
    write_version(build, 2)
    print("built", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def builder(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A process that has built a warehouse and not yet swapped it in."""
    process = subprocess.Popen([sys.executable, "-c", KILLED_BUILD], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "built\n"
        yield process
    finally:
        process.kill()
        process.wait()


def test_killed_between_build_and_swap_the_old_one_stays_and_the_next_build_works(
    settings: Settings, builder: subprocess.Popen[str]
) -> None:
    first = settings.warehouse_dir / "versions" / "20240701T110000.000000Z-earlier0.duckdb"
    first.parent.mkdir()
    with duckdb.connect(str(first)) as connection:
        connection.execute("create table t as select 1 as value")
    (settings.warehouse_dir / "warehouse.duckdb").symlink_to(first)
    with pytest.raises(RetryLater) as busy, open_build(settings, NOW, "impatient", wait_s=0.2):
        pass
    assert busy.value.reason.code is ReasonCode.ALREADY_RUNNING
    assert (settings.warehouse_dir / "builds" / "killed-run" / "warehouse.duckdb").exists()
    os.kill(builder.pid, signal.SIGKILL)
    eventually(lambda: builder.poll() is not None)
    assert rows(current_warehouse(settings), "from t") == [(1,)]
    assert rows(publish_version(settings, 3), "from t") == [(3,)]
    assert not (settings.warehouse_dir / "builds").exists()


def test_the_environment_is_that_of_the_settings(settings: Settings) -> None:
    assert load_settings().warehouse_dir == settings.warehouse_dir
