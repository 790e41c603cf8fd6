"""Massive's error table, cell by cell, over the wire: one reason, one row per attempt, and never a key in a row."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from blaid_pipelines.ids import new_trace_id
from blaid_pipelines.proof.recorder import CallContext, Recorder, wire_log_path
from blaid_pipelines.proof.usage import proof_counts
from blaid_pipelines.providers.massive.client import AGGS_ENDPOINT, MassiveRest
from blaid_pipelines.providers.massive.errors import retry_after_s
from blaid_pipelines.reasons import (
    BlaidError,
    DependencyDown,
    InvalidRequest,
    ReasonCode,
    Refused,
    RetryLater,
    StopAndFix,
)
from blaid_pipelines.sandbox.gateway import Fault
from blaid_pipelines.settings import Settings, load_settings
from blaid_pipelines.store.database import Store
from tests.providers.conftest import World
from tests.sandbox.fixtures import StartGateway

START, END = datetime(2024, 3, 11, tzinfo=UTC), datetime(2024, 3, 13, tzinfo=UTC)
NOW = datetime(2024, 7, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Cell:
    """One row of the table: what Massive answers, and what must come of it."""

    status: int
    code: ReasonCode
    error: type[BlaidError]
    attempts: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    wait: float | None = None

    def __str__(self) -> str:
        return f"{self.status}-{self.code.value}-{self.wait}"


TABLE = [
    Cell(301, ReasonCode.BAD_RESPONSE, DependencyDown, headers={"Location": "http://127.0.0.1:1/elsewhere"}),
    Cell(204, ReasonCode.BAD_RESPONSE, DependencyDown),
    Cell(400, ReasonCode.BAD_REQUEST, InvalidRequest),
    Cell(401, ReasonCode.AUTH_FAILED, StopAndFix),
    Cell(402, ReasonCode.ENTITLEMENT_MISSING, StopAndFix),
    Cell(403, ReasonCode.ENTITLEMENT_MISSING, StopAndFix),
    Cell(404, ReasonCode.NOT_FOUND, InvalidRequest),
    Cell(406, ReasonCode.BAD_REQUEST, InvalidRequest),
    Cell(408, ReasonCode.TIMEOUT, RetryLater, attempts=3),
    Cell(413, ReasonCode.BAD_REQUEST, InvalidRequest),
    Cell(422, ReasonCode.BAD_REQUEST, InvalidRequest),
    Cell(429, ReasonCode.RATE_LIMITED, RetryLater, attempts=3, wait=12.0),
    Cell(429, ReasonCode.RATE_LIMITED, RetryLater, attempts=3, headers={"Retry-After": "7"}, wait=7.0),
    Cell(429, ReasonCode.RATE_LIMITED, RetryLater, attempts=3, headers={"Retry-After": "NaN"}, wait=12.0),
    Cell(429, ReasonCode.RATE_LIMITED, RetryLater, attempts=3, headers={"Retry-After": "-5"}, wait=0.0),
    Cell(429, ReasonCode.RATE_LIMITED, RetryLater, attempts=1, headers={"Retry-After": "1e300"}, wait=3600.0),
    Cell(499, ReasonCode.UPSTREAM_5XX, RetryLater, attempts=3),
    Cell(500, ReasonCode.UPSTREAM_5XX, RetryLater, attempts=3),
    Cell(502, ReasonCode.UPSTREAM_5XX, RetryLater, attempts=3),
    Cell(503, ReasonCode.UPSTREAM_5XX, RetryLater, attempts=3),
    Cell(504, ReasonCode.TIMEOUT, RetryLater, attempts=3),
]


@pytest.mark.parametrize("cell", TABLE, ids=str)
def test_cell(cell: Cell, world: World) -> None:
    world.faults(Fault(AGGS_ENDPOINT, status=cell.status, headers=cell.headers, times=10))
    waits: list[float] = []
    massive = world.massive(sleep=waits.append, clock=lambda: NOW)
    with pytest.raises(cell.error) as caught:
        massive.get_bars("MESH4", "ohlcv-1m", START, END)
    reason = caught.value.reason
    assert reason.code is cell.code
    assert reason.suggested_fix
    assert reason.numbers["http_status"] == cell.status
    written = world.rows()
    assert [row.attempt for row in written] == list(range(1, cell.attempts + 1))
    for row, received in zip(written, world.gateway.received[-cell.attempts :], strict=True):
        assert (row.success, row.error_code, row.http_status) == (False, cell.code.value, cell.status)
        assert (row.provider, row.endpoint, row.symbol, row.schema) == ("massive", AGGS_ENDPOINT, "MESH4", "ohlcv-1m")
        assert row.simulated is True
        assert row.provider_request_id == (None if cell.status in {204, 301} else received.request_id)
    world.assert_all_counted(cell.attempts)
    assert len(waits) == cell.attempts - 1
    if cell.wait is not None:
        assert isinstance(caught.value, RetryLater)
        assert caught.value.retry_after_s == cell.wait
        assert set(waits) <= {cell.wait}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("7", 7.0),
        ("", 12.0),
        ("soon", 12.0),
        ("nan", 12.0),
        ("inf", 3600.0),
        ("-inf", 0.0),
        ("-3", 0.0),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True), 30.0),
        (format_datetime(NOW - timedelta(days=3), usegmt=True), 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
    ],
)
def test_how_long_to_wait(given: str, wanted: float) -> None:
    assert retry_after_s({"retry-after": given}, NOW) == wanted


def good(**changes: Any) -> str:
    row = {
        "ticker": "MESH4",
        "open": 1,
        "high": 1,
        "low": 1,
        "close": 1,
        "volume": 1,
        "window_start": 1710115200 * 10**9,
    }
    row |= changes.pop("row", {})
    return json.dumps({"status": "OK", "request_id": "r", "results": [row], **changes})


BODIES: list[tuple[str, Fault, ReasonCode]] = [
    ("html", Fault(body="<html>soon back</html>"), ReasonCode.BAD_RESPONSE),
    ("empty", Fault(body=""), ReasonCode.BAD_RESPONSE),
    ("list", Fault(body="[1, 2]"), ReasonCode.BAD_RESPONSE),
    ("null", Fault(body="null"), ReasonCode.BAD_RESPONSE),
    ("deep", Fault(body="[" * 100_000), ReasonCode.BAD_RESPONSE),
    ("nan", Fault(body=good().replace('"open": 1', '"open": NaN')), ReasonCode.BAD_RESPONSE),
    ("digits", Fault(body=good().replace('"open": 1', '"open": ' + "9" * 5000)), ReasonCode.BAD_RESPONSE),
    ("exponent", Fault(body=good().replace('"volume": 1', '"volume": 1e400')), ReasonCode.BAD_RESPONSE),
    ("exponents", Fault(body=good().replace('"open": 1', '"open": 1e' + "9" * 30)), ReasonCode.BAD_RESPONSE),
    ("no-status", Fault(body='{"results": []}'), ReasonCode.BAD_RESPONSE),
    ("error-200", Fault(body='{"status": "ERROR", "error": "no"}'), ReasonCode.BAD_RESPONSE),
    ("plan-200", Fault(body='{"status": "NOT_AUTHORIZED", "message": "no"}'), ReasonCode.ENTITLEMENT_MISSING),
    ("rows-no-list", Fault(body='{"status": "OK", "results": {}}'), ReasonCode.BAD_RESPONSE),
    ("row-no-object", Fault(body='{"status": "OK", "results": [1]}'), ReasonCode.BAD_RESPONSE),
    ("other-contract", Fault(body=good(row={"ticker": "MESM4"})), ReasonCode.BAD_RESPONSE),
    ("outside", Fault(body=good(row={"window_start": 60 * 10**9})), ReasonCode.BAD_RESPONSE),
    ("off-grid", Fault(body=good(row={"window_start": 1710115200 * 10**9 + 1})), ReasonCode.BAD_RESPONSE),
    ("float-time", Fault(body=good(row={"window_start": 1710115200e9})), ReasonCode.BAD_RESPONSE),
    ("text-price", Fault(body=good(row={"open": "1"})), ReasonCode.BAD_RESPONSE),
    ("true-price", Fault(body=good(row={"open": True})), ReasonCode.BAD_RESPONSE),
    ("part-volume", Fault(body=good(row={"volume": 1.5})), ReasonCode.BAD_RESPONSE),
    ("minus-volume", Fault(body=good(row={"volume": -1})), ReasonCode.BAD_RESPONSE),
    ("foreign-page", Fault(body=good(next_url="http://192.0.2.1/x?cursor=a")), ReasonCode.BAD_RESPONSE),
    ("no-page", Fault(body=good(next_url="/futures")), ReasonCode.BAD_RESPONSE),
    ("page-no-text", Fault(body=good(next_url=7)), ReasonCode.BAD_RESPONSE),
    ("truncated", Fault(kind="truncated"), ReasonCode.BAD_RESPONSE),
]


@pytest.mark.parametrize(("name", "fault", "code"), BODIES, ids=[body[0] for body in BODIES])
def test_answers_that_are_none(name: str, fault: Fault, code: ReasonCode, world: World) -> None:
    world.faults(fault)
    with pytest.raises(BlaidError) as caught:
        world.massive(sleep=lambda _: None).get_bars("MESH4", "ohlcv-1m", START, END)
    assert caught.value.reason.code is code
    assert [(row.success, row.error_code, row.http_status) for row in world.rows()] == [(False, code.value, 200)]
    world.assert_all_counted(1)


BROKEN = [
    ("reset", Fault(kind="reset", times=9), ReasonCode.CONNECTION_BROKEN, 3),
    ("cut", Fault(kind="cut", times=9), ReasonCode.CONNECTION_BROKEN, 3),
    ("hang", Fault(kind="hang", seconds=1.2, times=9), ReasonCode.TIMEOUT, 2),
    ("drip", Fault(kind="drip", seconds=1.5, times=9), ReasonCode.TIMEOUT, 2),
]


@pytest.mark.parametrize(("name", "fault", "code", "attempts"), BROKEN, ids=[case[0] for case in BROKEN])
def test_answers_that_do_not_arrive(name: str, fault: Fault, code: ReasonCode, attempts: int, world: World) -> None:
    world.faults(fault)
    quick = {"timeout_s": 0.3, "total_s": 0.4, "max_attempts": 2} if attempts == 2 else {}
    started = time.monotonic()
    with pytest.raises(RetryLater) as caught:
        world.massive(sleep=lambda _: None, **quick).get_bars("MESH4", "ohlcv-1m", START, END)
    assert caught.value.reason.code is code
    assert time.monotonic() - started < 3
    assert [(row.success, row.error_code) for row in world.rows()] == [(False, code.value)] * attempts
    world.assert_all_counted(attempts)


@pytest.fixture
def drips() -> Iterator[Callable[[bytes], str]]:
    """A server that sends what it is given, then a byte every 20 ms for as long as anybody listens."""
    servers: list[socket.socket] = []

    def start(first: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        servers.append(listener)

        def serve() -> None:
            try:
                peer, _ = listener.accept()
                peer.sendall(first)
                while True:
                    peer.sendall(b"x")
                    time.sleep(0.02)
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    "first",
    [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\n\r\n", b"H"],
    ids=["headers", "endless-body", "status"],
)
def test_a_server_that_drips_forever_has_so_long_and_no_longer(
    first: bytes, drips: Callable[[bytes], str], settings: Settings, store: Store
) -> None:
    slow = load_settings(BLAID_MASSIVE_URL=drips(first))
    massive = MassiveRest(
        slow, Recorder(store, wire_log_path(slow)), CallContext(new_trace_id()), 5.0, total_s=0.4, max_attempts=1
    )
    started = time.monotonic()
    with pytest.raises(RetryLater) as caught:
        massive.market_status()
    assert caught.value.reason.code is ReasonCode.TIMEOUT
    assert time.monotonic() - started < 2


def test_a_passing_failure_is_tried_again_and_every_attempt_has_its_row(world: World) -> None:
    world.faults(
        Fault(AGGS_ENDPOINT, status=429, headers={"Retry-After": "2"}),
        Fault(AGGS_ENDPOINT, "cut"),
    )
    waits: list[float] = []
    bars, request_ids = world.massive(sleep=waits.append).get_bars("MESH4", "ohlcv-1m", START, END)
    assert len(bars) > 2000
    assert waits == [2.0, 2.0]
    assert [(row.attempt, row.success, row.error_code) for row in world.rows()] == [
        (1, False, "RATE_LIMITED"),
        (2, False, "CONNECTION_BROKEN"),
        (3, True, None),
    ]
    assert request_ids == [row.id for row in world.rows() if row.success]
    world.assert_all_counted(3)


def test_a_service_that_is_not_there(gateway: StartGateway, store: Store) -> None:
    running = gateway()
    running.stop()
    world = World(running, store, proof_counts(store, running.settings))
    with pytest.raises(DependencyDown) as caught:
        world.massive(sleep=lambda _: None).market_status()
    assert caught.value.reason.code is ReasonCode.PROVIDER_UNREACHABLE
    assert [(row.attempt, row.error_code) for row in world.rows()] == [(1, "PROVIDER_UNREACHABLE")]


def test_the_key_is_in_no_row_and_no_message(world: World) -> None:
    secret = world.settings.massive_key()
    assert secret is not None
    key = secret.get_secret_value()
    own = f"{world.settings.massive_url}/futures/v1/aggs/MESH4?apiKey={key}&cursor="
    world.faults(
        Fault(status=400, detail=f"user {key} may not"),
        Fault(status=500, body=f"<html>{key}</html>"),
        Fault(body=good(next_url=own)),
        Fault(body=good(next_url=own + "abc")),
    )
    massive = world.massive(sleep=lambda _: None, max_attempts=1)
    for _ in range(4):
        with pytest.raises(BlaidError) as caught:
            massive.get_bars("MESH4", "ohlcv-1m", START, END)
        assert key not in str(caught.value.reason.as_dict())
    for row in world.rows():
        assert key not in f"{row.params} {row.error_message}"
    for received in world.gateway.received:
        assert key not in str(received.params)


# who may call whom


def build(settings: Settings, store: Store) -> MassiveRest:
    return MassiveRest(settings, Recorder(store, wire_log_path(settings)), CallContext(new_trace_id()))


def test_without_a_key_there_is_no_client_and_no_row(settings: Settings, store: Store) -> None:
    settings.sandbox_key_path.unlink()
    with pytest.raises(StopAndFix) as caught:
        build(settings, store)
    assert caught.value.reason.code is ReasonCode.INTEGRATION_KEY_MISSING
    assert proof_counts(store, settings).rows == 0


@pytest.mark.parametrize("key", ["with space", "line\nbreak", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_none(key: str, settings: Settings, store: Store) -> None:
    with pytest.raises(StopAndFix) as caught:
        build(load_settings(MASSIVE_API_KEY=key), store)
    assert caught.value.reason.code is ReasonCode.INTEGRATION_KEY_MISSING


@pytest.mark.parametrize("env", ["production", "dev"])
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://api.massive.com", "https://api.massive.com.example"])
def test_another_service_is_refused_outside_the_sandbox_world(
    env: str, url: str, settings: Settings, store: Store
) -> None:
    with pytest.raises(Refused) as caught:
        build(load_settings(BLAID_ENV=env, BLAID_MASSIVE_URL=url, MASSIVE_API_KEY="k" * 32), store)
    assert caught.value.reason.code is ReasonCode.SIMULATED_SOURCE_REFUSED
    build(load_settings(BLAID_ENV=env, MASSIVE_API_KEY="k" * 32), store)  # makes no call


def test_a_sandbox_key_is_never_sent_to_the_real_service(settings: Settings, store: Store) -> None:
    with pytest.raises(StopAndFix) as caught:
        build(load_settings(BLAID_MASSIVE_URL="https://api.massive.com"), store)
    assert caught.value.reason.code is ReasonCode.INTEGRATION_KEY_MISSING


def test_a_wrong_key_is_refused_by_the_gateway(world: World) -> None:
    wrong = load_settings(**world.settings.model_dump(by_alias=True) | {"MASSIVE_API_KEY": "wrong" * 5})
    with pytest.raises(StopAndFix) as caught:
        build(wrong, world.store).market_status()
    assert caught.value.reason.code is ReasonCode.AUTH_FAILED
    world.assert_all_counted(1)


def test_a_netrc_does_not_replace_the_key(world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert world.massive().market_status().market in {"open", "closed"}


@pytest.mark.parametrize("symbol", ["MES.c.0", "MES.FUT", "MES", "", "MESH4/../x", "MESH4?x=1"])
def test_only_contracts_are_ever_asked_for(symbol: str, world: World) -> None:
    with pytest.raises(InvalidRequest):
        world.massive().get_bars(symbol, "ohlcv-1m", START, END)
    world.assert_all_counted(0)


@pytest.mark.parametrize(("start", "end"), [(END, START), (START, START), (datetime(2024, 3, 11), END)])  # noqa: DTZ001
def test_what_is_no_range_is_never_sent(start: datetime, end: datetime, world: World) -> None:
    with pytest.raises(InvalidRequest):
        world.massive().get_bars("MESH4", "ohlcv-1m", start, end)
    world.assert_all_counted(0)


@pytest.mark.parametrize("schema", ["ohlcv-1d", "trades"])
def test_a_schema_that_massive_has_not_is_never_asked_for(schema: str, world: World) -> None:
    with pytest.raises(InvalidRequest):
        world.massive().get_bars("MESH4", schema, START, END)
    world.assert_all_counted(0)
