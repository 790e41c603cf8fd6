"""The demo as a person runs it: a fresh folder, twice, in processes of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.analysts.tutorial import Reader, steps_of


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a person with nothing set but a folder and a free port."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("BLAID_", "DATABENTO", "DAGSTER"))
    }
    return {
        **kept,
        "BLAID_HOME": str(tmp_path_factory.mktemp("demo") / "home"),
        "BLAID_SANDBOX_PORT": str(_free_port()),
    }


def _blaid(world: dict[str, str], *arguments: str, code: int = 0) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "blaid_pipelines.cli.main", *arguments, "--json"],
        env=world,
        cwd=Path(world["BLAID_HOME"]).parent,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stderr[-3000:]}\n{done.stdout[-2000:]}"
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def first(world: dict[str, str]) -> dict[str, Any]:
    """The report of the first run."""
    report: dict[str, Any] = _blaid(world, "demo")
    return report


@pytest.mark.slow
def test_the_three_bots_end_as_announced(first: dict[str, Any]) -> None:
    bots = {bot["name"]: bot for bot in first["bots"]}
    assert bots["trend-mes"]["failing_gates"] == ["broker_for_paper"]
    assert bots["trend-mes"]["reason"] == "BROKER_REQUIRED_FOR_PAPER"
    assert bots["thin-mes"]["first_failing_gate"] == "max_drawdown"
    assert bots["thin-mes"]["reason"] == "MAX_DRAWDOWN_EXCEEDED"
    assert bots["thin-mes"]["max_drawdown_pct"] > 20
    assert bots["churn-mnq"]["net_pnl"] < 0
    assert (bots["trend-m2k"]["reason"], bots["trend-m2k"]["trades"]) == ("DATA_QUALITY_FAILED", None)
    assert {bot["decision"] for bot in bots.values()} == {"REFUSE"}
    proof = first["proof"]
    assert proof["calls"] == proof["rows"] == proof["sandbox_received"] > 0


@pytest.mark.slow
def test_a_second_run_pulls_nothing_again_and_decides_the_same(world: dict[str, str], first: dict[str, Any]) -> None:
    second = _blaid(world, "demo")
    assert second["proof"] == first["proof"]
    before = {bot["name"]: bot for bot in first["bots"]}
    for bot in second["bots"]:
        same = ("snapshot", "trades", "net_pnl", "max_drawdown_pct", "decision", "failing_gates", "stage")
        assert {name: bot[name] for name in same} == {name: before[bot["name"]][name] for name in same}
        assert bot["session_id"] != before[bot["name"]]["session_id"]


@pytest.mark.slow
def test_afterwards_everything_can_be_asked(world: dict[str, str], first: dict[str, Any]) -> None:
    bundle = _blaid(world, "explain", "trend-mes")
    assert bundle["decision_hash_valid"] is True
    assert len(bundle["decision"]["gates"]) >= 11
    session = next(bot["session_id"] for bot in first["bots"] if bot["name"] == "trend-mes")
    assert _blaid(world, "reproduce", session)["identical"] is True
    _blaid(world, "backtest", "trend-m2k", code=3)
    rows = _blaid(world, "sql", "select bot_name, count(*) as trades from fct_trades group by 1")
    assert "trend-mes" in json.dumps(rows)
    assert _blaid(world, "explain", "nobody", code=2)["error_code"] == "NOT_FOUND"


@pytest.mark.slow
def test_the_tutorial_prints_what_it_shows(
    world: dict[str, str], first: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BLAID_HOME", "BLAID_SANDBOX_PORT"):
        monkeypatch.setenv(name, world[name])
    page = Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "analysts.md"
    reader = Reader(Path(world["BLAID_HOME"]).parent)
    for step in steps_of(page.read_text()):
        printed = reader.do(step)
        assert step.shown in {None, printed}, f"{page.name}, line {step.line}"


@pytest.mark.slow
def test_nothing_is_left_running(world: dict[str, str], first: dict[str, Any]) -> None:
    home = world["BLAID_HOME"]
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any(home in part for part in process.info["cmdline"] or [])
    ]
    assert left == []
