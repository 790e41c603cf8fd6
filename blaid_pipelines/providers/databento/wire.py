"""One HTTP exchange of the databento client, on our terms: a deadline for the whole of it, no redirects, whole bodies.

The client sets a limit for each read alone, so that a gateway which sends a byte now and then holds it for ever; it
hides the status and the request id of a good answer, and follows redirects, which are calls without a row. This is the
one place that stands in for its private methods (the version is pinned for it); what is asked and what an answer means
stays with the client and with ``errors``.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_CHUNK = 65_536


class DeadlinePassed(requests.exceptions.Timeout):
    """The exchange took longer than its deadline as a whole; the connection was cut."""


class LengthUnknown(ValueError):
    """An answer that does not say how long it is: one that was cut short would look whole."""


class Wire:
    """Sends what one API object of the databento client wants sent. Thread-safe; each exchange has its own connection.

    ``timeout_s`` bounds connecting and each silence, ``deadline_s`` the whole exchange. After an exchange,
    :meth:`last` gives the calling thread the status and request id of the answer, where one came.
    """

    def __init__(self, key: str, timeout_s: float, deadline_s: float) -> None:
        from databento.common.system import USER_AGENT

        self._auth = HTTPBasicAuth(username=key, password="")
        self._headers = {"accept": "application/json", "user-agent": USER_AGENT}
        self._timeout_s = timeout_s
        self._deadline_s = deadline_s
        self._seen = threading.local()

    def last(self) -> tuple[int | None, str | None]:
        """Status and request id of the answer that this thread got last; None where none came."""
        return getattr(self._seen, "status", None), getattr(self._seen, "request_id", None)

    def get(
        self, url: str, params: Iterable[tuple[str, str | None]] | None = None, basic_auth: bool = False
    ) -> requests.Response:
        """Stands in for ``BentoHttpAPI._get``."""
        return self._exchange("GET", url, params=list(params or []))

    def post(
        self,
        url: str,
        data: Mapping[str, object | None] | None = None,
        params: Iterable[tuple[str, str | None]] | None = None,
        basic_auth: bool = False,
    ) -> requests.Response:
        """Stands in for ``BentoHttpAPI._post``."""
        return self._exchange("POST", url, data=data, params=list(params or []))

    def stream(self, url: str, data: Mapping[str, object | None], basic_auth: bool, path: object = None) -> bytes:
        """Stands in for ``BentoHttpAPI._stream``; gives the body as it came instead of a parsed store."""
        return bytes(self._exchange("POST", url, data=data).content)

    def _exchange(self, method: str, url: str, **what: Any) -> requests.Response:
        from databento.common.http import check_backend_warnings, check_http_error

        self._seen.status = self._seen.request_id = None
        with self._until_deadline() as held, requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, _Adapter(held))
            response = session.request(
                method,
                url,
                headers=self._headers,
                auth=self._auth,
                timeout=(self._timeout_s, self._timeout_s),
                stream=True,
                allow_redirects=False,
                **what,
            )
            self._seen.status = response.status_code
            self._seen.request_id = response.headers.get("request-id")
            body = b"".join(response.iter_content(_CHUNK))
        response._content = body  # read here, under the deadline; ``content`` and ``json()`` find it
        if response.status_code < 400 and not _says_its_length(response.headers):
            raise LengthUnknown("the answer does not say how long it is, so nobody knows whether it is whole")
        check_backend_warnings(response)
        check_http_error(response)
        return response

    @contextmanager
    def _until_deadline(self) -> Iterator[_Held]:
        """Cut the connection once the deadline has passed, and say so whatever the cut looks like from here."""
        held = _Held()
        watch = threading.Timer(self._deadline_s, held.cut)
        watch.daemon = True
        watch.start()
        try:
            yield held
        except Exception as error:
            if held.expired:
                raise DeadlinePassed(f"not done within {self._deadline_s:g} s") from error
            raise
        finally:
            watch.cancel()
        if held.expired:
            raise DeadlinePassed(f"not done within {self._deadline_s:g} s")


class _Held:
    """The sockets of one exchange, so that another thread can end it."""

    def __init__(self) -> None:
        self.expired = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    def add(self, opened: socket.socket) -> None:
        with self._lock:
            self._sockets.append(opened)
            expired = self.expired
        if expired:
            _shut(opened)

    def cut(self) -> None:
        with self._lock:
            self.expired = True
            opened = list(self._sockets)
        for each in opened:
            _shut(each)


def _shut(opened: socket.socket) -> None:
    """Wake whoever reads from a socket. Past the TLS layer on purpose: that would wait for a good-bye."""
    with suppress(OSError):  # already closed: the exchange ended by itself
        socket.socket.shutdown(opened, socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """Connections that hand their socket to the exchange's watch. No retries: each attempt has a row of its own."""

    def __init__(self, held: _Held) -> None:
        self._held = held
        super().__init__(max_retries=0, pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _watched(self._held)

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = _watched(self._held)
        return manager


def _watched(held: _Held) -> dict[str, Any]:
    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            opened = super()._new_conn()
            held.add(opened)
            return opened

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            assert isinstance(self.sock, socket.socket)
            held.add(self.sock)

        def _new_conn(self) -> socket.socket:
            opened = super()._new_conn()
            held.add(opened)
            return opened

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _says_its_length(headers: Mapping[str, str]) -> bool:
    return "content-length" in headers or "chunked" in headers.get("transfer-encoding", "").lower()
