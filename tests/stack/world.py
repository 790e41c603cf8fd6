"""A stack on a throwaway code location, so that tests of the stack do not depend on the real assets."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import psutil

CODE = """
import time
import dagster as dg

@dg.op
def wait(context):
    time.sleep(600)

@dg.job(executor_def=dg.in_process_executor)
def waiting():
    wait()

defs = dg.Definitions(jobs=[waiting])
"""
WORKSPACE = "load_from:\n  - python_file: {relative_path: code.py, attribute: defs, location_name: tiny}\n"


def free_port() -> int:
    """A loopback port that nothing uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_workspace(folder: Path, code: str = CODE) -> Path:
    """A ``workspace.yaml`` whose one location is ``code``."""
    (folder / "code.py").write_text(code)
    path = folder / "workspace.yaml"
    path.write_text(WORKSPACE)
    return path


def processes_of(home: Path) -> list[str]:
    """Command lines of all living processes that have to do with ``home``, found without the code under test."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            command = " ".join(process.cmdline())
            marked = process.environ().get("BLAID_STACK") == str(home.resolve())
            if marked or str(home.resolve() / "postgres") in command:
                found.append(f"{process.pid} {command}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def graphql(port: int, query: str, variables: dict[str, Any]) -> Any:
    """The webserver's answer to a GraphQL query."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(
        "POST", "/graphql", json.dumps({"query": query, "variables": variables}), {"Content-Type": "application/json"}
    )
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer["data"]


LAUNCH = """mutation($e: ExecutionParams!) { launchRun(executionParams: $e) { __typename } }"""
RUNS = "query { runsOrError { ... on Runs { results { status } } } }"


def launch_waiting(port: int) -> str:
    """Ask for a run of the job ``waiting``; the kind of answer."""
    selector = {"repositoryLocationName": "tiny", "repositoryName": "__repository__", "jobName": "waiting"}
    answer = graphql(port, LAUNCH, {"e": {"selector": selector, "runConfigData": {}}})
    return str(answer["launchRun"]["__typename"])


def run_statuses(port: int) -> list[str]:
    """Statuses of all runs."""
    return [run["status"] for run in graphql(port, RUNS, {})["runsOrError"]["results"]]
