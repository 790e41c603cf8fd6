"""One GET to Massive, whole or not at all: bearer key, no redirect, a limit on time and a limit on size.

A time-out of ``requests`` starts anew with every byte that arrives, so a server that drips could hold a call for days.
Here a watchdog closes the connection when the whole call has had its time. What the answer means is ``errors`` and
``replies``.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Largest answer that is read, decompressed: several times what a full page of bars takes."""
_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that arrived whole; ``headers`` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class CallTimedOut(Exception):
    """The whole call had its time and was not done."""


class AnswerTooLarge(Exception):
    """The answer is longer than any that makes sense."""


class _Bearer(AuthBase):
    """The key as a bearer token. Being the request's own ``auth``, it is not replaced by what a ``.netrc`` says."""

    def __init__(self, key: str) -> None:
        self._header = f"Bearer {key}"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._header
        return request


class Wire:
    """A connection to one service. Not for several threads at once.

    ``timeout_s`` bounds the wait for a connection and for the next bytes, ``total_s`` the whole call.
    """

    def __init__(self, key: str, timeout_s: float, total_s: float) -> None:
        self._timeout_s = timeout_s
        self._total_s = total_s
        self._open: list[socket.socket] = []
        self._session = requests.Session()
        self._session.auth = _Bearer(key)
        self._session.headers.update({"Accept": "application/json", "User-Agent": "blaid-pipelines"})
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _watched_adapter(self._open))

    def get(self, url: str, params: Mapping[str, str]) -> Answer:
        """The answer to a GET. Raises what :func:`raised_by_wire` lists; redirects are answers, never followed."""
        expired = threading.Event()

        def end() -> None:
            expired.set()
            for known in list(self._open):
                with contextlib.suppress(OSError):
                    known.shutdown(socket.SHUT_RDWR)

        watchdog = threading.Timer(self._total_s, end)
        watchdog.daemon = True
        watchdog.start()
        try:
            answer = self._get(url, params)
        except BaseException:
            self._drop()
            if expired.is_set():
                raise CallTimedOut from None
            raise
        finally:
            watchdog.cancel()
        if expired.is_set():
            # A body without a stated length ends where the watchdog cut it, and looks whole.
            self._drop()
            raise CallTimedOut
        return answer

    def _get(self, url: str, params: Mapping[str, str]) -> Answer:
        response = self._session.get(
            url, params=dict(params), stream=True, allow_redirects=False, timeout=(self._timeout_s, self._timeout_s)
        )
        with response:
            parts: list[bytes] = []
            size = 0
            while part := response.raw.read(_CHUNK, decode_content=True):
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise AnswerTooLarge
                parts.append(part)
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status_code, headers, b"".join(parts))

    def _drop(self) -> None:
        """Close what is open: a connection that broke is not used again."""
        self._session.close()
        self._open.clear()


def raised_by_wire() -> tuple[type[Exception], ...]:
    """Everything :meth:`Wire.get` raises because of what the service or the network did, and nothing else."""
    import http.client

    import urllib3

    return (
        CallTimedOut,
        AnswerTooLarge,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        OSError,
    )


def _watched_adapter(opened: list[socket.socket]) -> HTTPAdapter:
    """An adapter that notes every socket it opens, before and after TLS, and never tries again by itself."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            opened_now: socket.socket = super()._new_conn()
            _note(opened_now, opened)
            return opened_now

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            opened_now: socket.socket = super()._new_conn()
            _note(opened_now, opened)
            return opened_now

        def connect(self) -> None:
            super().connect()
            if self.sock is not None:  # TLS wraps the socket in a new one
                _note(self.sock, opened)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    adapter = HTTPAdapter(max_retries=0)
    classes: dict[str, Any] = {"http": PlainPool, "https": SecurePool}
    adapter.poolmanager.pool_classes_by_scheme = classes
    return adapter


def _note(now_open: Any, opened: list[socket.socket]) -> None:
    del opened[:-4]  # the live one is among the newest
    opened.append(now_open)
