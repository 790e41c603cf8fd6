"""The code location as it is shown to people and loaded by Dagster: complete, cheap, and without side effects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from syrupy.assertion import SnapshotAssertion

from blaid_pipelines import definitions
from blaid_pipelines.definitions import defs

ROOT = Path(__file__).resolve().parents[2]
NODES = sorted(defs.resolve_asset_graph().asset_nodes, key=lambda node: node.key.to_user_string())
# An asset's description begins with its grain.
GRAIN = ("One row per ", "One snapshot per ", "One DuckDB file per ")
LOAD_BUDGET_S = 12.0  # two shared cores; 3 s alone


def _names(keys: Any) -> list[str]:
    return sorted(key.to_user_string() for key in keys)


def describe_assets() -> dict[str, Any]:
    """What a person sees of each asset, without texts: those may be improved freely."""
    return {
        node.key.to_user_string(): {
            "group": node.group_name,
            "owners": sorted(node.owners),
            "kinds": sorted(node.kinds),
            "depends_on": _names(node.parent_keys),
            "partitions": getattr(node.partitions_def, "name", None),
            "checks": sorted(key.name for key in node.check_keys),
            "external": node.is_external,
            "pools": sorted(node.pools or []),
        }
        for node in NODES
    }


def test_assets_are_as_recorded(snapshot: SnapshotAssertion) -> None:
    assert describe_assets() == snapshot


def test_checks_block_and_are_as_recorded(snapshot: SnapshotAssertion) -> None:
    checks = [
        spec for asset in defs.assets or [] if isinstance(asset, dg.AssetsDefinition) for spec in asset.check_specs
    ]
    assert checks
    assert all(check.blocking for check in checks), [check.name for check in checks if not check.blocking]
    assert all(check.description for check in checks)
    assert sorted(f"{check.asset_key.to_user_string()}:{check.name}" for check in checks) == snapshot


def test_jobs_and_sensors_are_as_recorded(snapshot: SnapshotAssertion) -> None:
    jobs = {
        name: {
            "assets": _names(job.asset_layer.selected_asset_keys),
            "partitions": getattr(job.partitions_def, "name", None),
            "executor": job.executor_def.name,
            "tags": dict(job.run_tags),
        }
        for name in ("market_data", "lab_cycle", "warehouse")
        for job in [defs.resolve_job_def(name)]
    }
    sensor = defs.resolve_sensor_def("lab_cadence")
    sensors = {
        sensor.name: {
            "jobs": [sensor.job_name],
            "status": sensor.default_status.value,
            "minimum_interval_seconds": sensor.minimum_interval_seconds,
        }
    }
    assert {"jobs": jobs, "sensors": sensors} == snapshot


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.key.to_user_string())
def test_every_asset_says_what_it_is(node: Any) -> None:
    assert node.group_name != "default"
    assert node.owners
    assert node.kinds
    assert (node.description or "").startswith(GRAIN), node.description


def test_definitions_stay_an_assembly() -> None:
    assert len(Path(definitions.__file__).read_text().splitlines()) < 50


def test_loading_is_cheap_and_touches_nothing(tmp_path: Path) -> None:
    probe = (
        "import json, sys, time\n"
        "started = time.perf_counter()\n"
        "from blaid_pipelines.definitions import defs\n"
        "defs.resolve_all_job_defs(); defs.resolve_asset_graph()\n"
        "print(json.dumps({'seconds': time.perf_counter() - started, 'modules': sorted(sys.modules)}))\n"
    )
    home = tmp_path / "home"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("BLAID_", "DAGSTER"))},
        "BLAID_HOME": str(home),
        # Nobody answers here: a definition that reached for the database would fail to load.
        "BLAID_DATABASE_URL": "postgresql+psycopg2://nobody@127.0.0.1:1/none",
        "BLAID_POLICY": str(tmp_path / "no-policy.toml"),
    }
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    roots = {name.split(".")[0] for name in answer["modules"]}
    slow = {"great_expectations", "dbt", "dagster_dbt", "duckdb", "numba", "pandas", "sqlalchemy", "databento"}
    assert roots & slow == set()
    assert not home.exists()
    assert list(tmp_path.iterdir()) == []
    assert done.stderr == ""
    print(f"definitions load in {answer['seconds']:.2f} s")
    assert answer["seconds"] < LOAD_BUDGET_S
