"""Faults through the command itself, as a process of its own: typed, nothing half written, the next command works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from blaid_pipelines.sandbox.gateway import Received
from blaid_pipelines.sandbox.synthetic import Recipe, synthesise
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import LakeSegment, ProviderRequest, SeriesHead, Snapshot
from tests.sandbox.fixtures import StartGateway

BLAID = (sys.executable, "-m", "blaid_pipelines.cli.main")
PULL = ("pull", "MES.c.0", "--start", "2024-02-26", "--end", "2024-03-13")
MONTHS = 2
NOT_UTF8 = os.fsdecode(b"\xff.csv")


def run(*arguments: str, code: int, limit_kb: int | None = None) -> Any:
    """One command with ``--json``: its document. ``limit_kb``: no file may grow beyond it, as on a full disk."""
    limited = () if limit_kb is None else ("bash", "-c", f'ulimit -f {limit_kb}; exec "$@"', "bash")
    done = subprocess.run(
        [*limited, *BLAID, *arguments, "--json"], capture_output=True, text=True, timeout=240, check=False
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    answer = json.loads(done.stdout)
    if code:
        assert answer["error_code"] != "JOB_FAILED", answer
        assert answer["suggested_fix"]
    return answer


def counted(store: Store) -> tuple[int, ...]:
    with store.session() as session:
        tables = (LakeSegment, Snapshot, SeriesHead)
        return tuple(session.scalar(select(func.count()).select_from(table)) or 0 for table in tables)


def test_a_pull_on_a_full_disk_then_killed_then_left_alone(gateway: StartGateway, store: Store) -> None:
    running = gateway(series=[synthesise(Recipe("MES.c.0", date(2024, 2, 26), date(2024, 3, 13)))])
    lake = running.settings.lake
    full = run(*PULL, code=1, limit_kb=1)
    assert full["error_code"] in {"INSTALLATION_BROKEN", "LEDGER_UNAVAILABLE"}
    assert counted(store) == (0, 0, 0)
    assert not [path for path in lake.rglob("*") if path.suffix in {".parquet", ".tmp"}]

    doomed: list[subprocess.Popen[bytes]] = []

    def end(item: Received) -> None:
        if item.endpoint == "timeseries.get_range":
            doomed[0].kill()

    running._on_request = end
    doomed.append(subprocess.Popen([*BLAID, *PULL, "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    assert doomed[0].wait(240) == -signal.SIGKILL
    running._on_request = None
    assert counted(store) == (0, 0, 0)

    done = run(*PULL, code=0)
    assert (done["quality"], done["current"]) == ("PASS", True)
    assert counted(store) == (MONTHS, 1, 1)
    proof = run("status", code=0)["proof"]
    assert proof["equal"], proof
    bought = select(ProviderRequest.start_ts).where(
        ProviderRequest.endpoint == "timeseries.get_range", ProviderRequest.success.is_(True)
    )
    with store.session() as session:
        times = Counter(session.scalars(bought))
    assert set(times.values()) == {1}, "what was answered, and is on record as answered, is not bought again"
    assert len(times) == MONTHS


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (("pull", "MES.c.0", "--start", "0001-01-01T00:00+05:00", "--end", "2024-01-05"), "INVALID_REQUEST", 2),
        ((*PULL, "--dataset", "", "--dry-run"), "INVALID_REQUEST", 2),
        (("ingest", "bars.csv", "--symbol", "6EH4", "--end", "9999-12-31"), "INVALID_REQUEST", 2),
        (("ingest", "pipe.csv", "--symbol", "6EH4"), "FILE_UNREADABLE", 2),
        (("contracts", "import", "pipe.csv"), "FILE_UNREADABLE", 1),
        (("contracts", "import", NOT_UTF8), "FILE_UNREADABLE", 1),
    ],
    ids=("before all zones", "no dataset", "after all bars", "a pipe", "a pipe of contracts", "a name"),
)
def test_what_cannot_be_asked_or_read_ends_typed_and_calls_nobody(
    arguments: tuple[str, ...],
    code: str,
    status: int,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bars.csv").write_text("ts_open,open,high,low,close,volume\n2024-01-02T10:00:00Z,1.1,1.1,1.1,1.1,5\n")
    os.mkfifo(tmp_path / "pipe.csv")  # reading it would wait for ever
    (tmp_path / NOT_UTF8).write_text("contract,session_date,open_interest\nESZ3,2013-12-02,5\n")
    assert run(*arguments, code=status)["error_code"] == code
    assert not (settings.home / "proof").exists()
