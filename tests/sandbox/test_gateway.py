"""The gateway over its sockets: keys, both error shapes, counts, faults on command, and the command that serves it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from blaid_pipelines.cli.sandbox import sandbox
from blaid_pipelines.providers.databento.dbn import read_dbn
from blaid_pipelines.reasons import InvalidRequest, ReasonCode, Refused, StopAndFix
from blaid_pipelines.sandbox.gateway import Fault, SandboxGateway
from blaid_pipelines.sandbox.synthetic import Recipe, synthesise
from tests.support import eventually

KEY = "db-only-for-this-test"
SERIES = synthesise(Recipe("MES.c.0", date(2024, 3, 11), date(2024, 3, 20)))
EURO = synthesise(Recipe("6E.c.0", date(2024, 3, 11), date(2024, 3, 20)))
RANGE = {
    "dataset": "GLBX.MDP3",
    "symbols": "MES.c.0",
    "stype_in": "continuous",
    "stype_out": "instrument_id",
    "schema": "ohlcv-1m",
    "start": "2024-03-11",
    "end": "2024-03-20",
    "encoding": "dbn",
    "compression": "zstd",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxGateway]:
    log = tmp_path_factory.mktemp("sandbox") / "requests.jsonl"
    with SandboxGateway([SERIES, EURO], key=KEY, request_log=log) as gateway:
        yield gateway


@pytest.fixture
def running(server: SandboxGateway) -> SandboxGateway:
    server.clear_faults()
    return server


def post(gateway: SandboxGateway, endpoint: str, key: str = KEY, **changes: str | None) -> requests.Response:
    form = {name: value for name, value in {**RANGE, **changes}.items() if value is not None}
    return requests.post(f"{gateway.url}/v0/{endpoint}", data=form, auth=(key, ""), timeout=10)


def get(gateway: SandboxGateway, endpoint: str, **params: str) -> requests.Response:
    return requests.get(f"{gateway.url}/v0/{endpoint}", params=params, auth=(KEY, ""), timeout=10)


@pytest.mark.parametrize("authorization", ["", "Basic", "Basic !!!", "Bearer x", "Basic ZGItd3Jvbmc6"])
def test_without_the_key_nothing_is_answered(authorization: str, running: SandboxGateway) -> None:
    headers = {"authorization": authorization} if authorization else {}
    reply = requests.get(f"{running.url}/v0/metadata.list_datasets", headers=headers, timeout=10)
    assert reply.status_code == 401
    assert reply.json()["detail"]["case"] == "auth_authentication_failed"
    assert reply.headers["request-id"]


STRUCTURED = [
    ({"start": "2024-03-20"}, 422, "data_time_range_start_on_or_after_end"),
    ({"start": "2024-04-01", "end": "2024-04-02"}, 422, "data_start_after_available_end"),
    ({"start": "2024-01-01"}, 422, "data_start_before_available_start"),
    ({"end": "2024-03-21"}, 422, "data_end_after_available_end"),
    ({"symbols": "XYZ.c.0"}, 422, "symbology_invalid_request"),
    ({"dataset": "XNAS.ITCH"}, 422, "dataset_not_found"),
    ({"start": None}, 400, "validation_failed"),
    ({"start": "tomorrow"}, 400, "validation_failed"),
    ({"symbols": None}, 400, "validation_failed"),
]


@pytest.mark.parametrize(("changes", "status", "case"), STRUCTURED)
@pytest.mark.parametrize("endpoint", ["metadata.get_cost", "metadata.get_record_count", "timeseries.get_range"])
def test_structured_refusals(
    endpoint: str, changes: dict[str, str | None], status: int, case: str, running: SandboxGateway
) -> None:
    reply = post(running, endpoint, **changes)
    assert reply.status_code == status
    detail = reply.json()["detail"]
    assert (detail["case"], detail["status_code"]) == (case, status)
    if case.startswith("data_"):
        assert detail["payload"]["available_end"] == "2024-03-20T00:00:00.000000000Z"


@pytest.mark.parametrize("changes", [{"schema": "trades"}, {"limit": "x"}, {"encoding": "csv"}])
def test_simple_refusals(changes: dict[str, str | None], running: SandboxGateway) -> None:
    reply = post(running, "timeseries.get_range", **changes)
    assert reply.status_code == 400
    assert isinstance(reply.json()["detail"], str)


def test_unknown_endpoints_and_methods_are_counted_too(running: SandboxGateway) -> None:
    before = len(running.received)
    assert get(running, "metadata.nothing").status_code == 404
    assert get(running, "metadata.get_cost").status_code == 405
    assert len(running.received) == before + 2
    assert requests.get(f"{running.url}/elsewhere", timeout=10).status_code == 404
    assert len(running.received) == before + 2


@pytest.mark.parametrize(
    ("start", "end", "bars"),
    [
        ("2024-03-12T14:00", "2024-03-12T14:03", 3),
        ("2024-03-12T14:00:00.000000001Z", "2024-03-12T14:03:00.000000001Z", 3),
        ("2024-03-12T09:00-05:00", "2024-03-12T09:03-05:00", 3),
        ("1710252000000000000", "1710252180000000000", 3),
        ("2024-03-16", None, 0),
    ],
)
def test_times_are_read_in_every_form_the_service_takes(
    start: str, end: str | None, bars: int, running: SandboxGateway
) -> None:
    reply = post(running, "metadata.get_record_count", start=start, end=end)
    assert reply.json() == bars


def test_what_is_counted_is_what_is_sent(running: SandboxGateway) -> None:
    for schema in ("ohlcv-1m", "ohlcv-1h", "ohlcv-1d"):
        count = post(running, "metadata.get_record_count", schema=schema).json()
        bars = read_dbn(post(running, "timeseries.get_range", schema=schema).content)
        assert (len(bars), bars.schema) == (count, schema)
        assert post(running, "metadata.get_billable_size", schema=schema).json() == 56 * count
    limited = read_dbn(post(running, "timeseries.get_range", limit="7", compression="none").content)
    assert len(limited) == 7


def test_several_symbols_are_merged_by_time_and_what_is_missing_makes_it_partial(running: SandboxGateway) -> None:
    reply = post(
        running, "timeseries.get_range", symbols="MES.c.0,6E.c.0,XYZ.c.0", start="2024-03-12", end="2024-03-13"
    )
    assert reply.status_code == 206
    bars = read_dbn(reply.content)
    assert bars.not_found == ("XYZ.c.0",)
    assert (bars.ts_open[1:] >= bars.ts_open[:-1]).all()
    assert len(set(bars.instrument_id.tolist())) == 2


def test_definitions_and_prices_of_units(running: SandboxGateway) -> None:
    assert post(running, "metadata.get_record_count", schema="definition").json() == 2
    (prices,) = get(running, "metadata.list_unit_prices", dataset="GLBX.MDP3").json()
    assert prices["unit_prices"]["ohlcv-1m"] > 0


def test_the_log_holds_every_request_and_no_key(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "requests.jsonl"
    moment = datetime(2024, 7, 1, tzinfo=UTC)
    with SandboxGateway([SERIES], key=KEY, request_log=log, clock=lambda: moment) as gateway:
        workers = [threading.Thread(target=get, args=(gateway, "metadata.list_datasets")) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        post(gateway, "metadata.get_cost")
        gateway.add_faults(Fault(kind="reset"))
        with pytest.raises(requests.ConnectionError):
            get(gateway, "metadata.list_datasets")
        counts = requests.get(f"{gateway.url}/_sandbox/requests", timeout=10).json()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["n"] for line in lines] == list(range(1, 11))
    assert counts == {"count": 10, "by_endpoint": {"metadata.get_cost": 1, "metadata.list_datasets": 9}}
    assert {line["received_at"] for line in lines} == {moment.isoformat()}
    assert KEY not in log.read_text()
    assert lines[8]["params"]["symbols"] == "MES.c.0"


def test_faults_are_commanded_used_up_and_cleared(running: SandboxGateway) -> None:
    control = f"{running.url}/_sandbox/faults"
    given = [
        {"endpoint": "metadata.get_cost", "status": 503, "times": 2},
        {"status": 429, "headers": {"Retry-After": "9"}, "case": "slow_down", "detail": "later"},
    ]
    assert requests.post(control, json=given, timeout=10).json() == {"faults": 2}
    limited = get(running, "metadata.list_datasets")
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "9")
    assert limited.json()["detail"]["case"] == "slow_down"
    assert get(running, "metadata.list_datasets").status_code == 200
    assert [post(running, "metadata.get_cost").status_code for _ in range(3)] == [503, 503, 200]
    requests.post(control, json={"status": 500, "times": 99}, timeout=10)
    assert requests.delete(control, timeout=10).json() == {"faults": 0}
    assert get(running, "metadata.list_datasets").status_code == 200


@pytest.mark.parametrize("bad", ['{"kind": "explode"}', '{"unknown": 1}', "[1]", "nothing", '"text"'])
def test_a_fault_that_makes_no_sense_is_refused(bad: str, running: SandboxGateway) -> None:
    reply = requests.post(f"{running.url}/_sandbox/faults", data=bad, timeout=10)
    assert reply.status_code == 400


def test_a_taken_port_is_refused(running: SandboxGateway) -> None:
    port = int(running.url.rsplit(":", 1)[1])
    with pytest.raises(StopAndFix) as caught:
        SandboxGateway([SERIES], key=KEY, port=port).start()
    assert caught.value.reason.code is ReasonCode.ALREADY_RUNNING


# the command

CSV = "time,open,high,low,close,volume\n2024-03-14 08:31:00,5200.25,5200.5,5200,5200.25,10\n"


@pytest.fixture
def world(tmp_path: Path, clean_environment: pytest.MonkeyPatch) -> Path:
    clean_environment.setenv("BLAID_HOME", str(tmp_path))
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "bars.csv").write_text(CSV)
    return tmp_path


def test_the_command_serves_a_file_without_any_database_and_stops_on_a_signal(world: Path) -> None:
    arguments = ["sandbox", "--bars", "bars.csv", "--symbol", "MESH4", "--stamp", "close", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "blaid_pipelines.cli.main", *arguments, "--key-file", "key", "--json"],
        cwd=world,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        assert started["symbols"] == ["MESH4"]
        url = f"{started['url']}/v0/metadata.get_dataset_range"
        reply = requests.get(url, params={"dataset": "GLBX.MDP3"}, auth=(KEY, ""), timeout=10)
        assert reply.json()["start"] == "2024-03-14T00:00:00.000000000Z"
        assert json.loads(process.stdout.readline())["endpoint"] == "metadata.get_dataset_range"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 0
        assert json.loads(process.stdout.read()) == {"stopped": True, "requests": 1}
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    log = world / "sandbox" / "requests.jsonl"
    assert eventually(log.is_file)
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bars", "bars.csv"],
        ["--symbol", "MESH4"],
        ["--bars", "bars.csv", "--symbol", "MESH4", "--symbol", "6EH4"],
        ["--bars", "bars.csv", "--symbol", "MESH4", "--tz", "UTC", "--tz", "UTC"],
        ["--stamp", "close"],
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], world: Path) -> None:
    result = CliRunner().invoke(sandbox, [*arguments, "--key-file", str(world / "key")])
    assert isinstance(result.exception, InvalidRequest)


def test_no_key_and_no_production(world: Path, clean_environment: pytest.MonkeyPatch) -> None:
    missing = CliRunner().invoke(sandbox, []).exception
    assert isinstance(missing, StopAndFix)
    assert missing.reason.code is ReasonCode.INTEGRATION_KEY_MISSING
    unreadable = CliRunner().invoke(sandbox, ["--key-file", str(world / "none")]).exception
    assert isinstance(unreadable, InvalidRequest)
    clean_environment.setenv("BLAID_ENV", "production")
    refused = CliRunner().invoke(sandbox, ["--key-file", str(world / "key")]).exception
    assert isinstance(refused, Refused)
    assert refused.reason.code is ReasonCode.SIMULATED_SOURCE_REFUSED
