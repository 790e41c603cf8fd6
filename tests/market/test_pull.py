"""Pulls through the sandbox gateway: only what is missing, only within the budget, whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from blaid_pipelines.market.bars import Bars, from_ns, to_ns
from blaid_pipelines.market.gate.quality import judge
from blaid_pipelines.market.intake.ingest import IngestRequest, ingest
from blaid_pipelines.market.lake.files import write_segment
from blaid_pipelines.market.lake.snapshots import load_bars, resolve_snapshot
from blaid_pipelines.market.purchase import pull as pull_module
from blaid_pipelines.market.purchase.budget import purchase_lock
from blaid_pipelines.market.purchase.limits import DEFAULT_LIMITS, PullLimits
from blaid_pipelines.market.purchase.pull import PullRequest, PullResult, pull
from blaid_pipelines.market.spans import uncovered
from blaid_pipelines.proof.recorder import CallContext, Recorder, wire_log_path
from blaid_pipelines.proof.usage import check_requests
from blaid_pipelines.providers.budget import DataBudget
from blaid_pipelines.reasons import BlaidError, InvalidRequest, ReasonCode, Refused, StopAndFix
from blaid_pipelines.sandbox.files import BarsFile, load_series
from blaid_pipelines.sandbox.gateway import Fault
from blaid_pipelines.sandbox.series import Series
from blaid_pipelines.sandbox.synthetic import synthesise
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import LakeSegment, ProviderRequest, Snapshot
from tests.market.helpers import EURO_BARS, EURO_CSV, THRESHOLDS
from tests.sandbox.fixtures import SMALL, RunningGateway, StartGateway

LIMITS = DEFAULT_LIMITS
PLENTY = DataBudget(max_cost_usd_per_pull=Decimal(5), max_cost_usd_per_day=Decimal(20))


def day(number: int, hour: int = 0) -> datetime:
    return datetime(2024, 3, number, hour, tzinfo=UTC)


@dataclass
class World:
    gateway: RunningGateway
    store: Store

    def pull(
        self,
        start: datetime,
        end: datetime,
        symbol: str = "MES.c.0",
        budget: DataBudget = PLENTY,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        progress: Callable[[str], None] | None = None,
        limits: PullLimits = LIMITS,
    ) -> PullResult:
        settings = self.gateway.settings
        recorder = Recorder(self.store, wire_log_path(settings))
        context = CallContext(trace_id="a" * 32, stage="LAB")
        request = PullRequest(symbol, start, end)
        return pull(self.store, settings, recorder, budget, context, request, progress, clock, limits=limits)

    def calls(self, endpoint: str | None = None) -> int:
        counts = self.gateway.counts()
        return counts.get(endpoint, 0) if endpoint else sum(counts.values())

    def bought(self) -> list[tuple[datetime, datetime]]:
        """The ranges that were asked for and billed, by time, successful or not."""
        query = (
            select(ProviderRequest.start_ts, ProviderRequest.end_ts)
            .where(ProviderRequest.endpoint == "timeseries.get_range")
            .order_by(ProviderRequest.created_at)
        )
        with self.store.session() as session:
            return sorted((row.start_ts, row.end_ts) for row in session.execute(query))


@pytest.fixture
def world(gateway: StartGateway, store: Store) -> World:
    return World(gateway(), store)


def truth(start: datetime, end: datetime, series: Series | None = None) -> Bars:
    """What the gateway has of a range, made into bars apart from the product's way."""
    part = (series or synthesise(SMALL)).between(to_ns(start), to_ns(end))
    names = {lead.instrument_id: lead.raw_symbol for lead in part.leads}
    contracts = [names[number] for number in part.instrument_id.tolist()]
    return Bars.build(part.ts_open, part.open, part.high, part.low, part.close, part.volume, contracts)


