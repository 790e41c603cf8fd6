"""Running dbt on the project: the one wrapper around ``dagster_dbt``, imported only when a warehouse is built.

``DbtCliResource.cli`` first asks ``dbt --version`` in a process of its own and builds a database adapter in ours, some
six seconds for nothing we read; ``DbtCliInvocation.run`` is the part that starts dbt and forwards interrupts. It has no
underscore but is not documented either, so dagster-dbt is pinned exactly.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blaid_pipelines.lab.dbt_project import PROJECT


@dataclass(frozen=True)
class DbtOutcome:
    """What ``dbt build`` did: exit code, and per node its status, time and failing rows, by node name."""

    returncode: int
    results: Mapping[str, dict[str, Any]]
    log_tail: str

    def status(self, name: str) -> str:
        """dbt's status of a model or test: success, pass, fail, error, skipped; ``unknown`` when it says nothing."""
        return str(self.results.get(name, {}).get("status", "unknown"))


def dbt_environment(database: Path, tables: Path) -> dict[str, str]:
    """The variables that profiles.yml and the sources read."""
    return {"BLAID_WAREHOUSE_FILE": str(database), "BLAID_WAREHOUSE_TABLES": str(tables)}


def dbt_build(database: Path, tables: Path, target: Path) -> DbtOutcome:
    """Run ``dbt build`` (models and their tests, in order) on exported ``tables`` into ``database``."""
    return run_dbt(["build"], database, tables, target)


def run_dbt(arguments: list[str], database: Path, tables: Path, target: Path) -> DbtOutcome:
    """Run one dbt command in a process of its own; artifacts and logs go to ``target``, nothing into the project."""
    from importlib.metadata import version

    from dagster_dbt import DagsterDbtTranslator, DbtCliInvocation
    from packaging.version import Version

    environment = {
        **os.environ,
        **dbt_environment(database, tables),
        "DBT_PROFILES_DIR": str(PROJECT),
        "DBT_PROJECT_DIR": str(PROJECT),
        "DBT_TARGET_PATH": str(target),
        "DBT_LOG_PATH": str(target),
        "DBT_LOG_FORMAT": "json",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }
    target.mkdir(parents=True, exist_ok=True)
    invocation = DbtCliInvocation.run(
        args=[str(Path(sys.executable).with_name("dbt")), "--quiet", *arguments],
        env=environment,
        manifest={},
        dagster_dbt_translator=DagsterDbtTranslator(),
        project_dir=PROJECT,
        target_path=target,
        raise_on_error=False,
        context=None,
        adapter=None,
        cli_version=Version(version("dbt-core")),
    )
    invocation.wait()
    return DbtOutcome(invocation.process.returncode, _results(target), _tail(target / "dbt.log"))


def _results(target: Path) -> dict[str, dict[str, Any]]:
    file = target / "run_results.json"
    if not file.is_file():
        return {}
    results = {}
    for result in json.loads(file.read_text())["results"]:
        # model.blaid_analysts.fct_trades; test.blaid_analysts.trade_id_is_unique.0a1b2c3d4e
        name = result["unique_id"].split(".")[2]
        results[name] = {
            "status": result["status"],
            "seconds": round(float(result["execution_time"]), 3),
            "failures": result.get("failures"),
            "message": result.get("message"),
        }
    return results


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.is_file() else ""
