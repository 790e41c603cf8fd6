"""Databento's error table, cell by cell, over the wire: status and case give one reason, one row per attempt."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from blaid_pipelines.proof.usage import check_requests, proof_counts
from blaid_pipelines.reasons import BlaidError, DependencyDown, InvalidRequest, ReasonCode, RetryLater, StopAndFix
from blaid_pipelines.sandbox.gateway import Fault
from blaid_pipelines.store.database import Store
from tests.providers.conftest import World
from tests.sandbox.fixtures import StartGateway

GLBX = "GLBX.MDP3"
START, END = datetime(2024, 3, 11, tzinfo=UTC), datetime(2024, 3, 20, tzinfo=UTC)
NOW = datetime(2024, 7, 1, 12, tzinfo=UTC)
AVAILABLE = {
    "dataset": GLBX,
    "start": "2024-03-11T00:00:00.000000000Z",
    "end": "2024-09-01T00:00:00.000000000Z",
    "available_start": "2010-06-06T00:00:00.000000000Z",
    "available_end": "2024-07-01T11:50:00.000000000Z",
}


@dataclass(frozen=True)
class Cell:
    """One row of the table: what Databento answers, and what must come of it."""

    status: int
    case: str | None
    code: ReasonCode
    error: type[BlaidError]
    attempts: int = 1
    detail: str = "as the table says"
    payload: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status}-{self.case or 'simple'}-{self.code.value}"


LICENCE = "A live data license is required to access GLBX.MDP3 data after 2024-06-30T11:50:00.000000000Z."
TABLE = [
    Cell(400, None, ReasonCode.BAD_REQUEST, InvalidRequest),
    Cell(400, "validation_failed", ReasonCode.BAD_REQUEST, InvalidRequest),
    Cell(401, None, ReasonCode.AUTH_FAILED, StopAndFix),
    Cell(401, "auth_authentication_failed", ReasonCode.AUTH_FAILED, StopAndFix),
    Cell(402, None, ReasonCode.ENTITLEMENT_MISSING, StopAndFix),
    Cell(402, "account_insufficient_funds", ReasonCode.ENTITLEMENT_MISSING, StopAndFix),
    Cell(
        403,
        "license_not_found_unauthorized",
        ReasonCode.ENTITLEMENT_MISSING,
        StopAndFix,
        detail=LICENCE,
        numbers={"cutoff": "2024-06-30T11:50:00.000000000Z"},
    ),
    Cell(403, "auth_account_locked", ReasonCode.AUTH_FAILED, StopAndFix),
    Cell(403, None, ReasonCode.ENTITLEMENT_MISSING, StopAndFix),
    Cell(404, None, ReasonCode.NOT_FOUND, InvalidRequest),
    Cell(404, "dataset_not_found", ReasonCode.NOT_FOUND, InvalidRequest),
    Cell(404, "symbol_not_found", ReasonCode.SYMBOL_NOT_FOUND, InvalidRequest),
    Cell(406, None, ReasonCode.BAD_REQUEST, InvalidRequest),
    Cell(408, None, ReasonCode.TIMEOUT, RetryLater, attempts=3),
    Cell(409, None, ReasonCode.BAD_REQUEST, InvalidRequest),
    Cell(413, None, ReasonCode.BAD_REQUEST, InvalidRequest),
    *(
        Cell(
            422,
            case,
            ReasonCode.RANGE_UNAVAILABLE,
            InvalidRequest,
            payload=AVAILABLE,
            numbers={name: AVAILABLE[name] for name in ("available_start", "available_end")},
        )
        for case in (
            "data_end_after_available_end",
            "data_start_before_available_start",
            "data_start_after_available_end",
        )
    ),
    Cell(422, "data_end_after_available_end", ReasonCode.RANGE_UNAVAILABLE, InvalidRequest, payload=None),
    Cell(422, "data_time_range_start_on_or_after_end", ReasonCode.BAD_REQUEST, InvalidRequest, payload=AVAILABLE),
    Cell(422, "symbology_invalid_request", ReasonCode.SYMBOL_NOT_FOUND, InvalidRequest),
    Cell(422, "dataset_not_found", ReasonCode.NOT_FOUND, InvalidRequest),
    Cell(422, None, ReasonCode.BAD_REQUEST, InvalidRequest),
    Cell(
        429,
        None,
        ReasonCode.RATE_LIMITED,
        RetryLater,
        attempts=3,
        headers={"Retry-After": "7"},
        numbers={"retry_after_s": 7.0},
    ),
    Cell(
        429,
        None,
        ReasonCode.RATE_LIMITED,
        RetryLater,
        attempts=3,
        headers={"Retry-After": format_datetime(NOW + timedelta(seconds=30), usegmt=True)},
        numbers={"retry_after_s": 30.0},
    ),
    Cell(429, None, ReasonCode.RATE_LIMITED, RetryLater, attempts=3, numbers={"retry_after_s": 1.0}),
    Cell(
        429,
        None,
        ReasonCode.RATE_LIMITED,
        RetryLater,
        attempts=1,
        headers={"Retry-After": "600"},
        numbers={"retry_after_s": 600.0},
    ),
    Cell(500, None, ReasonCode.UPSTREAM_5XX, RetryLater, attempts=3),
    Cell(503, "gateway_overloaded", ReasonCode.UPSTREAM_5XX, RetryLater, attempts=3),
    Cell(504, None, ReasonCode.TIMEOUT, RetryLater, attempts=3),
]


@pytest.mark.parametrize("cell", TABLE, ids=str)
def test_cell(cell: Cell, world: World) -> None:
    fault = Fault(
        status=cell.status,
        case=cell.case,
        detail=cell.detail,
        payload=cell.payload,
        headers=cell.headers,
        times=10,
    )
    world.faults(fault)
    waits: list[float] = []
    databento = world.client(sleep=waits.append, clock=lambda: NOW)
    with pytest.raises(cell.error) as caught:
        databento.get_cost(GLBX, "MES.c.0", "ohlcv-1m", None, START, END)
    reason = caught.value.reason
    assert reason.code is cell.code
    assert reason.suggested_fix
    assert {**reason.numbers, "http_status": cell.status, **cell.numbers} == dict(reason.numbers)
    written = world.rows()
    assert [row.attempt for row in written] == list(range(1, cell.attempts + 1))
    for row, received in zip(written, world.gateway.received[-cell.attempts :], strict=True):
        assert row.success is False
        assert (row.error_code, row.http_status) == (cell.code.value, cell.status)
        assert row.provider_request_id == received.request_id
        assert row.latency_ms is not None
    world.assert_all_counted(cell.attempts)
    assert len(waits) == cell.attempts - 1
    if isinstance(caught.value, RetryLater) and "retry_after_s" in cell.numbers:
        assert caught.value.retry_after_s == cell.numbers["retry_after_s"]
        assert set(waits) <= {cell.numbers["retry_after_s"]}


BODIES: list[tuple[str, str, Fault, ReasonCode, type[BlaidError], int]] = [
    ("html", "cost", Fault(body="<html>soon back</html>"), ReasonCode.BAD_RESPONSE, DependencyDown, 1),
    ("nan", "cost", Fault(body="NaN"), ReasonCode.BAD_RESPONSE, DependencyDown, 1),
    ("infinite", "cost", Fault(body="Infinity"), ReasonCode.BAD_RESPONSE, DependencyDown, 1),
    ("negative", "cost", Fault(body="-0.01"), ReasonCode.BAD_RESPONSE, DependencyDown, 1),
    ("text", "cost", Fault(body='"0.5"'), ReasonCode.BAD_RESPONSE, DependencyDown, 1),
    ("true", "cost", Fault(body="true"), ReasonCode.BAD_RESPONSE, DependencyDown, 1),
    ("null", "cost", Fault(body="null"), ReasonCode.BAD_RESPONSE, DependencyDown, 1),
    ("empty", "cost", Fault(body=""), ReasonCode.BAD_RESPONSE, DependencyDown, 1),
    ("list", "cost", Fault(status=500, body="[1, 2]"), ReasonCode.BAD_RESPONSE, DependencyDown, 1),
    ("html-502", "cost", Fault(status=502, body="<html>", times=9), ReasonCode.UPSTREAM_5XX, RetryLater, 3),
    ("warning", "cost", Fault(headers={"X-Warning": "{"}, body="1"), ReasonCode.BAD_RESPONSE, DependencyDown, 1),
    ("fraction", "count", Fault(body="1.5"), ReasonCode.BAD_RESPONSE, DependencyDown, 1),
    ("object", "datasets", Fault(body='{"a": 1}'), ReasonCode.BAD_RESPONSE, DependencyDown, 1),
    ("no-range", "range", Fault(body='{"start": "x", "end": "y"}'), ReasonCode.BAD_RESPONSE, DependencyDown, 1),
    ("reset", "cost", Fault(kind="reset", times=9), ReasonCode.CONNECTION_BROKEN, RetryLater, 3),
    ("cut", "cost", Fault(kind="cut", times=9), ReasonCode.CONNECTION_BROKEN, RetryLater, 3),
    ("hang", "cost", Fault(kind="hang", seconds=1.5, times=9), ReasonCode.TIMEOUT, RetryLater, 2),
]


@pytest.mark.parametrize(("name", "call", "fault", "code", "error", "attempts"), BODIES, ids=[b[0] for b in BODIES])
def test_answers_that_are_none(
    name: str,
    call: str,
    fault: Fault,
    code: ReasonCode,
    error: type[BlaidError],
    attempts: int,
    world: World,
) -> None:
    world.faults(fault)
    quick = {"timeout_s": 0.3, "max_attempts": 2} if fault.kind == "hang" else {}
    databento = world.client(sleep=lambda _: None, **quick)
    calls = {
        "cost": lambda: databento.get_cost(GLBX, "MES.c.0", "ohlcv-1m", None, START, END),
        "count": lambda: databento.get_record_count(GLBX, "MES.c.0", "ohlcv-1m", None, START, END),
        "datasets": databento.list_datasets,
        "range": lambda: databento.get_dataset_range(GLBX),
    }
    with pytest.raises(error) as caught:
        calls[call]()
    assert caught.value.reason.code is code
    assert [(row.success, row.error_code) for row in world.rows()] == [(False, code.value)] * attempts
    world.assert_all_counted(attempts)


STREAMS = [
    ("html", Fault("timeseries.get_range", body="<html>"), ReasonCode.BAD_RESPONSE, 1),
    ("empty", Fault("timeseries.get_range", body=""), ReasonCode.BAD_RESPONSE, 1),
    ("header-only", Fault("timeseries.get_range", body="DBN\x03"), ReasonCode.BAD_RESPONSE, 1),
    ("truncated", Fault("timeseries.get_range", "truncated"), ReasonCode.BAD_RESPONSE, 1),
    ("cut", Fault("timeseries.get_range", "cut", times=9), ReasonCode.CONNECTION_BROKEN, 3),
    ("reset", Fault("timeseries.get_range", "reset", times=9), ReasonCode.CONNECTION_BROKEN, 3),
    ("server", Fault("timeseries.get_range", status=503, times=9), ReasonCode.UPSTREAM_5XX, 3),
]


@pytest.mark.parametrize(("name", "fault", "code", "attempts"), STREAMS, ids=[s[0] for s in STREAMS])
def test_streams_that_break(name: str, fault: Fault, code: ReasonCode, attempts: int, world: World) -> None:
    world.faults(fault)
    databento = world.client(sleep=lambda _: None)
    with pytest.raises(BlaidError) as caught:
        databento.get_bars(GLBX, "MES.c.0", "ohlcv-1m", START, END)
    assert caught.value.reason.code is code
    streams = [row for row in world.rows() if row.endpoint == "timeseries.get_range"]
    assert [(row.success, row.error_code) for row in streams] == [(False, code.value)] * attempts
    world.assert_all_counted(3 + attempts)


def test_a_passing_failure_is_tried_again_and_every_attempt_has_its_row(world: World) -> None:
    world.faults(
        Fault("timeseries.get_range", status=429, headers={"Retry-After": "2"}),
        Fault("timeseries.get_range", "reset"),
    )
    waits: list[float] = []
    databento = world.client(sleep=waits.append)
    bars, request_ids = databento.get_bars(GLBX, "MES.c.0", "ohlcv-1m", START, END)
    assert len(bars) > 8000
    assert waits == [2.0, 2.0]
    streams = [row for row in world.rows() if row.endpoint == "timeseries.get_range"]
    assert [(row.attempt, row.success, row.error_code) for row in streams] == [
        (1, False, "RATE_LIMITED"),
        (2, False, "CONNECTION_BROKEN"),
        (3, True, None),
    ]
    assert len({row.request_fingerprint for row in streams}) == 1
    assert request_ids == [row.id for row in world.rows() if row.success]
    assert check_requests(world.store, request_ids) == []
    world.assert_all_counted(6)


def test_a_gateway_that_is_not_there(gateway: StartGateway, store: Store) -> None:
    running = gateway()
    running.stop()
    world = World(running, store, proof_counts(store, running.settings))
    with pytest.raises(DependencyDown) as caught:
        world.client(sleep=lambda _: None).list_datasets()
    assert caught.value.reason.code is ReasonCode.PROVIDER_UNREACHABLE
    assert [(row.attempt, row.error_code) for row in world.rows()] == [(1, "PROVIDER_UNREACHABLE")]


def test_the_key_is_in_no_row_and_no_message(world: World) -> None:
    secret = world.settings.databento_key()
    assert secret is not None
    key = secret.get_secret_value()
    world.faults(Fault(status=400, detail=f"user {key} may not"), Fault(body=f"<html>{key}</html>"))
    databento = world.client(sleep=lambda _: None)
    for _ in range(2):
        with pytest.raises(BlaidError) as caught:
            databento.list_datasets()
        assert key not in str(caught.value.reason.as_dict())
    for row in world.rows():
        assert key not in f"{row.params} {row.error_message}"