def test_a_pull_brings_the_bars_with_their_contracts_and_the_proof(world: World) -> None:
    result = world.pull(day(11), day(20))
    wanted = truth(day(11), day(20))
    snapshot = result.snapshot
    assert snapshot.content_hash == wanted.content_hash()
    assert snapshot.contracts == ["MESH4", "MESM4"]
    assert (snapshot.bar_count, result.bars_pulled) == (len(wanted), len(wanted))
    assert snapshot.simulated is True
    assert (snapshot.range_start, snapshot.range_end) == (day(11), day(20))
    assert result.missing_ranges == [(day(11), day(20))]
    assert result.cost_usd > 0
    assert len(result.request_ids) == world.calls()
    assert check_requests(world.store, result.request_ids) == []
    assert set(snapshot.provenance["request_ids"]) <= {str(request_id) for request_id in result.request_ids}
    loaded = load_bars(world.store, world.gateway.settings.lake, snapshot)
    assert loaded.content_hash() == wanted.content_hash()


def test_pulling_again_calls_nobody_and_gives_the_same_snapshot(world: World) -> None:
    first = world.pull(day(11), day(14))
    calls = world.calls()
    again = world.pull(day(11), day(14))
    assert again.snapshot.snapshot_id == first.snapshot.snapshot_id
    assert (again.request_ids, again.cost_usd, again.bars_pulled, again.missing_ranges) == ([], Decimal(0), 0, [])
    assert again.reused_segments == 1
    assert world.calls() == calls


def test_only_missing_parts_are_bought_and_the_content_does_not_tell_how(world: World) -> None:
    world.pull(day(12), day(13))
    world.pull(day(14), day(15, 12))
    whole = world.pull(day(11), day(19))
    assert whole.missing_ranges == [(day(11), day(12)), (day(13), day(14)), (day(15, 12), day(19))]
    assert world.bought() == sorted([(day(12), day(13)), (day(14), day(15, 12)), *whole.missing_ranges])
    assert whole.snapshot.content_hash == truth(day(11), day(19)).content_hash()
    assert whole.reused_segments == 2
    assert len(whole.snapshot.provenance["request_ids"]) > len(whole.request_ids) - 3
    calls = world.calls()
    inner = world.pull(day(12, 6), day(14, 6))
    assert world.calls() == calls
    assert inner.snapshot.snapshot_id == whole.snapshot.snapshot_id


def test_a_pull_extends_the_series_that_bots_read_and_never_cuts_it(world: World) -> None:
    def read_by_bots() -> str:
        return resolve_snapshot(world.store, "MES", "MES.c.0", "ohlcv-1m").snapshot_id

    days = world.pull(day(12), day(15)).snapshot
    for start, end in ((day(13), day(14)), (day(12), day(13)), (day(14), day(15)), (day(12), day(15))):
        assert world.pull(start, end).snapshot.snapshot_id == days.snapshot_id == read_by_bots()
    longer = world.pull(day(15), day(16))
    assert longer.missing_ranges == [(day(15), day(16))], "a day more buys a day"
    assert (longer.snapshot.range_start, longer.snapshot.range_end) == (day(12), day(16))
    assert longer.snapshot.content_hash == truth(day(12), day(16)).content_hash()
    assert read_by_bots() == longer.snapshot.snapshot_id
    apart = world.pull(day(18), day(19)).snapshot
    assert (apart.range_start, apart.range_end) == (day(18), day(19)), "what does not touch is a series of its own"
    assert read_by_bots() == apart.snapshot_id
    whole = world.pull(day(12), day(18)).snapshot
    assert (whole.range_start, whole.range_end) == (day(12), day(19))
    (world.gateway.settings.lake / whole.files[0]["path"]).write_bytes(b"rot")
    mended = world.pull(day(13), day(14)).snapshot
    assert whole.snapshot_id != mended.snapshot_id == read_by_bots()
    assert mended.content_hash == truth(day(12), day(19)).content_hash()


def test_another_gateway_is_another_source(gateway: StartGateway, store: Store) -> None:
    first = World(gateway(), store).pull(day(11), day(12))
    second = World(gateway(), store).pull(day(11), day(12))
    assert resolve_snapshot(store, "MES", None, "ohlcv-1m").snapshot_id == second.snapshot.snapshot_id
    third = World(gateway(), store).pull(day(11, 12), day(12))
    assert resolve_snapshot(store, "MES", None, "ohlcv-1m").snapshot_id == third.snapshot.snapshot_id
    assert second.bars_pulled == first.bars_pulled > 0
    assert first.snapshot.content_hash == second.snapshot.content_hash
    assert first.snapshot.snapshot_id != second.snapshot.snapshot_id


