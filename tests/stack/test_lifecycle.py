"""``blaid up`` and ``blaid down`` as a person uses them: real processes, and nothing left of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from tests.stack.world import free_port, launch_waiting, processes_of, run_statuses, write_workspace
from tests.support import eventually


class World:
    """A data folder, its ports and its commands."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.port = free_port()
        self.docs_port = free_port()
        self.workspace = write_workspace(folder)
        self.environment = {
            **os.environ,
            "BLAID_HOME": str(self.home),
            "BLAID_ENV": "sandbox",
            "BLAID_WEBSERVER_PORT": str(self.port),
            "BLAID_DOCS_PORT": str(self.docs_port),
            "BLAID_DATABENTO_URL": "http://127.0.0.1:9",  # another gateway: the stack starts none
        }

    def blaid(self, *arguments: str) -> tuple[int, Any]:
        """Exit code and parsed output of one command with ``--json``."""
        done = subprocess.run(
            [sys.executable, "-m", "blaid_pipelines.cli.main", *arguments, "--json"],
            env=self.environment, capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def up(self) -> tuple[int, Any]:
        return self.blaid("up", "--workspace", str(self.workspace))


@pytest.fixture
def world(tmp_path: Path, clean_environment: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.blaid("down")
    assert processes_of(made.home) == []


@pytest.mark.slow
def test_up_serves_a_second_up_is_refused_and_down_leaves_nothing(world: World) -> None:
    code, answer = world.up()  # a fresh folder: initialised on the way
    assert code == 0, answer
    running = {process["name"]: process for process in answer["processes"] if process["state"] == "running"}
    assert set(running) == {"dagster-webserver", "dagster-daemon", "docs", "postgres"}
    assert running["docs"]["url"] == f"http://127.0.0.1:{world.docs_port}"
    with urlopen(running["docs"]["url"] + "/version") as version:
        assert json.loads(version.read()) == {"warehouse": None, "built_at": None, "docs": False}

    code, answer = world.up()
    assert (code, answer["error_code"]) == (3, "ALREADY_RUNNING")

    # a run in progress, its worker and the code servers belong to the stack too
    assert launch_waiting(world.port) == "LaunchRunSuccess"
    eventually(lambda: "STARTED" in run_statuses(world.port), timeout_s=60, what="the daemon starts the run")

    # what was started lives on loopback only
    webserver = psutil.Process(running["dagster-webserver"]["pid"])
    for process in (webserver, psutil.Process(running["docs"]["pid"])):
        listening = [link.laddr.ip for link in process.net_connections("inet") if link.status == psutil.CONN_LISTEN]
        assert set(listening) == {"127.0.0.1"}

    # one killed service is a problem that doctor names; the others keep the folder taken
    os.kill(running["dagster-webserver"]["pid"], signal.SIGKILL)
    eventually(lambda: not webserver.is_running() or webserver.status() == psutil.STATUS_ZOMBIE)
    code, answer = world.blaid("doctor")
    bad = [check["check"] for check in answer["checks"] if not check["ok"]]
    assert code == 1
    assert {"dagster-webserver", "stack"} <= set(bad)
    assert world.up()[0] == 3

    code, answer = world.blaid("down")
    assert code == 0
    assert answer["postgres_stopped"]
    assert len(answer["processes"]) >= 3  # daemon, code server, run worker
    assert processes_of(world.home) == []

    code, answer = world.blaid("down")
    assert (code, answer["processes"]) == (0, [])


@pytest.mark.slow
def test_code_that_does_not_load_stops_up_and_leaves_nothing(world: World) -> None:
    write_workspace(world.workspace.parent, "raise RuntimeError('planted mistake')")
    code, answer = world.up()
    assert (code, answer["error_code"]) == (1, "PROCESS_FAILED")
    assert "planted mistake" in answer["message"]
    assert processes_of(world.home) == []


def test_port_in_use_is_said_before_anything_starts(world: World) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", world.port))
        other.listen()
        code, answer = world.up()
    assert (code, answer["error_code"]) == (1, "PROCESS_FAILED")
    assert "BLAID_WEBSERVER_PORT" in answer["suggested_fix"]
    assert processes_of(world.home) == []


def test_down_on_a_folder_that_was_never_used(world: World) -> None:
    assert world.blaid("down") == (
        0,
        {"success": True, "processes": [], "postgres_stopped": False, "postgres_in_use": False},
    )


def test_down_does_not_stop_the_server_under_another_command(world: World) -> None:
    assert world.blaid("init")[0] == 0
    code = (
        "import sys\n"
        "from blaid_pipelines.settings import load_settings\n"
        "from blaid_pipelines.store.database import open_store\n"
        "with open_store(load_settings()):\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=world.environment
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        code_, answer = world.blaid("down")
        assert (code_, answer["postgres_in_use"], answer["postgres_stopped"]) == (0, True, False)
        assert processes_of(world.home) != []
    finally:
        other.communicate(timeout=60)
    assert processes_of(world.home) == []
