"""Which services ``blaid up`` runs, and how it knows that each is ready. All of them listen on loopback only."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text

import blaid_pipelines
from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix
from blaid_pipelines.settings import Environment, Settings
from blaid_pipelines.store.database import DAGSTER_SCHEMA, Store, dagster_environment

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Service:
    """One service: its command, its address (if it listens), and the probe that says it is ready.

    ``ready`` raises :class:`StopAndFix` for what will not mend itself by waiting.
    """

    name: str
    command: tuple[str, ...]
    port: int | None
    ready: Callable[[], bool]

    @property
    def url(self) -> str | None:
        """Where people find it."""
        return None if self.port is None else f"http://{HOST}:{self.port}"


def workspace_arguments(workspace: Path | None = None) -> list[str]:
    """What tells Dagster where the code is: the checkout's ``workspace.yaml``, else the installed package."""
    found = workspace or workspace_file()
    return ["-w", str(found)] if found is not None else ["-m", "blaid_pipelines.definitions", "-a", "defs"]


def workspace_file() -> Path | None:
    """``workspace.yaml`` beside the package in a checkout; None for an installed package."""
    candidate = Path(blaid_pipelines.__file__).parents[1] / "workspace.yaml"
    return candidate if candidate.is_file() else None


def services(settings: Settings, store: Store, began: datetime, workspace: Path | None = None) -> list[Service]:
    """The services of one stack that begins now (``began``, UTC: older heartbeats do not count)."""
    arguments = workspace_arguments(workspace)
    port = settings.webserver_port
    run = (sys.executable, "-m")
    found = [
        Service(
            "dagster-webserver",
            (*run, "dagster_webserver", "-h", HOST, "-p", str(port), "--live-data-poll-rate", "5000", *arguments),
            port,
            lambda: webserver_ready(port),
        ),
        Service(
            "dagster-daemon",
            (*run, "dagster._daemon", "run", *arguments),
            None,
            lambda: daemon_ready(store, began),
        ),
    ]
    docs_port = settings.docs_port
    found.append(
        Service(
            "docs",
            (*run, "blaid_pipelines.cli.main", "docs", "--port", str(docs_port)),
            docs_port,
            lambda: port_answers(docs_port),
        )
    )
    if settings.env is Environment.SANDBOX and settings.databento_url_setting is None:
        sandbox_port = settings.sandbox_port
        found.append(
            Service(
                "sandbox",
                (*run, "blaid_pipelines.cli.main", "sandbox", "--port", str(sandbox_port)),
                sandbox_port,
                lambda: port_answers(sandbox_port),
            )
        )
    return found


def service_environment(settings: Settings) -> dict[str, str]:
    """The environment of every service: ours, plus the settings that it must share with us, plus Dagster's."""
    shared = {
        "BLAID_ENV": settings.env.value,
        "BLAID_HOME": str(settings.home),
        "BLAID_SANDBOX_PORT": str(settings.sandbox_port),
        "BLAID_WEBSERVER_PORT": str(settings.webserver_port),
        "BLAID_DOCS_PORT": str(settings.docs_port),
        "PYTHONUNBUFFERED": "1",
    }
    for name, path in (("BLAID_LAKE", settings.lake_path), ("BLAID_POLICY", settings.policy_path)):
        if path is not None:
            shared[name] = str(path)
    if settings.database_url is not None:
        shared["BLAID_DATABASE_URL"] = settings.database_url.get_secret_value()
    return {**os.environ, **shared, **dagster_environment(settings)}


def port_is_free(port: int) -> bool:
    """True when nothing listens on this loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def port_answers(port: int) -> bool:
    """True when something accepts connections on this loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


_LOCATIONS = """query { workspaceOrError { __typename
  ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename
    ... on PythonError { message causes { message } } } } }
  ... on PythonError { message causes { message } } } }"""


def webserver_ready(port: int) -> bool:
    """True when the webserver answers and every code location is loaded; raises when one cannot be loaded."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        body = json.dumps({"query": _LOCATIONS})
        connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        payload = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return False  # not listening yet
    finally:
        connection.close()
    workspace = payload.get("data", {}).get("workspaceOrError", {})
    entries = workspace.get("locationEntries")
    if entries is None:
        raise StopAndFix(_code_broken("workspace", workspace))
    for entry in entries:
        problem = entry.get("locationOrLoadError") or {}
        if problem.get("__typename") == "PythonError":
            raise StopAndFix(_code_broken(str(entry["name"]), problem))
    return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)


def daemon_ready(store: Store, began: datetime) -> bool:
    """True when the daemon has written a heartbeat since ``began``."""
    with store.session() as session:
        table = f"{DAGSTER_SCHEMA}.daemon_heartbeats"
        if session.execute(text("SELECT to_regclass(:name)"), {"name": table}).scalar() is None:
            return False
        newest = session.execute(text(f"SELECT max(timestamp) FROM {table}")).scalar()  # UTC without a zone
    return bool(newest is not None and newest >= began.replace(tzinfo=None))


def _code_broken(location: str, problem: dict[str, Any]) -> Reason:
    causes = [cause["message"] for cause in problem.get("causes") or []]  # the last one is where it began
    message = str(causes[-1] if causes else problem.get("message", problem)).strip()
    return Reason(
        ReasonCode.PROCESS_FAILED,
        f"the code location {location} does not load: {message[:600]}",
        "Read the message and logs/dagster-webserver.log in the data folder; run `blaid doctor`.",
        {"location": location},
    )