@pytest.mark.parametrize(
    ("per_pull", "per_day", "limit"),
    [("0.001", "20", "max_cost_usd_per_pull"), ("5", "0.001", "max_cost_usd_per_day")],
)
def test_a_cost_over_the_budget_buys_nothing(world: World, per_pull: str, per_day: str, limit: str) -> None:
    budget = DataBudget(max_cost_usd_per_pull=Decimal(per_pull), max_cost_usd_per_day=Decimal(per_day))
    with pytest.raises(Refused) as caught:
        world.pull(day(11), day(14), budget=budget)
    assert caught.value.reason.code is ReasonCode.COST_BUDGET_EXCEEDED
    assert caught.value.reason.numbers["limit"] == limit
    assert world.calls("timeseries.get_range") == 0
    with world.store.session() as session:
        assert session.scalar(select(func.count()).select_from(Snapshot)) == 0


def test_the_days_purchases_count_together_and_the_next_day_is_new(world: World) -> None:
    cost = world.pull(day(11), day(12)).cost_usd
    one_and_a_half = DataBudget(max_cost_usd_per_pull=Decimal(5), max_cost_usd_per_day=round(cost * 3 / 2, 6))
    with pytest.raises(Refused) as caught:
        world.pull(day(12), day(13), budget=one_and_a_half)
    assert caught.value.reason.code is ReasonCode.COST_BUDGET_EXCEEDED
    assert Decimal(caught.value.reason.numbers["spent_today_usd"]) == pytest.approx(cost, abs=Decimal("0.00001"))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert world.pull(day(12), day(13), budget=one_and_a_half, clock=lambda: tomorrow).bars_pulled > 0


def test_two_pulls_at_once_do_not_overspend_the_day(gateway: StartGateway, store: Store) -> None:
    series = [synthesise(SMALL), synthesise(replace(SMALL, symbol="MNQ.c.0"))]
    world = World(gateway(series=series), store)
    cost = world.pull(day(11), day(12)).cost_usd
    budget = DataBudget(max_cost_usd_per_pull=Decimal(5), max_cost_usd_per_day=round(cost * 5 / 2, 6))
    both_quoted = threading.Barrier(2)

    def say(_: str) -> None:
        # Before the lock both came here, each with a quote that fitted, and both bought.
        with suppress(threading.BrokenBarrierError):
            both_quoted.wait(timeout=1.5)

    def attempt(symbol: str) -> ReasonCode | None:
        try:
            world.pull(day(12), day(13), symbol, budget=budget, progress=say)
        except Refused as error:
            return error.reason.code
        return None

    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(attempt, ("MES.c.0", "MNQ.c.0")))
    assert sorted(ends, key=str) == [ReasonCode.COST_BUDGET_EXCEEDED, None]
    assert len(world.bought()) == 2


def test_a_purchase_waits_for_another_one_only_so_long(world: World) -> None:
    waited = []
    with purchase_lock(world.store), pytest.raises(Refused) as caught, purchase_lock(world.store, waited.append, 1):
        pytest.fail("two purchases at once")
    assert caught.value.reason.code is ReasonCode.ALREADY_RUNNING
    assert len(waited) == 1
    with purchase_lock(world.store, wait_s=1):
        pass


def test_a_budget_of_zero_lets_what_is_there_be_used(world: World) -> None:
    world.pull(day(11), day(12))
    nothing = DataBudget(max_cost_usd_per_pull=Decimal(0), max_cost_usd_per_day=Decimal(0))
    assert world.pull(day(11), day(12), budget=nothing).bars_pulled == 0


