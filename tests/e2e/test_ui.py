"""The Dagster UI as a quant reads it: asset pages in a headless browser, on a stack with one series and one bot.

The pages are Dagster's; what stands on them is ours. Screenshots go to ``build/screens`` for a person to look at.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCREENS = ROOT / "build" / "screens"
REQUIRED = "BLAID_REQUIRE_BROWSER"
"""Set where a browser must be there, as in CI: then its absence fails."""
WAIT_MS = 30_000


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by playwright."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    if binary is None:
        reason = "no chromium on this machine: install the package chromium to run the browser tests"
        if os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def stack(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a stack on which one series was pulled and one bot backtested."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("BLAID_", "DATABENTO", "DAGSTER"))
    }
    ports = [_free_port() for _ in range(3)]
    environment = {
        **kept,
        "BLAID_HOME": str(tmp_path_factory.mktemp("ui") / "home"),
        "BLAID_SANDBOX_PORT": str(ports[0]),
        "BLAID_WEBSERVER_PORT": str(ports[1]),
        "BLAID_DOCS_PORT": str(ports[2]),
    }
    _blaid(environment, "init")
    try:
        _blaid(environment, "up")
        _blaid(environment, "pull", "MES.c.0", "--start", "2024-02-19", "--end", "2024-03-23")
        _blaid(
            environment, "bot", "create", "trend", "--instrument", "MES", "--strategy", "ma_cross", "--capital", "25000"
        )
        _blaid(environment, "backtest", "trend")
        yield f"http://127.0.0.1:{ports[1]}"
    finally:
        _blaid(environment, "down")


def _blaid(environment: dict[str, str], *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "blaid_pipelines.cli.main", *arguments, "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stderr[-3000:]}\n{done.stdout[-2000:]}"
    return json.loads(done.stdout)


PAGES = {
    "bars": ("/assets/bars?view=partitions&partition=MES.c.0", ["simulated bars of MES.c.0", "MESH4", "missing_pct"]),
    "quality_verdict": (
        "/assets/quality_verdict?view=partitions&partition=MES.c.0",
        ["PASS", "checks_passed", "quality-3"],
    ),
    "quality_checks": ("/assets/quality_verdict?view=checks", ["bar_count", "session_gaps", "allowed", "MES.c.0"]),
    "backtest": ("/assets/backtest?view=partitions&partition=trend", ["profit_factor", "equity_curve"]),
    "promotion_decision": (
        "/assets/promotion_decision?view=partitions&partition=trend",
        ["REFUSE", "TOO_FEW_SESSIONS", "BROKER_REQUIRED_FOR_PAPER"],
    ),
    "fct_trades": ("/assets/fct_trades", ["One row per trade", "entry_price"]),
    "coverage": ("/assets/coverage", ["One row per", "missing_minutes"]),
    "reconciliation": ("/assets/reconciliation", ["account of the same bars"]),
    "market_data": ("/jobs", ["market_data", "lab_cycle", "warehouse", "reference_data"]),
}
PICTURES = {"bars": 2, "quality_verdict": 1, "backtest": 1}
"""How many pictures a page draws without a click."""


@pytest.mark.slow
def test_every_page_says_what_it_holds(stack: str, browser: Any) -> None:
    # One test for all pages: under xdist each worker that got a page of its own would start a stack of its own.
    SCREENS.mkdir(parents=True, exist_ok=True)
    found = {name: _problems(stack, browser, name) for name in PAGES}
    assert found == {name: [] for name in PAGES}


def _problems(stack: str, browser: Any, name: str) -> list[str]:
    """What one page lacks: words, pictures, or a script that ran without an error."""
    from playwright.sync_api import TimeoutError as NotFound

    address, words = PAGES[name]
    page = browser.new_page(viewport={"width": 1500, "height": 1400})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    page.goto(stack + address, timeout=WAIT_MS)
    for text in words:
        try:
            page.get_by_text(text).first.wait_for(timeout=WAIT_MS)
        except NotFound:
            problems.append(f"text: {text}")
    drawn = page.locator("img[src^='data:image/svg+xml']")
    for place in range(PICTURES.get(name, 0)):
        try:
            drawn.nth(place).wait_for(timeout=WAIT_MS)
            width = drawn.nth(place).evaluate("image => image.naturalWidth")
        except NotFound:
            width = 0
        if not width:
            problems.append(f"picture {place + 1}")
    page.screenshot(path=str(SCREENS / f"{name}.png"), full_page=True)
    page.close()
    return problems
