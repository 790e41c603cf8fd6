"""The warehouse's docs over HTTP: the page of the current build and nothing else, to nobody else."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blaid_pipelines.lab.warehouse import open_build, publish
from blaid_pipelines.reasons import ReasonCode, StopAndFix
from blaid_pipelines.settings import Settings, load_settings
from blaid_pipelines.stack.docs_server import DocsServer, open_server
from tests.stack.world import free_port
from tests.support import eventually

Ask = Callable[..., tuple[int, dict[str, str], str]]


@pytest.fixture
def installation(tmp_path: Path, clean_environment: pytest.MonkeyPatch) -> Settings:
    """A data folder without a database: the service needs none."""
    clean_environment.setenv("BLAID_HOME", str(tmp_path / "home"))
    clean_environment.setenv("BLAID_ENV", "sandbox")
    return load_settings()


@pytest.fixture
def server(installation: Settings) -> Iterator[DocsServer]:
    with open_server(installation, 0) as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


def ask_port(port: int, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": f"127.0.0.1:{port}", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def ask(server: DocsServer) -> Ask:
    """``ask(path, method, **headers)``: status, headers and body."""
    return lambda *arguments, **headers: ask_port(server.port, *arguments, **headers)


def publish_page(settings: Settings, number: int, text: str | None) -> Path:
    """A warehouse with this page; None: one of an earlier Blaid, without."""
    with open_build(settings, datetime(2024, 7, 1, 12, 0, number, tzinfo=UTC), f"run{number:05d}") as build:
        build.database.write_bytes(b"warehouse")
        page = None
        if text is not None:
            page = build.folder / "page.html"
            page.write_text(text)
        return publish(settings, build, page)


def test_before_the_first_build_the_page_says_how_to_build(ask: Ask) -> None:
    status, headers, body = ask()
    assert status == 404
    assert headers["Content-Type"].startswith("text/html")
    assert "blaid sql --refresh" in body
    assert json.loads(ask("/version")[2]) == {"warehouse": None, "built_at": None, "docs": False}


def test_the_page_is_that_of_the_current_warehouse(ask: Ask, installation: Settings) -> None:
    for number in (1, 2):
        made = publish_page(installation, number, f"<p>page {number}</p>")
        status, headers, body = ask()
        assert (status, body) == (200, f"<p>page {number}</p>")
        assert headers["ETag"] == f'"{made.stem}"'
        assert json.loads(ask("/version")[2])["warehouse"] == made.stem
    assert ask("/index.html?g_v=1")[2] == "<p>page 2</p>"
    assert ask("/", If_None_Match=headers["ETag"])[0] == 304
    status, headers, body = ask("/", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len("<p>page 2</p>")), "")


def test_old_pages_go_with_their_warehouses(installation: Settings) -> None:
    for number in range(6):
        publish_page(installation, number, "x")
    kept = sorted(path.suffix for path in (installation.warehouse_dir / "versions").iterdir())
    assert kept == [".duckdb"] * 3 + [".html"] * 3


def test_a_warehouse_without_a_page_says_so(ask: Ask, installation: Settings) -> None:
    made = publish_page(installation, 1, None)
    status, _, body = ask()
    assert status == 404
    assert made.stem in body
    assert "blaid sql --refresh" in body


@pytest.mark.parametrize(
    "path",
    [
        "/warehouse.duckdb",
        "/versions/",
        "/../sandbox.key",
        "/..%2f..%2fsandbox.key",
        "/%2e%2e/sandbox.key",
        "//etc/passwd",
        "/etc/passwd",
        "/index.html/../../sandbox.key",
        "/.",
        "/%00",
        "/<script>alert(1)</script>",
        "/" + "a" * 9_000,
    ],
)
def test_nothing_else_is_served(ask: Ask, installation: Settings, path: str) -> None:
    publish_page(installation, 1, "the page")
    installation.sandbox_key_path.write_text("planted-key")
    status, _, body = ask(path)
    assert status == 404
    assert body == "There is nothing here but /.\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_written(ask: Ask, method: str) -> None:
    assert ask("/", method)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3001", "127.0.0.1.evil.example:3001", ""])
def test_a_page_of_another_name_is_not_answered(ask: Ask, installation: Settings, host: str) -> None:
    publish_page(installation, 1, "the page")
    status, _, body = ask("/", Host=host)
    assert status == 421
    assert "the page" not in body


def test_every_answer_forbids_other_sources(ask: Ask, installation: Settings) -> None:
    publish_page(installation, 1, "the page")
    for path in ("/", "/version", "/nothing"):
        headers = ask(path)[1]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "http" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_client_that_sends_nothing_holds_up_nobody(ask: Ask, server: DocsServer) -> None:
    idle = http.client.HTTPConnection("127.0.0.1", server.port)
    idle.connect()
    assert ask("/version")[0] == 200
    idle.close()


def test_a_port_in_use_is_named(installation: Settings, server: DocsServer) -> None:
    with pytest.raises(StopAndFix) as stopped:
        open_server(installation, server.port)
    assert stopped.value.reason.code is ReasonCode.PROCESS_FAILED
    assert "BLAID_DOCS_PORT" in stopped.value.reason.suggested_fix


def test_the_command_serves_until_it_is_told_to_end(installation: Settings) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "blaid_pipelines.cli.main", "docs", "--port", str(port)],
        env={**os.environ, "BLAID_HOME": str(installation.home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert f"http://127.0.0.1:{port}" in process.stderr.readline()
        assert eventually(lambda: ask_port(port, "/version")[0]) == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