def test_a_failed_range_keeps_the_ones_before_it(world: World) -> None:
    world.pull(day(12), day(13))

    def say(text: str) -> None:
        if ": 1" in text:  # so many bars came: the first purchase is done
            world.gateway.add_faults(Fault("timeseries.get_range", status=402))

    with pytest.raises(StopAndFix) as caught:
        world.pull(day(11), day(14), progress=say, limits=LIMITS.model_copy(update={"parallel_downloads": 1}))
    assert [reason.code for reason in caught.value.reasons] == [
        ReasonCode.ENTITLEMENT_MISSING,
        ReasonCode.PULL_INCOMPLETE,
    ]
    assert (caught.value.reasons[1].numbers["recorded"], caught.value.reasons[1].numbers["left"]) == (1, 1)
    result = world.pull(day(11), day(14))
    assert result.missing_ranges == [(day(13), day(14))]
    assert world.bought() == [(day(11), day(12)), (day(12), day(13)), (day(13), day(14)), (day(13), day(14))]
    assert result.snapshot.content_hash == truth(day(11), day(14)).content_hash()


def test_an_interruption_between_file_and_row_leaves_nothing_half_visible(world: World) -> None:
    class PowerCut(BaseException):
        pass

    def write_then_end(*arguments: object) -> None:
        write_segment(*arguments)  # type: ignore[arg-type]
        raise PowerCut

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pull_module, "write_segment", write_then_end)
        with pytest.raises(PowerCut):
            world.pull(day(11), day(12))
    lake = world.gateway.settings.lake
    assert len(list(lake.rglob("*.parquet"))) == 1, "the file is there, and nothing cites it"
    with world.store.session() as session:
        assert session.scalar(select(func.count()).select_from(LakeSegment)) == 0
        assert session.scalar(select(func.count()).select_from(Snapshot)) == 0
    result = world.pull(day(11), day(12))
    assert result.snapshot.content_hash == truth(day(11), day(12)).content_hash()
    assert world.pull(day(11), day(12)).bars_pulled == 0


def test_a_spoilt_file_is_pulled_again(world: World) -> None:
    first = world.pull(day(11), day(12)).snapshot
    path = world.gateway.settings.lake / first.files[0]["path"]
    path.write_bytes(b"rot")
    with pytest.raises(Refused):
        load_bars(world.store, world.gateway.settings.lake, first)
    again = world.pull(day(11), day(12))
    assert again.bars_pulled == first.bar_count
    assert again.snapshot.content_hash == first.content_hash


def test_an_empty_answer_is_believed_on_a_weekend_and_not_on_a_working_day(gateway: StartGateway, store: Store) -> None:
    whole = synthesise(SMALL)
    tuesday = (whole.ts_open >= to_ns(day(12))) & (whole.ts_open < to_ns(day(13)))
    world = World(gateway(series=[whole.take(~tuesday)]), store)
    with pytest.raises(StopAndFix) as caught:
        world.pull(day(12), day(13))
    assert caught.value.reason.code is ReasonCode.DATA_UNAVAILABLE
    friday = world.pull(day(15, 12), day(15, 21))
    weekend = world.pull(day(15, 12), day(17, 12))
    assert weekend.snapshot.content_hash == truth(day(15, 12), day(17, 12)).content_hash()
    assert world.pull(day(15, 21), day(17, 12)).missing_ranges == []
    assert weekend.snapshot.bar_count == friday.snapshot.bar_count > 0
    world.pull(day(11), day(12))
    with pytest.raises(StopAndFix) as caught:
        world.pull(day(11), day(13))
    assert caught.value.reason.code is ReasonCode.DATA_UNAVAILABLE


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), max_size=6), st.integers(0, 20), st.integers(1, 10))
def test_what_is_not_covered_is_exactly_what_is_missing(pieces: list[tuple[int, int]], start: int, length: int) -> None:
    covered = [(left, left + size) for left, size in pieces]
    missing = uncovered((start, start + length), covered)
    held = {point for left, right in covered for point in range(left, right)}
    wanted = [point for point in range(start, start + length) if point not in held]
    assert [point for left, right in missing for point in range(left, right)] == wanted
    assert all(left < right for left, right in missing)


