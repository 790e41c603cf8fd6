"""Pulls by month: bought once each however often the process dies, within the budget, and typed whatever fails."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL, create_engine, func, make_url, select, text

from blaid_pipelines.cli.main import main
from blaid_pipelines.market.bars import Bars, from_ns, to_ns
from blaid_pipelines.market.lake.provenance import check_snapshot_proof
from blaid_pipelines.market.lake.snapshots import load_bars
from blaid_pipelines.market.purchase import pull as pull_module
from blaid_pipelines.market.purchase.limits import BURST, DEFAULT_LIMITS, Pace
from blaid_pipelines.market.purchase.plan import in_parallel, month_spans
from blaid_pipelines.market.purchase.pull import DEFAULT_ATTEMPTS, PullRequest, PullResult, pull, quote_pull
from blaid_pipelines.policy.load import load_policy
from blaid_pipelines.proof.recorder import CallContext, Recorder, wire_log_path
from blaid_pipelines.providers.budget import DataBudget
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
from blaid_pipelines.sandbox.series import Series
from blaid_pipelines.sandbox.synthetic import Recipe, synthesise
from blaid_pipelines.settings import Settings, load_settings
from blaid_pipelines.store.database import Store, open_store
from blaid_pipelines.store.tables import LakeSegment, ProviderRequest, Snapshot
from tests.market.test_pull import PLENTY, World, day, truth
from tests.sandbox.fixtures import RunningGateway, StartGateway

QUICK = DEFAULT_LIMITS.model_copy(update={"requests_per_second": 10_000.0})
FIRST, LAST = datetime(2023, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)
MONTHS = 12


@pytest.fixture(scope="module")
def year() -> Series:
    """Two years, in fact: the first one is for what needs more months."""
    return synthesise(Recipe("MES.c.0", date(2022, 1, 1), date(2024, 1, 3)))


def pull_year(settings: Settings, store: Store, **options: Any) -> PullResult:
    """Hourly bars of a year: as many purchases as of minutes, and a sixtieth of the work."""
    recorder = Recorder(store, wire_log_path(settings))
    request = PullRequest("MES.c.0", options.pop("start", FIRST), options.pop("end", LAST), "ohlcv-1h")
    options = {"limits": QUICK} | options
    return pull(store, settings, recorder, PLENTY, CallContext("a" * 32), request, **options)


def hours(series: Series, start: datetime = FIRST, end: datetime = LAST) -> Bars:
    return truth(start, end, series.resampled("ohlcv-1h"))


def ranges_sent(gateway: RunningGateway) -> Counter[str]:
    return Counter(item.params["start"] for item in gateway.received if item.endpoint == "timeseries.get_range")


def test_each_month_is_a_purchase_a_file_and_a_segment(gateway: StartGateway, store: Store, year: Series) -> None:
    running = gateway(series=[year])
    said: list[str] = []
    result = pull_year(running.settings, store, progress=said.append)
    assert result.snapshot.content_hash == hours(year).content_hash()
    assert (result.months_pulled, result.months_recovered) == (MONTHS, 0)
    assert len(result.snapshot.files) == MONTHS == sum(ranges_sent(running).values())
    assert running.counts()["metadata.get_cost"] == MONTHS
    assert result.cost_usd == result.quoted_usd > 0
    assert check_snapshot_proof(store, result.snapshot) == []
    assert said[0].startswith(f"MES.c.0: {MONTHS} purchases, ")
    assert "budget 5 USD a pull, 20 USD a day, 0.0000 USD spent today" in said[0]
    assert sum("of 12)" in line for line in said) == MONTHS
    assert said[-1].endswith(f"{result.cost_usd:.4f} USD")


def test_a_month_more_reads_no_old_bars(
    gateway: StartGateway, store: Store, year: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = gateway(series=[year])
    pull_year(running.settings, store, end=datetime(2023, 12, 1, tzinfo=UTC))
    opened: list[str] = []
    monkeypatch.setattr(
        "blaid_pipelines.market.lake.composition.read_file", lambda _, path, __: opened.append(path) or Bars.empty()
    )
    more = pull_year(running.settings, store)
    assert (more.months_pulled, opened) == (1, [])
    assert more.snapshot.content_hash == hours(year).content_hash()
    monkeypatch.undo()
    assert load_bars(store, running.settings.lake, more.snapshot).content_hash() == more.snapshot.content_hash


@pytest.mark.parametrize("hour", [0, 7, 22])
def test_a_day_cut_by_two_pulls_has_the_hash_of_a_whole_one(gateway: StartGateway, store: Store, hour: int) -> None:
    world = World(gateway(), store)
    world.pull(day(11), day(13, hour))
    world.pull(day(14), day(15, 3))
    whole = world.pull(day(12), day(19)).snapshot
    wanted = truth(day(12), day(19))
    assert (whole.content_hash, whole.bar_count) == (wanted.content_hash(), len(wanted))
    assert whole.first_ts == from_ns(int(wanted.ts_open[0]))
    assert whole.last_ts == from_ns(int(wanted.ts_open[-1]))
    assert whole.contracts == list(wanted.contracts)


@given(
    st.datetimes(datetime(2019, 1, 1), datetime(2024, 1, 1)),  # noqa: DTZ001
    st.timedeltas(timedelta(minutes=1), timedelta(days=900)),
    st.integers(1, 12),
)
def test_months_cover_a_range_and_turn_where_months_do(start: datetime, length: timedelta, months: int) -> None:
    span = to_ns(start.replace(tzinfo=UTC)), to_ns((start + length).replace(tzinfo=UTC))
    parts = month_spans(span, months)
    assert (parts[0][0], parts[-1][1]) == span
    assert all(left[1] == right[0] for left, right in pairwise(parts))
    assert all(left < right for left, right in parts)
    for turn in (from_ns(left) for left, _ in parts[1:]):
        assert (turn.day, turn.hour, turn.minute, turn.second) == (1, 0, 0, 0)
        assert (turn.month - 1) % months == 0


def test_the_default_policy_is_the_default(store: Store) -> None:
    policy = load_policy()
    assert policy.pulls == DEFAULT_LIMITS
    assert policy.stages.LAB.retry_limits.provider_attempts == DEFAULT_ATTEMPTS


def test_the_pace_holds_on_average_and_lets_a_few_go_at_once() -> None:
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    pace = Pace(10.0, lambda: now[0], sleep)
    for _ in range(BURST + 20):
        pace.wait()
    assert now[0] == pytest.approx(2.0)
    now[0] += 60
    waits.clear()
    for _ in range(BURST):
        pace.wait()
    assert waits == []


def test_after_a_failure_nothing_new_starts_and_what_runs_ends() -> None:
    ended: list[int] = []
    both = threading.Barrier(2)

    def work(number: int) -> int:
        if number < 2:
            both.wait(5)
        if number == 0:
            raise ValueError("first")
        time.sleep(0.05)
        ended.append(number)
        return number

    with pytest.raises(ValueError, match="first"):
        in_parallel(work, range(50), 2)
    assert ended == [1]
    assert in_parallel(lambda number: number * 2, range(50), 3) == [number * 2 for number in range(50)]


# what dies


EARLY = datetime(2022, 1, 1, tzinfo=UTC)
MANY = 24


def child(environment: dict[str, str], file_limit: int | None) -> None:
    """A pull of both years in a process of its own."""
    os.environ.update(environment)
    settings = load_settings()
    with open_store(settings) as store:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        try:
            pull_year(settings, store, start=EARLY)
        except BlaidError as error:
            os._exit(error.exit_code)
    os._exit(0)


def start_child(settings: Settings, file_limit: int | None = None) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "databento"])
    values = {
        name: os.environ[name] for name in ("BLAID_ENV", "BLAID_HOME", "BLAID_DATABASE_URL", "BLAID_DATABENTO_URL")
    }
    process = context.Process(target=child, args=(values, file_limit), daemon=True)
    process.start()
    return process


@pytest.mark.slow
def test_killed_at_ten_points_no_month_is_paid_for_twice(gateway: StartGateway, store: Store, year: Series) -> None:
    running = gateway(series=[year])
    chance = random.Random(3)
    for number in range(10):
        with store.session() as session:
            left = MANY - (session.scalar(select(func.count()).select_from(LakeSegment)) or 0)
        # First the months left are quoted, then names are asked for, then come purchases: points in all of them.
        until = len(running.received) + (left + 9 + number % 5 if number % 3 else chance.randint(1, left + 9))
        process = start_child(running.settings)
        while process.is_alive() and len(running.received) < until:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.03)
        process.kill()
        process.join(10)
        assert process.exitcode == -signal.SIGKILL
    with store.session() as session:
        recorded = session.scalar(select(func.count()).select_from(LakeSegment))
    result = pull_year(running.settings, store, start=EARLY)
    assert 0 < recorded < MANY
    assert result.snapshot.content_hash == hours(year, EARLY).content_hash()
    assert check_snapshot_proof(store, result.snapshot) == []
    query = select(ProviderRequest.start_ts, ProviderRequest.success).where(
        ProviderRequest.endpoint == "timeseries.get_range"
    )
    with store.session() as session:
        rows = [(row[0], row[1]) for row in session.execute(query)]
        assert session.scalar(select(func.count()).select_from(LakeSegment)) == MANY
    bought = Counter(start for start, success in rows if success)
    unknown = Counter(start for start, success in rows if success is None)
    assert set(bought.values()) == {1}, "what was answered, and is on record as answered, was never bought again"
    assert len(bought) == MANY
    for start, times in ranges_sent(running).items():
        assert times <= 1 + unknown[datetime.fromisoformat(start)], "what is not on record as answered may be"
    # What nobody can say was answered is kept, until a clean-up finds it old.
    kept = {UUID(path.name.split(".")[0]) for path in (running.settings.lake / "incoming").rglob("*.zst")}
    with store.session() as session:
        open_ended = set(session.scalars(select(ProviderRequest.id).where(ProviderRequest.success.is_(None))))
    assert kept <= open_ended


def test_what_was_paid_for_and_not_recorded_is_taken_from_the_reply(
    gateway: StartGateway, store: Store, year: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(BaseException):
        pass

    def cut(*_: object, **__: object) -> None:
        raise PowerCut

    running = gateway(series=[year])
    end = datetime(2023, 3, 1, tzinfo=UTC)
    with monkeypatch.context() as patched:
        patched.setattr(pull_module, "record_segments", cut)
        with pytest.raises(PowerCut):
            pull_year(running.settings, store, end=end)
    sent = ranges_sent(running)
    request = PullRequest("MES.c.0", FIRST, end, "ohlcv-1h")
    recorder = Recorder(store, wire_log_path(running.settings))
    assert quote_pull(store, running.settings, recorder, PLENTY, CallContext("b" * 32), request)[0] is None
    result = pull_year(running.settings, store, end=end)
    assert (result.months_recovered, result.months_pulled, result.cost_usd) == (2, 0, Decimal(0))
    assert ranges_sent(running) == sent
    assert result.snapshot.content_hash == hours(year, FIRST, end).content_hash()
    assert check_snapshot_proof(store, result.snapshot) == []
    assert pull_year(running.settings, store, end=end).months_recovered == 0


def test_a_kept_reply_whose_contracts_are_refused_blocks_no_pull(
    gateway: StartGateway, store: Store, year: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = gateway(series=[year])
    end = datetime(2023, 2, 1, tzinfo=UTC)
    with monkeypatch.context() as patched:
        patched.setattr(pull_module, "record_segments", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pull_year(running.settings, store, end=end)
    [reply] = (running.settings.lake / "incoming").rglob("*.zst")
    running.add_faults(Fault("symbology.resolve", status=503))
    with pytest.raises(RetryLater):
        pull_year(running.settings, store, end=end, attempts=1)
    assert reply.exists()
    running.clear_faults()
    running.add_faults(Fault("symbology.resolve", status=422, case="symbology_invalid_request"))
    result = pull_year(running.settings, store, end=end)
    assert (result.months_recovered, result.months_pulled) == (0, 1)
    assert result.snapshot.content_hash == hours(year, FIRST, end).content_hash()
    assert reply.exists(), "what was paid for is left aside, not lost"


def test_a_kept_reply_that_was_touched_is_not_believed(
    gateway: StartGateway, store: Store, year: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = gateway(series=[year])
    end = datetime(2023, 2, 1, tzinfo=UTC)
    with monkeypatch.context() as patched:
        patched.setattr(pull_module, "record_segments", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pull_year(running.settings, store, end=end)
    [reply] = (running.settings.lake / "incoming").rglob("*.zst")
    reply.write_bytes(reply.read_bytes()[:-1] + b"x")
    result = pull_year(running.settings, store, end=end)
    assert (result.months_recovered, result.months_pulled) == (0, 1)
    assert result.snapshot.content_hash == hours(year, FIRST, end).content_hash()


def test_a_full_disk_ends_typed_and_leaves_nothing_half(gateway: StartGateway, store: Store, year: Series) -> None:
    running = gateway(series=[year])
    lake = running.settings.lake
    process = start_child(running.settings, file_limit=6_000)
    process.join(30)
    assert process.exitcode == StopAndFix.exit_code
    assert not list(lake.rglob("*.tmp"))
    assert not list(lake.rglob("*.parquet"))
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(LakeSegment)) == 0
        assert session.scalar(select(func.count()).select_from(Snapshot)) == 0
        codes = set(session.scalars(select(ProviderRequest.error_code).distinct()))
    assert codes <= {None, "INSTALLATION_BROKEN", "LEDGER_UNAVAILABLE"}
    assert pull_year(running.settings, store).snapshot.content_hash == hours(year).content_hash()


def test_a_database_that_goes_away_in_mid_run_ends_typed_and_the_rest_is_bought_later(
    gateway: StartGateway, store: Store, year: Series, postgres: URL
) -> None:
    running = gateway(series=[year])
    name = make_url(os.environ["BLAID_DATABASE_URL"]).database
    admin = create_engine(postgres, isolation_level="AUTOCOMMIT")

    def go_away(item: Any) -> None:
        if item.endpoint == "timeseries.get_range" and sum(ranges_sent(running).values()) == 4:
            with admin.connect() as connection:
                connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
                query = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
                connection.execute(query, {"name": name})

    running._on_request = go_away
    with pytest.raises(DependencyDown) as caught:
        pull_year(running.settings, store)
    assert caught.value.reason.code in {ReasonCode.LEDGER_UNAVAILABLE, ReasonCode.DATABASE_UNAVAILABLE}
    assert caught.value.reasons[-1].code is ReasonCode.PULL_INCOMPLETE
    running._on_request = None
    with admin.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    admin.dispose()
    result = pull_year(running.settings, store)
    assert result.snapshot.content_hash == hours(year).content_hash()
    assert check_snapshot_proof(store, result.snapshot) == []
    with store.session() as session:
        bought = session.execute(
            select(ProviderRequest.start_ts, func.count())
            .where(ProviderRequest.endpoint == "timeseries.get_range", ProviderRequest.success.is_(True))
            .group_by(ProviderRequest.start_ts)
        ).all()
    assert [row[1] for row in bought] == [1] * MONTHS


# what fails


FAILURES: list[tuple[Fault, ReasonCode, type[BlaidError]]] = [
    (Fault(status=400, case="validation_failed"), ReasonCode.BAD_REQUEST, InvalidRequest),
    (Fault(status=401, case="auth_authentication_failed"), ReasonCode.AUTH_FAILED, StopAndFix),
    (Fault(status=402, case="account_insufficient_funds"), ReasonCode.ENTITLEMENT_MISSING, StopAndFix),
    (Fault(status=403, case="auth_account_locked"), ReasonCode.AUTH_FAILED, StopAndFix),
    (Fault(status=403, case="license_not_found_unauthorized"), ReasonCode.ENTITLEMENT_MISSING, StopAndFix),
    (Fault(status=404, case="dataset_not_found"), ReasonCode.NOT_FOUND, InvalidRequest),
    (Fault(status=409), ReasonCode.BAD_REQUEST, InvalidRequest),
    (Fault(status=422, case="data_start_before_available_start"), ReasonCode.RANGE_UNAVAILABLE, InvalidRequest),
    (Fault(status=422, case="data_start_after_available_end"), ReasonCode.RANGE_UNAVAILABLE, InvalidRequest),
    (Fault(status=422, case="data_end_after_available_end"), ReasonCode.RANGE_UNAVAILABLE, InvalidRequest),
    (Fault(status=422, case="data_time_range_start_on_or_after_end"), ReasonCode.BAD_REQUEST, InvalidRequest),
    (Fault(status=422, case="symbology_invalid_request"), ReasonCode.SYMBOL_NOT_FOUND, InvalidRequest),
    (Fault(status=429, headers={"Retry-After": "600"}), ReasonCode.RATE_LIMITED, RetryLater),
    (Fault(status=500), ReasonCode.UPSTREAM_5XX, RetryLater),
    (Fault(status=503), ReasonCode.UPSTREAM_5XX, RetryLater),
    (Fault(status=504), ReasonCode.TIMEOUT, RetryLater),
    (Fault(body="<html>soon back</html>"), ReasonCode.BAD_RESPONSE, DependencyDown),
    (Fault(kind="cut"), ReasonCode.CONNECTION_BROKEN, RetryLater),
    (Fault(kind="reset"), ReasonCode.CONNECTION_BROKEN, RetryLater),
    (Fault(kind="hang", seconds=2.0), ReasonCode.TIMEOUT, RetryLater),
]


def test_whatever_the_provider_does_a_pull_ends_typed_and_whole_or_not_at_all(
    gateway: StartGateway, store: Store, year: Series
) -> None:
    running = gateway(series=[year])
    end = datetime(2023, 2, 1, tzinfo=UTC)
    short = QUICK.model_copy(update={"call_deadline_s": 0.5})
    for endpoint in ("metadata.get_cost", "symbology.resolve", "timeseries.get_range"):
        for fault, code, kind in FAILURES:
            running.clear_faults()
            running.add_faults(replace(fault, endpoint=endpoint))
            with pytest.raises(kind) as caught:
                pull_year(running.settings, store, end=end, attempts=1, limits=short)
            assert caught.value.reason.code is code, (endpoint, fault)
            assert caught.value.exit_code
            assert caught.value.reason.suggested_fix
    running.clear_faults()
    lake = running.settings.lake
    assert not [path for room in ("bars", "incoming") for path in (lake / room).rglob("*") if path.is_file()]
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(Snapshot)) == 0
    assert pull_year(running.settings, store, end=end).months_pulled == 1


def test_a_call_that_may_be_billed_twice_is_not_made_again_beyond_the_budget(
    gateway: StartGateway, store: Store
) -> None:
    world = World(gateway(), store)
    quote = world.pull(day(11), day(12)).cost_usd
    world.gateway.add_faults(Fault("timeseries.get_range", "cut", times=9))
    tight = DataBudget(max_cost_usd_per_pull=round(quote * 5 / 2, 6), max_cost_usd_per_day=Decimal(20))
    with pytest.raises(RetryLater) as caught:
        world.pull(day(12), day(13), budget=tight)
    assert [reason.code for reason in caught.value.reasons] == [
        ReasonCode.CONNECTION_BROKEN,
        ReasonCode.COST_BUDGET_EXCEEDED,
        ReasonCode.PULL_INCOMPLETE,
    ]
    assert len(world.bought()) == 3, "the first attempt and one more are within two and a half quotes"
    world.gateway.clear_faults()
    world.gateway.add_faults(Fault("timeseries.get_range", "cut"))
    result = world.pull(day(12), day(13))
    assert result.cost_usd == result.quoted_usd * 2, "both attempts may be billed"


def test_a_refusal_of_the_provider_is_not_counted_twice(gateway: StartGateway, store: Store) -> None:
    world = World(gateway(), store)
    quote = world.pull(day(11), day(12)).cost_usd
    world.gateway.add_faults(Fault("timeseries.get_range", status=429, headers={"Retry-After": "0"}))
    tight = DataBudget(max_cost_usd_per_pull=round(quote * 3 / 2, 6), max_cost_usd_per_day=Decimal(20))
    result = world.pull(day(12), day(13), budget=tight)
    assert result.cost_usd == result.quoted_usd


def test_a_range_beyond_the_data_ends_where_the_data_does_and_says_so(gateway: StartGateway, store: Store) -> None:
    world = World(gateway(), store)
    said: list[str] = []
    result = world.pull(day(18), day(25), progress=said.append)
    assert (result.ends_at, result.snapshot.range_end) == (day(20), day(20))
    assert result.snapshot.content_hash == truth(day(18), day(20)).content_hash()
    assert any("data ends at 2024-03-20" in line for line in said)
    with pytest.raises(InvalidRequest) as caught:
        world.pull(day(21), day(25))
    assert caught.value.reason.code is ReasonCode.RANGE_UNAVAILABLE
    licence = "A live data license is required to access GLBX.MDP3 data after 2024-03-15T11:50:30.000000000Z."
    other = World(gateway(), store)
    other.gateway.add_faults(
        Fault("metadata.get_cost", status=403, case="license_not_found_unauthorized", detail=licence)
    )
    assert other.pull(day(14), day(16)).ends_at == datetime(2024, 3, 15, 11, 50, tzinfo=UTC)


def test_asking_what_a_pull_costs_buys_nothing(
    gateway: StartGateway, store: Store, year: Series, capsys: pytest.CaptureFixture[str]
) -> None:
    running = gateway(series=[year])
    asked = ["pull", "MES.c.0", "--schema", "ohlcv-1h", "--start", "2023-01-15", "--end", "2023-04-01", "--dry-run"]
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--json"])
    assert not ended.value.code
    said = json.loads(capsys.readouterr().out)
    assert [entry["start"][:10] for entry in said["purchases"]] == ["2023-01-15", "2023-02-01", "2023-03-01"]
    assert Decimal(said["cost_usd"]) == sum(Decimal(entry["cost_usd"]) for entry in said["purchases"])
    assert running.counts() == {"metadata.get_cost": 3}
    assert len(said["request_ids"]) == 3
    for arguments, code, reason in (
        ([*asked[:5], "2023-05-01", *asked[6:]], 2, "INVALID_REQUEST"),
        (["pull", "NOSUCH.c.0", *asked[2:]], 2, "INSTRUMENT_UNKNOWN"),
        ([*asked[:7], "2023-01-15", "--dry-run"], 2, "INVALID_REQUEST"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--json"])
        assert ended.value.code == code
        assert json.loads(capsys.readouterr().out)["error_code"] == reason
    running.settings.sandbox_key_path.unlink()
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--json"])
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out)["error_code"] == "INTEGRATION_KEY_MISSING"


def test_two_pulls_of_one_symbol_at_once_one_is_refused_and_nothing_is_lost(
    gateway: StartGateway, store: Store
) -> None:
    running = gateway()
    world = World(running, store)
    ends: list[object] = []

    def attempt() -> None:
        try:
            ends.append(world.pull(day(11), day(14)).snapshot.content_hash)
        except Refused as error:
            ends.append(error.reason.code)

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(ends) <= {truth(day(11), day(14)).content_hash(), ReasonCode.ALREADY_RUNNING}
    assert len(world.bought()) == 1
