"""Looking at and driving other processes in tests of the embedded server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

# Opens the store, says so, and holds it until its input ends; then leaves the polite way.
HOLDER = """
import sys
from blaid_pipelines.settings import load_settings
from blaid_pipelines.store.database import initialise, open_store
make = initialise if sys.argv[1] == "initialise" else open_store
store = make(load_settings())
print("open", flush=True)
sys.stdin.read()
store.close()
print("closed", flush=True)
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Environment of a process on data folder ``home``."""
    return {**os.environ, "BLAID_HOME": str(home), "BLAID_ENV": "sandbox", **more}


def holder(home: Path, how: str = "open") -> subprocess.Popen[str]:
    """A process that opens (or initialises) the store of ``home`` and holds it."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
    )


def wait_open(process: subprocess.Popen[str]) -> None:
    """Wait until a holder has the store open."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if line.strip() != "open":
        process.kill()
        raise AssertionError(process.communicate()[1])


def let_go(process: subprocess.Popen[str]) -> None:
    """End a holder the polite way."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "closed" in out


def servers(home: Path) -> list[int]:
    """Ids of living postgres processes of this data folder, backends included."""
    data_dir = str(home.resolve() / "postgres")
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if data_dir in process.cmdline() or process.cwd() == data_dir:
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
