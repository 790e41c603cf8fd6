"""The sandbox gateway: provider protocols on loopback, over real sockets, with a log of what it received and faults.

Every provider request is counted and appended to the request log before anything is answered, so that the log can be
held against the rows of the product. Faults are served on command, by constructor or by ``POST /_sandbox/faults``.
What the answers hold is the business of ``databento`` and ``massive``, which have a path each; nothing of the product
imports this package.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from blaid_pipelines.ids import new_trace_id
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode, StopAndFix
from blaid_pipelines.sandbox import massive
from blaid_pipelines.sandbox.databento import DatabentoHistoricalService, Reply, bad_key, case_error, simple_error
from blaid_pipelines.sandbox.series import Series

_CHUNK = 65_536
_Answer = Callable[[Request, "Received", Mapping[str, str], "Fault | None"], Reply]
FAULT_KINDS = ("reply", "reset", "cut", "truncated", "hang", "drip")


@dataclass(frozen=True, slots=True)
class Fault:
    """One misbehaviour for the next ``times`` requests to ``endpoint`` (``*``: any).

    ``reply``: answer with ``status``, ``headers`` and a body: ``body`` as it is, else an error of ``case`` (structured)
    or ``detail`` (simple). ``reset``: close with RST and no answer. ``cut``: half of the true answer, then RST.
    ``truncated``: half of the true body in a complete answer. ``hang``: nothing for ``seconds``, then RST. ``drip``:
    the true answer, a byte every 20 ms for ``seconds``, then RST.
    """

    endpoint: str = "*"
    kind: str = "reply"
    times: int = 1
    status: int = 200
    body: str | None = None
    case: str | None = None
    detail: str = "fault on command"
    payload: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise InvalidRequest(
                Reason(
                    ReasonCode.INVALID_REQUEST,
                    f"There is no fault kind {self.kind!r}.",
                    f"Use one of: {', '.join(FAULT_KINDS)}.",
                    {"kind": self.kind},
                )
            )

    @classmethod
    def from_json(cls, value: Any) -> Fault:
        """A fault from a JSON object; unknown fields raise :class:`InvalidRequest`."""
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(value) - known) if isinstance(value, dict) else ["not an object"]
        if unknown:
            raise InvalidRequest(
                Reason(
                    ReasonCode.INVALID_REQUEST,
                    f"A fault cannot hold: {', '.join(unknown)}.",
                    f"Use the fields {', '.join(sorted(known))}.",
                )
            )
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Received:
    """One provider request as the gateway saw it; never the key."""

    n: int
    received_at: str
    request_id: str
    method: str
    endpoint: str
    params: Mapping[str, str]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SandboxGateway:
    """A running gateway is a context manager: ``with SandboxGateway(series, key=key) as gateway: gateway.url``."""

    def __init__(
        self,
        series: Sequence[Series],
        *,
        key: str,
        host: str = "127.0.0.1",
        port: int = 0,
        request_log: Path | None = None,
        faults: Iterable[Fault] = (),
        on_request: Callable[[Received], None] | None = None,
        clock: Callable[[], datetime] = _utc_now,
        backup_series: Sequence[Series] | None = None,
    ) -> None:
        """``backup_series``: what Massive serves where it is to differ from Databento's ``series``."""
        self.series = tuple(series)
        self.received: list[Received] = []
        self._databento = DatabentoHistoricalService(series)
        self._massive = massive.MassiveService(series if backup_series is None else backup_series)
        self._key = key
        self._address = (host, port)
        self._request_log = request_log
        self._faults = list(faults)
        self._on_request = on_request
        self._clock = clock
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    # running

    @property
    def url(self) -> str:
        """The base URL, once started."""
        assert self._socket is not None, "the gateway is not started"
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}"

    def start(self) -> SandboxGateway:
        """Bind and serve in a thread; returns once it answers. Raises :class:`StopAndFix` on a taken port."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(self._address)
        except OSError as error:
            listener.close()
            raise StopAndFix(
                Reason(
                    ReasonCode.ALREADY_RUNNING,
                    f"Port {self._address[1]} of {self._address[0]} cannot be served: {error.strerror}.",
                    "Stop what listens there, or choose another port (--port, BLAID_SANDBOX_PORT).",
                    {"host": self._address[0], "port": self._address[1]},
                )
            ) from None
        if self._request_log is not None:
            self._request_log.parent.mkdir(parents=True, exist_ok=True)
        self._socket = listener
        config = uvicorn.Config(
            self._app,
            interface="asgi3",  # a bound method is not recognised as ASGI 3 by itself
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="sandbox-gateway", daemon=True
        )
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.002)
        return self

    def stop(self) -> None:
        """Stop serving and free the port."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=10)
        if self._socket is not None:
            self._socket.close()

    def __enter__(self) -> SandboxGateway:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # faults and counts

    def add_faults(self, *faults: Fault) -> None:
        """Queue faults; the first that fits a request is used up by it."""
        with self._lock:
            self._faults.extend(faults)

    def clear_faults(self) -> None:
        """Forget queued faults."""
        with self._lock:
            self._faults.clear()

    def counts(self) -> dict[str, int]:
        """Provider requests received, by endpoint."""
        with self._lock:
            return dict(sorted(Counter(item.endpoint for item in self.received).items()))

    def _take_fault(self, endpoint: str) -> Fault | None:
        with self._lock:
            for position, fault in enumerate(self._faults):
                if fault.endpoint in {"*", endpoint}:
                    if fault.times > 1:
                        left = {**{item.name: getattr(fault, item.name) for item in fields(fault)}}
                        self._faults[position] = Fault(**{**left, "times": fault.times - 1})
                    else:
                        del self._faults[position]
                    return fault
        return None

    def _record(self, method: str, endpoint: str, params: Mapping[str, str]) -> Received:
        with self._lock:
            item = Received(
                n=len(self.received) + 1,
                received_at=self._clock().isoformat(),
                request_id=new_trace_id(),
                method=method,
                endpoint=endpoint,
                params=dict(params),
            )
            if self._request_log is not None:
                line = json.dumps(asdict(item)) + "\n"
                handle = os.open(self._request_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    os.write(handle, line.encode())
                finally:
                    os.close(handle)
            self.received.append(item)
        if self._on_request is not None:
            self._on_request(item)
        return item

    # serving

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        request = Request(scope, receive)
        path = request.url.path
        if path.startswith("/_sandbox/"):
            response = await self._control(request, path.removeprefix("/_sandbox/"))
            await response(scope, receive, send)
            return
        if path.startswith("/v0/"):
            await self._provider(request, path.removeprefix("/v0/"), self._answer_databento, scope, receive, send)
            return
        endpoint = massive.endpoint_of(path)
        if endpoint is not None:
            await self._provider(request, endpoint, self._answer_massive, scope, receive, send)
            return
        await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)

    async def _provider(
        self, request: Request, endpoint: str, answer: _Answer, scope: Scope, receive: Receive, send: Send
    ) -> None:
        body = await request.body()
        text = request.url.query if request.method == "GET" else body.decode("utf-8", "replace")
        params = dict(parse_qsl(text, keep_blank_values=True))
        told = {name: value for name, value in params.items() if name != "apiKey"}
        if endpoint == massive.AGGS:
            told["ticker"] = request.url.path.rpartition("/")[2]
        item = self._record(request.method, endpoint, told)
        fault = self._take_fault(endpoint)
        if fault is not None and fault.kind == "hang":
            await asyncio.sleep(fault.seconds)
        if fault is not None and fault.kind in {"hang", "reset"}:
            _reset(send)
            return
        commanded = fault if fault is not None and fault.kind == "reply" else None
        reply = await run_in_threadpool(answer, request, item, params, commanded)
        headers = {"request-id": item.request_id, "x-blaid-simulated": "true", **reply.headers}
        if fault is not None and fault.kind == "truncated":
            reply = Reply(reply.status, reply.body[: len(reply.body) // 2], reply.content_type)
        if fault is not None and fault.kind == "cut":
            await _send_half(send, reply, headers)
            return
        if fault is not None and fault.kind == "drip":
            await _drip(send, reply, headers, fault.seconds)
            return
        await _response(reply, headers)(scope, receive, send)

    def _answer_databento(
        self, request: Request, item: Received, params: Mapping[str, str], fault: Fault | None
    ) -> Reply:
        if fault is not None:
            return _commanded(fault)
        if not self._knows(request.headers.get("authorization", "")):
            return bad_key()
        return self._databento.answer(item.method, item.endpoint, params)

    def _answer_massive(
        self, request: Request, item: Received, params: Mapping[str, str], fault: Fault | None
    ) -> Reply:
        if fault is not None:
            if fault.body is not None:
                return _commanded(fault)
            reply = massive.error_reply(fault.status, fault.detail, item.request_id)
            return Reply(reply.status, reply.body, reply.content_type, fault.headers)
        key = massive.key_of(request.headers.get("authorization", ""), params)
        if key is None:
            return massive.error_reply(401, "API Key was not provided", item.request_id)
        if not hmac.compare_digest(key.encode(), self._key.encode()):
            return massive.error_reply(401, "Unknown API Key", item.request_id)
        base_url = str(request.base_url).rstrip("/")
        return self._massive.answer(item.method, request.url.path, params, base_url, item.request_id, self._clock())

    def _knows(self, authorization: str) -> bool:
        kind, _, value = authorization.partition(" ")
        try:
            user, _, _ = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        return kind.lower() == "basic" and hmac.compare_digest(user.encode(), self._key.encode())

    async def _control(self, request: Request, name: str) -> Response:
        if name == "requests" and request.method == "GET":
            counts = self.counts()
            return JSONResponse({"count": sum(counts.values()), "by_endpoint": counts})
        if name == "health" and request.method == "GET":
            return JSONResponse({"status": "ok", "symbols": [series.symbol for series in self.series]})
        if name == "faults" and request.method == "DELETE":
            self.clear_faults()
            return JSONResponse({"faults": 0})
        if name == "faults" and request.method == "POST":
            try:
                given = json.loads(await request.body())
                self.add_faults(*(Fault.from_json(value) for value in (given if isinstance(given, list) else [given])))
            except (ValueError, TypeError) as error:
                return JSONResponse({"detail": str(error)}, 400)
            except InvalidRequest as error:
                return JSONResponse({"detail": str(error)}, 400)
            return JSONResponse({"faults": len(self._faults)})
        return JSONResponse({"detail": "Not Found"}, 404)


def _commanded(fault: Fault) -> Reply:
    if fault.body is not None:
        return Reply(fault.status, fault.body.encode(), "text/html", fault.headers)
    if fault.case is not None:
        reply = case_error(fault.status, fault.case, fault.detail, fault.payload)
    else:
        reply = simple_error(fault.status, fault.detail)
    return Reply(reply.status, reply.body, reply.content_type, fault.headers)


def _response(reply: Reply, headers: Mapping[str, str]) -> Response:
    if not reply.streamed:
        return Response(reply.body, reply.status, dict(headers), reply.content_type)
    chunks = (reply.body[at : at + _CHUNK] for at in range(0, len(reply.body), _CHUNK))
    return StreamingResponse(chunks, reply.status, dict(headers), reply.content_type)


async def _send_half(send: Send, reply: Reply, headers: Mapping[str, str]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": raw})
    await send({"type": "http.response.body", "body": reply.body[: len(reply.body) // 2], "more_body": True})
    await asyncio.sleep(0.02)  # let the half leave before the reset, which would overtake it
    _reset(send)


async def _drip(send: Send, reply: Reply, headers: Mapping[str, str], seconds: float) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": raw})
    for position in range(min(len(reply.body), int(seconds / 0.02))):
        await send({"type": "http.response.body", "body": reply.body[position : position + 1], "more_body": True})
        await asyncio.sleep(0.02)
    _reset(send)


def _reset(send: Send) -> None:
    """Close the connection with RST. ASGI has no word for it: this reaches for the transport of uvicorn's h11 cycle."""
    transport = send.__self__.transport  # type: ignore[attr-defined]
    peer = transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
