"""What a call may not do: last for ever, follow a redirect, leave its length open, carry a key that is none."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from blaid_pipelines.ids import new_trace_id
from blaid_pipelines.proof.recorder import CallContext, Recorder, wire_log_path
from blaid_pipelines.proof.usage import proof_counts
from blaid_pipelines.providers.databento.client import DatabentoHistorical
from blaid_pipelines.providers.databento.errors import _retry_after
from blaid_pipelines.providers.databento.wire import Wire
from blaid_pipelines.reasons import BlaidError, ReasonCode, RetryLater, StopAndFix
from blaid_pipelines.settings import load_settings
from blaid_pipelines.store.tables import ProviderRequest
from tests.providers.conftest import World

GLBX = "GLBX.MDP3"
START, END = datetime(2024, 3, 11, tzinfo=UTC), datetime(2024, 3, 20, tzinfo=UTC)
NOW = datetime(2024, 7, 1, 12, tzinfo=UTC)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads a request and lets ``answer`` do as it likes with the connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                try:
                    peer.recv(65_536)
                    answer(peer)
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=5)


def drip(what: bytes) -> Callable[[socket.socket], None]:
    """A byte every 50 ms: no read ever waits long."""

    def answer(peer: socket.socket) -> None:
        for byte in what:
            peer.sendall(bytes([byte]))
            time.sleep(0.05)

    return answer


def whole(data: bytes) -> Callable[[socket.socket], None]:
    return lambda peer: peer.sendall(data)


def silent(peer: socket.socket) -> None:
    time.sleep(1.5)


def ask(world: World, url: str, **options: object) -> tuple[BlaidError, list[ProviderRequest]]:
    """A cost asked of the server at ``url``: the error it ends in, and the rows."""
    settings = load_settings(**world.settings.model_dump(by_alias=True) | {"BLAID_DATABENTO_URL": url})
    trace = new_trace_id()
    world.traces.append(trace)
    recorder = Recorder(world.store, wire_log_path(settings))
    client = DatabentoHistorical(settings, recorder, CallContext(trace), **{"max_attempts": 1, **options})  # type: ignore[arg-type]
    with pytest.raises(BlaidError) as caught:
        client.get_cost(GLBX, "MES.c.0", "ohlcv-1m", None, START, END)
    return caught.value, world.rows()


LONG = HEAD + b"content-length: 400\r\n\r\n" + b"1" * 400


def after(head: bytes, rest: bytes) -> Callable[[socket.socket], None]:
    """``head`` at once, the rest in drips."""

    def answer(peer: socket.socket) -> None:
        peer.sendall(head)
        drip(rest)(peer)

    return answer


SLOW = {
    "headers": drip(b"HTTP/1.1 200 OK\r\n" + b"x-slow: " + b"a" * 400),
    "body": after(LONG[:-399], b"1" * 399),
    "chunks": after(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n1\r\n" * 99),
    "nothing": silent,
}


@pytest.mark.parametrize("kind", SLOW)
def test_a_call_ends_at_its_deadline_however_it_is_drawn_out(kind: str, world: World) -> None:
    with server(SLOW[kind]) as url:
        started = time.monotonic()
        error, rows = ask(world, url, deadline_s=0.4, timeout_s=30.0)
        took = time.monotonic() - started
    assert isinstance(error, RetryLater)
    assert error.reason.code is ReasonCode.TIMEOUT
    assert 0.3 < took < 5
    assert [(row.success, row.error_code) for row in rows] == [(False, "TIMEOUT")]


ANSWERS = {
    # Half a number is a number: only the length tells.
    "a number cut short": (HEAD + b"content-length: 10\r\n\r\n0.1", ReasonCode.CONNECTION_BROKEN),
    "a length that is not said": (HEAD + b"connection: close\r\n\r\n0.1", ReasonCode.BAD_RESPONSE),
    "a redirect": (
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        ReasonCode.BAD_RESPONSE,
    ),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", ReasonCode.CONNECTION_BROKEN),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_may_not_be_whole_is_none(name: str, world: World) -> None:
    data, code = ANSWERS[name]
    with server(whole(data)) as url:
        error, rows = ask(world, url)
    assert error.reason.code is code
    assert [(row.success, row.error_code) for row in rows] == [(False, code.value)]


def test_a_good_answer_leaves_its_status_and_request_id(world: World) -> None:
    world.client().get_cost(GLBX, "MES.c.0", "ohlcv-1m", None, START, END)
    [row] = world.rows()
    assert (row.http_status, row.provider_request_id) == (200, world.gateway.received[-1].request_id)


@pytest.mark.parametrize("key", ["db-schlüssel", "db-\u200bzero-width", "db-line\nfeed", "db-\x00"])
def test_a_key_that_is_none_is_refused_before_any_call(key: str, world: World) -> None:
    settings = load_settings(**world.settings.model_dump(by_alias=True) | {"DATABENTO_API_KEY": key})
    before = proof_counts(world.store, settings).rows
    with pytest.raises(StopAndFix) as caught:
        DatabentoHistorical(settings, Recorder(world.store, wire_log_path(settings)), CallContext("a" * 32))
    assert caught.value.reason.code is ReasonCode.SETTINGS_INVALID
    assert caught.value.reason.numbers["variable"] == "DATABENTO_API_KEY"
    assert key not in str(caught.value.reason.as_dict())
    assert proof_counts(world.store, settings).rows == before


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("nan", 1.0),
        ("-5", 1.0),
        ("-inf", 1.0),
        ("inf", 3600.0),
        ("1e400", 3600.0),
        ("99999999999999999999", 3600.0),
        ("", 1.0),
        ("soon", 1.0),
        ("Mon, 01 Jul 2024 12:00:30 GMT", 30.0),
        ("Mon, 01 Jul 2024 11:00:00 GMT", 0.0),
        ("Fri, 31 Dec 99999 23:59:59 GMT", 1.0),
    ],
)
def test_what_retry_after_means(given: str, seconds: float) -> None:
    assert _retry_after({"Retry-After": given}, NOW) == seconds


def test_attempts_are_counted_from_outside(world: World) -> None:
    with server(lambda peer: peer.close()) as url:
        _, rows = ask(world, url, max_attempts=2, sleep=lambda _: None)
    assert [row.attempt for row in rows] == [1, 2]


def test_a_wire_says_nothing_of_an_earlier_answer(world: World) -> None:
    wire = Wire("k", 1.0, 1.0)
    assert wire.last() == (None, None)
