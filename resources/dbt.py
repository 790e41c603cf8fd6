"""Running dbt on the project: the one wrapper around ``dagster_dbt``, imported only when a warehouse is built.

``DbtCliResource.cli`` first asks ``dbt --version`` in a process of its own and builds a database adapter in ours, some
six seconds for nothing we read; ``DbtCliInvocation.run`` is the part that starts dbt and forwards interrupts. It has no
underscore but is not documented either, so dagster-dbt is pinned exactly. The process that it starts is this module
(:func:`main`): parse, build and docs one after another in one interpreter, because dbt's start and parse cost more
than the work. Every path that dbt sees is relative to the build's folder, so what it parsed once serves later builds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blaid_pipelines.lab.dbt_project import PROJECT

TARGET = "dbt"
"""Folder of dbt's artifacts and logs, in the build's folder."""
PARSED = "partial_parse.msgpack"
DOCS_PAGE = "static_index.html"


@dataclass(frozen=True)
class DbtOutcome:
    """What dbt did: exit code; per node its status, time and failing rows, by name; its page of docs if it made one."""

    returncode: int
    results: Mapping[str, dict[str, Any]]
    log_tail: str
    docs: Path | None = None

    def status(self, name: str) -> str:
        """dbt's status of a model or test: success, pass, fail, error, skipped; ``unknown`` when it says nothing."""
        return str(self.results.get(name, {}).get("status", "unknown"))


def dbt_build(folder: Path, cache: Path | None = None) -> DbtOutcome:
    """Build, test and document ``folder``: ``tables/`` are the exported tables, ``warehouse.duckdb`` is what dbt makes.

    ``cache`` is a folder in which dbt's parsed project stays for the next build; dbt itself decides what of it holds.
    """
    return run_dbt(["build", "docs"], folder, cache)


def run_dbt(steps: Sequence[str], folder: Path, cache: Path | None = None) -> DbtOutcome:
    """Run ``steps`` (of parse, build, docs) in a process of its own, in ``folder``; nothing goes into the project."""
    from importlib.metadata import version

    from dagster_dbt import DagsterDbtTranslator, DbtCliInvocation
    from packaging.version import Version

    target = folder / TARGET
    target.mkdir(parents=True, exist_ok=True)
    if cache is not None and (cache / PARSED).is_file():
        shutil.copyfile(cache / PARSED, target / PARSED)
    environment = {
        **os.environ,
        "DBT_PROFILES_DIR": str(PROJECT),
        "DBT_PROJECT_DIR": str(PROJECT),
        "DBT_TARGET_PATH": str(target),
        "DBT_LOG_PATH": str(target),
        "DBT_LOG_FORMAT": "json",
        "DBT_LOG_LEVEL_FILE": "info",  # a debug event per statement costs more than the statement
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }
    invocation = DbtCliInvocation.run(
        args=[sys.executable, "-P", "-m", "resources.dbt", *steps],
        env=environment,
        manifest={},
        dagster_dbt_translator=DagsterDbtTranslator(),
        project_dir=folder,
        target_path=target,
        raise_on_error=False,
        context=None,
        adapter=None,
        cli_version=Version(version("dbt-core")),
    )
    # What dbt itself prints, a stack at worst, is no answer of ours.
    with contextlib.redirect_stdout(sys.stderr):
        invocation.wait()
    if cache is not None and (target / PARSED).is_file():
        _keep(target / PARSED, cache / PARSED)
    page = target / DOCS_PAGE
    return DbtOutcome(
        invocation.process.returncode, _results(target), _tail(target / "dbt.log"), page if page.is_file() else None
    )


def main(steps: Sequence[str]) -> int:
    """Run dbt's ``steps`` in this process and folder, each on the project as parsed once; the first failure ends it.

    Returns dbt's own exit codes: 0, 1 for a failing model or test, 2 for what it could not handle.
    """
    from dbt.cli.main import dbtRunner
    from dbt.contracts.graph.manifest import Manifest

    commands = {"build": ["build"], "docs": ["docs", "generate", "--static", "--no-compile"]}
    parsed = dbtRunner().invoke(["--quiet", "parse"])
    if not parsed.success or not isinstance(parsed.result, Manifest):
        return 2 if parsed.exception is not None else 1
    runner = dbtRunner(manifest=parsed.result)
    for step in steps:
        if step == "parse":
            continue
        done = runner.invoke(["--quiet", *commands[step]])
        if not done.success:
            return 2 if done.exception is not None else 1
    return 0


def _keep(made: Path, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_suffix(f".{os.getpid()}.tmp")
    shutil.copyfile(made, temporary)
    temporary.replace(kept)


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