BAD_REQUESTS = {
    "reversed": PullRequest("MES.c.0", day(14), day(11)),
    "empty": PullRequest("MES.c.0", day(11), day(11)),
    "naive": PullRequest("MES.c.0", datetime(2024, 3, 11), datetime(2024, 3, 12)),  # noqa: DTZ001
    "future": PullRequest("MES.c.0", day(11), datetime(2999, 1, 1, tzinfo=UTC)),
    "between bars": PullRequest("MES.c.0", day(11) + timedelta(seconds=30), day(12)),
    "half an hour of hours": PullRequest("MES.c.0", day(11) + timedelta(minutes=30), day(12), schema="ohlcv-1h"),
    "parent": PullRequest("MES.FUT", day(11), day(12)),
    "root": PullRequest("MES", day(11), day(12)),
    "unknown root": PullRequest("HO.c.0", day(11), day(12)),
    "no bars": PullRequest("MES.c.0", day(11), day(12), schema="trades"),
    "no dataset": PullRequest("MES.c.0", day(11), day(12), dataset=""),
    "no name of a dataset": PullRequest("MES.c.0", day(11), day(12), dataset="../GLBX.MDP3"),
}


def test_requests_that_make_no_sense_call_nobody(world: World) -> None:
    settings = world.gateway.settings
    recorder = Recorder(world.store, wire_log_path(settings))
    for name, request in BAD_REQUESTS.items():
        with pytest.raises(InvalidRequest) as caught:
            pull(world.store, settings, recorder, PLENTY, CallContext("a" * 32), request)
        assert caught.value.reason.suggested_fix, name
    assert world.calls() == 0


def test_two_pulls_of_one_series_do_not_run_at_once(world: World) -> None:
    request = PullRequest("MES.c.0", day(11), day(12))
    with (
        pull_module._series_lock(world.store, request, f"databento:{world.gateway.settings.databento_url}"),
        pytest.raises(Refused) as caught,
    ):
        world.pull(day(11), day(12))
    assert caught.value.reason.code is ReasonCode.ALREADY_RUNNING
    assert world.pull(day(11), day(12)).bars_pulled > 0


@pytest.mark.real_data
def test_real_bars_by_file_and_by_gateway_are_one_content_with_two_provenances(
    gateway: StartGateway, store: Store, real_data: Path
) -> None:
    path = real_data / EURO_CSV
    world = World(gateway(series=[load_series(BarsFile(path, "6EH4", "close", "UTC"))]), store)
    settings = world.gateway.settings
    by_file = ingest(store, settings, CallContext("b" * 32), IngestRequest([path], "6EH4", "close", "UTC")).snapshot
    pulled = world.pull(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC), "6EH4").snapshot
    assert by_file.bar_count == pulled.bar_count == EURO_BARS
    assert by_file.content_hash == pulled.content_hash
    assert by_file.snapshot_id != pulled.snapshot_id
    assert (by_file.simulated, pulled.simulated) == (False, True)
    assert by_file.provenance["files"][0]["name"] == path.name
    assert pulled.provenance["source"] == "databento"
    for snapshot in (by_file, pulled):
        verdict = judge(store, settings.lake, snapshot, THRESHOLDS, policy_hash="p", trace_id="b" * 32)
        assert verdict.status == "PASS", verdict.reasons
    assert from_ns(to_ns(by_file.first_ts)) == datetime(2024, 1, 1, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fault", "counts"),
    [
        (Fault("timeseries.get_range", "cut", times=9), True),  # sent, and nobody knows whether it was billed
        (Fault("timeseries.get_range", status=401, case="auth_authentication_failed"), False),
    ],
    ids=["broken off", "refused"],
)
def test_a_purchase_that_failed_after_it_was_sent_counts_as_spent(world: World, fault: Fault, counts: bool) -> None:
    world.gateway.add_faults(fault)
    with pytest.raises(BlaidError):
        world.pull(day(11), day(14))
    world.gateway.clear_faults()
    quote = world.pull(day(15), day(16)).cost_usd  # what one day costs
    tight = DataBudget(max_cost_usd_per_pull=Decimal(5), max_cost_usd_per_day=round(quote * 3, 4))
    if counts:
        with pytest.raises(Refused) as caught:
            world.pull(day(18), day(19), budget=tight)
        assert caught.value.reason.code is ReasonCode.COST_BUDGET_EXCEEDED
    else:
        assert world.pull(day(18), day(19), budget=tight).bars_pulled > 0
