"""The page of the warehouse's docs over HTTP, on loopback, read-only.

Three addresses and no other: ``/`` (and ``/index.html``) is the page that belongs to the current warehouse, or one that
says how to build it; ``/version`` names it. No file is ever looked up by what a request says, so there is nothing to
list and no path to climb. The page embeds all it needs; a policy in its headers keeps it from asking anybody else.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from blaid_pipelines.lab.warehouse import built_at, current_warehouse, docs_of
from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix
from blaid_pipelines.settings import Settings

HOST = "127.0.0.1"
PATIENCE_S = 10.0
"""How long a client may take over its request; a slow one holds a thread, not the service."""

_HEADERS = {
    # dbt's page is one file with its scripts, styles and data inline; it evaluates templates that it carries.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
        "img-src data:; font-src data:; connect-src data:; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_NOT_YET = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="10"><title>Blaid: no docs yet</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 4em auto; padding: 0 1em }}
code {{ background: #eee; padding: .1em .3em }}</style></head><body>
<h1>No docs yet</h1>
<p>{why}. The docs of the marts are made with the warehouse. Build it with</p>
<p><code>blaid sql --refresh</code></p>
<p>or materialize the job <code>warehouse</code> in the Dagster UI. This page looks again every ten seconds.</p>
</body></html>
"""


class DocsServer(ThreadingHTTPServer):
    """The service of one installation; ``port`` 0 takes any free port. Use :meth:`serve_forever` and ``shutdown``."""

    daemon_threads = True

    def __init__(self, settings: Settings, port: int) -> None:
        self.settings = settings
        super().__init__((HOST, port), _Handler)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])


def open_server(settings: Settings, port: int) -> DocsServer:
    """A server that listens already. Raises :class:`StopAndFix` (PROCESS_FAILED) where the port cannot be had."""
    try:
        return DocsServer(settings, port)
    except OSError as error:
        raise StopAndFix(
            Reason(
                ReasonCode.PROCESS_FAILED,
                f"port {port} of docs cannot be had: {error.strerror or error}",
                "Set BLAID_DOCS_PORT to a free port, or stop what listens there.",
                {"port": port},
            )
        ) from error


class _Handler(BaseHTTPRequestHandler):
    server: DocsServer
    timeout = PATIENCE_S
    server_version, sys_version = "blaid-docs", ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        # A page of another site must not read this one under a name of its own that leads here.
        if self.headers.get("Host", "").rpartition(":")[0] not in {HOST, "localhost"}:
            self._send(
                HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"This is not the host you asked for.\n", with_body
            )
            return
        path = self.path.partition("?")[0]
        if path in {"/", "/index.html"}:
            self._page(with_body)
        elif path == "/version":
            self._version(with_body)
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"There is nothing here but /.\n", with_body)

    def _page(self, with_body: bool) -> None:
        try:
            warehouse = current_warehouse(self.server.settings)
        except StopAndFix:
            self._not_yet("No warehouse has been built in this data folder", with_body)
            return
        tag = f'"{warehouse.stem}"'
        if self.headers.get("If-None-Match") == tag:
            self._send(HTTPStatus.NOT_MODIFIED, "text/html; charset=utf-8", b"", with_body, {"ETag": tag})
            return
        try:
            body = docs_of(warehouse).read_bytes()
        except FileNotFoundError:  # built by an earlier Blaid, or replaced between two looks
            self._not_yet(f"The warehouse {warehouse.stem} has no page of docs", with_body)
            return
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", body, with_body, {"ETag": tag})

    def _not_yet(self, why: str, with_body: bool) -> None:
        self._send(HTTPStatus.NOT_FOUND, "text/html; charset=utf-8", _NOT_YET.format(why=why).encode(), with_body)

    def _version(self, with_body: bool) -> None:
        try:
            warehouse = current_warehouse(self.server.settings)
        except StopAndFix:
            answer: dict[str, Any] = {"warehouse": None, "built_at": None, "docs": False}
        else:
            made = built_at(warehouse)
            answer = {
                "warehouse": warehouse.stem,
                "built_at": None if made is None else made.isoformat(),
                "docs": docs_of(warehouse).is_file(),
            }
        self._send(HTTPStatus.OK, "application/json", json.dumps(answer).encode(), with_body)

    def _send(
        self, status: HTTPStatus, kind: str, body: bytes, with_body: bool, extra: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {
            **_HEADERS,
            **(extra or {}),
            "Content-Type": kind,
            "Content-Length": str(len(body)),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)
