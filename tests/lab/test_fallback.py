"""The backup provider stands in when policy says so and the configured one is out, never to walk around a refusal."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import select

from blaid_pipelines.jobs.machine import JobStatus
from blaid_pipelines.lab.bots import NewBot, create_bot
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.lab.cycle import run_cohort
from blaid_pipelines.lab.fallback import OUTAGES, require_no_stand_in
from blaid_pipelines.lab.inputs import InputCache, gather_inputs
from blaid_pipelines.lab.series import judge_series, pull_series, quote_series
from blaid_pipelines.market.bars import to_ns
from blaid_pipelines.market.instruments import get_instrument
from blaid_pipelines.market.lake.provenance import check_snapshot_proof
from blaid_pipelines.market.lake.snapshots import current_head, load_bars
from blaid_pipelines.market.purchase.backup import contract_runs
from blaid_pipelines.market.purchase.pull import PullRequest
from blaid_pipelines.policy.load import check_policy, default_policy_text
from blaid_pipelines.policy.model import Policy, Stage
from blaid_pipelines.proof.recorder import Recorder, wire_log_path
from blaid_pipelines.proof.usage import proof_counts
from blaid_pipelines.providers.massive.client import AGGS_ENDPOINT
from blaid_pipelines.reasons import BlaidError, InvalidRequest, ReasonCode, Refused
from blaid_pipelines.sandbox.contracts import Lead, instrument_id
from blaid_pipelines.sandbox.gateway import Fault
from blaid_pipelines.sandbox.series import Series
from blaid_pipelines.sandbox.synthetic import synthesise
from blaid_pipelines.settings import load_settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import ProviderRequest, Snapshot
from tests.market.test_provenance import forge
from tests.sandbox.fixtures import SMALL, RunningGateway, StartGateway

OUT = Fault("metadata.get_cost", status=503, times=99)


def day(number: int) -> datetime:
    return datetime(2024, 3, number, tzinfo=UTC)


def policy_with(fallback: str, **budget: str) -> Policy:
    document = copy.deepcopy(tomllib.loads(default_policy_text()))
    document["stages"]["LAB"]["allowed_fallbacks"]["market_data"] = fallback
    document["stages"]["LAB"]["retry_limits"]["provider_attempts"] = 1
    document["quality"]["min_bars"] = 1000
    document["budgets"]["data"] |= budget
    return check_policy(document)


@dataclass
class World:
    gateway: RunningGateway
    lab: LabContext

    @property
    def store(self) -> Store:
        return self.lab.store

    def with_policy(self, fallback: str, **budget: str) -> World:
        return World(self.gateway, replace(self.lab, policy=policy_with(fallback, **budget)))

    def pull(self, start: int = 12, end: int = 14, symbol: str = "MES.c.0", schema: str = "ohlcv-1m") -> Snapshot:
        return pull_series(self.lab, PullRequest(symbol, day(start), day(end), schema)).snapshot

    def rows(self, provider: str) -> list[ProviderRequest]:
        query = select(ProviderRequest).where(ProviderRequest.provider == provider)
        with self.lab.store.session() as session:
            return list(session.scalars(query.order_by(ProviderRequest.created_at, ProviderRequest.id)))

    def asked_massive(self) -> int:
        return sum(count for name, count in self.gateway.counts().items() if name.startswith("futures/"))

    def assert_proven(self, snapshot: Snapshot) -> None:
        assert check_snapshot_proof(self.lab.store, snapshot) == []
        assert proof_counts(self.lab.store, self.lab.settings).equal


Make = Callable[..., World]


@pytest.fixture
def make(store: Store, gateway: StartGateway) -> Make:
    def start(backup_series: Sequence[Series] | None = None) -> World:
        running = gateway(backup_series=backup_series)
        recorder = Recorder(store, wire_log_path(running.settings))
        return World(running, LabContext(running.settings, store, policy_with("alt_provider"), recorder))

    return start


@pytest.fixture
def world(make: Make) -> Iterator[World]:
    return make()


def test_the_backup_stands_in_and_says_so(world: World) -> None:
    direct = load_bars(world.lab.store, world.lab.lake, world.pull(12, 13))
    world.gateway.add_faults(OUT)
    outcome = pull_series(world.lab, PullRequest("MES.c.0", day(13), day(14)))
    snapshot = outcome.snapshot
    provenance = snapshot.provenance
    assert (provenance["source"], provenance["source_key"]) == ("massive", f"massive:{world.lab.settings.massive_url}")
    failed = [row for row in world.rows("databento") if row.success is False]
    assert provenance["fallback_for"]["code"] == "UPSTREAM_5XX"
    assert provenance["fallback_for"]["source"] == "databento"
    assert provenance["fallback_for"]["request_ids"] == [str(row.id) for row in failed]
    assert provenance["request_ids"] == [str(row.id) for row in world.rows("massive")]
    assert {row.trace_id for row in [*failed, *world.rows("massive")]} == {outcome.trace_id}
    assert snapshot.simulated
    assert (snapshot.range_start, snapshot.range_end) == (day(12), day(14))  # what bots read before, and what was asked
    assert outcome.metadata["fallback_for"]["code"] == "UPSTREAM_5XX"
    assert outcome.metadata["source"] == "massive"
    world.assert_proven(snapshot)
    # never mixed: the days that Databento had brought were taken anew, and they are the same
    bars = load_bars(world.lab.store, world.lab.lake, snapshot)
    own = bars.slice(to_ns(day(12)), to_ns(day(13)))
    assert own.content_hash() == direct.content_hash()
    assert judge_series(world.lab, snapshot.snapshot_id).status == "PASS"
    head = current_head(world.lab.store, "MES.c.0", "ohlcv-1m")
    assert head is not None
    assert head.snapshot_id == snapshot.snapshot_id


OUTAGE_FAULTS = [
    (Fault("metadata.get_cost", status=500, times=9), ReasonCode.UPSTREAM_5XX),
    (Fault("metadata.get_cost", status=504, times=9), ReasonCode.TIMEOUT),
    (Fault("metadata.get_cost", status=429, headers={"Retry-After": "0"}, times=9), ReasonCode.RATE_LIMITED),
    (Fault("metadata.get_cost", kind="reset", times=9), ReasonCode.CONNECTION_BROKEN),
    (Fault("timeseries.get_range", kind="cut", times=9), ReasonCode.CONNECTION_BROKEN),
]
REFUSALS = [
    (Fault("metadata.get_cost", status=400), ReasonCode.BAD_REQUEST),
    (Fault("metadata.get_cost", status=401), ReasonCode.AUTH_FAILED),
    (Fault("metadata.get_cost", status=402), ReasonCode.ENTITLEMENT_MISSING),
    (Fault("metadata.get_cost", status=403, case="auth_account_locked"), ReasonCode.AUTH_FAILED),
    (Fault("metadata.get_cost", status=404), ReasonCode.NOT_FOUND),
    (Fault("metadata.get_cost", status=422, case="symbology_invalid_request"), ReasonCode.SYMBOL_NOT_FOUND),
    (Fault("metadata.get_cost", body="<html>"), ReasonCode.BAD_RESPONSE),
    (Fault("timeseries.get_range", body="<html>"), ReasonCode.BAD_RESPONSE),
]


def test_every_outage_and_every_policy(world: World) -> None:
    """One world for all: each outage meets a series of its own, by symbol and schema."""
    series = [(symbol, schema) for symbol in ("MES.c.0", "MESH4") for schema in ("ohlcv-1m", "ohlcv-1h")]
    asked = [(12, *pair) for pair in series] + [(18, *series[0])]
    for (fault, code), (start, symbol, schema) in zip(OUTAGE_FAULTS, asked, strict=True):
        for fallback in ("none", "sim", "alt_provider"):
            world.gateway.clear_faults()
            world.gateway.add_faults(fault)
            before = world.asked_massive()
            if fallback != "alt_provider":
                with pytest.raises(BlaidError) as caught:
                    world.with_policy(fallback).pull(start, start + 1, symbol, schema)
                assert caught.value.reason.code is code
                assert world.asked_massive() == before
                continue
            snapshot = world.pull(start, start + 1, symbol, schema)
            assert snapshot.provenance["fallback_for"]["code"] == code.value
            world.assert_proven(snapshot)


def test_a_refusal_is_never_walked_around(world: World) -> None:
    for fault, code in REFUSALS:
        world.gateway.clear_faults()
        world.gateway.add_faults(replace(fault, times=9))
        with pytest.raises(BlaidError) as caught:
            world.pull()
        assert caught.value.reason.code is code
        assert code not in OUTAGES
    assert world.asked_massive() == 0


def test_a_budget_is_never_walked_around(world: World) -> None:
    poor = world.with_policy("alt_provider", max_cost_usd_per_pull="0.000001")
    with pytest.raises(Refused) as caught:
        poor.pull()
    assert caught.value.reason.code is ReasonCode.COST_BUDGET_EXCEEDED
    assert world.asked_massive() == 0


def test_what_the_lake_holds_needs_neither(world: World) -> None:
    first = world.pull()
    world.gateway.add_faults(OUT)
    assert world.pull().snapshot_id == first.snapshot_id
    assert world.asked_massive() == 0


def test_a_provider_that_is_not_there(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make()
    monkeypatch.setenv("BLAID_DATABENTO_URL", "http://127.0.0.1:9")
    alone = World(world.gateway, replace(world.lab, settings=load_settings()))
    snapshot = alone.pull()
    assert snapshot.provenance["fallback_for"]["code"] == "PROVIDER_UNREACHABLE"
    assert check_snapshot_proof(alone.lab.store, snapshot) == []


def test_both_are_out(world: World) -> None:
    world.gateway.add_faults(OUT, Fault(AGGS_ENDPOINT, status=403, times=9))
    with pytest.raises(BlaidError) as caught:
        world.pull()
    assert caught.value.reason.code is ReasonCode.UPSTREAM_5XX
    assert ReasonCode.ENTITLEMENT_MISSING in [reason.code for reason in caught.value.reasons]
    assert current_head(world.lab.store, "MES.c.0", "ohlcv-1m") is None
    assert proof_counts(world.lab.store, world.lab.settings).equal


def test_the_configured_provider_takes_the_series_back_whole(world: World) -> None:
    world.gateway.add_faults(OUT)
    stand_in = world.pull(12, 14)
    world.gateway.clear_faults()
    back = world.pull(14, 15)
    assert (back.provenance["source"], back.range_start, back.range_end) == ("databento", day(12), day(15))
    assert "fallback_for" not in back.provenance
    assert not {entry["path"] for entry in back.files} & {entry["path"] for entry in stand_in.files}
    world.assert_proven(back)


def test_a_quote_says_what_taking_back_costs(world: World) -> None:
    world.gateway.add_faults(OUT)
    world.pull(12, 14)
    world.gateway.clear_faults()
    quote = quote_series(world.lab, PullRequest("MES.c.0", day(14), day(15))).plan
    assert quote is not None
    assert quote.missing == [(to_ns(day(12)), to_ns(day(15)))]
    outcome = pull_series(world.lab, PullRequest("MES.c.0", day(14), day(15)))
    assert outcome.metadata["cost_usd"] == pytest.approx(float(quote.position.quoted))


def test_who_reads_a_stand_in(world: World) -> None:
    """Bots of a stage that allows one, as long as policy does; never above LAB."""
    world.gateway.add_faults(OUT)
    snapshot = world.pull()
    require_no_stand_in(world.lab, Stage.LAB, snapshot)
    bot = create_bot(world.lab, NewBot("reader", "MES", "ma_cross", {}, 2_500_000, symbol="MES.c.0"))
    judge_series(world.lab, snapshot.snapshot_id)
    assert gather_inputs(world.lab, bot, snapshot, InputCache()).snapshot is snapshot
    # nor does it carry a bot up: the next stage allows none
    [outcome] = run_cohort(world.lab, ["reader"])
    assert outcome.status is JobStatus.COMPLETED
    [proof] = [gate for gate in outcome.judgement.verdict.gates if gate.name == "proof"]
    assert proof.reason is not None
    assert (proof.passed, proof.reason.code) == (False, ReasonCode.STAND_IN_REFUSED)
    no_more = world.with_policy("none").lab
    judge_series(no_more, snapshot.snapshot_id)
    with pytest.raises(Refused) as caught:
        gather_inputs(no_more, bot, snapshot, InputCache())
    assert caught.value.reason.code is ReasonCode.STAND_IN_REFUSED
    for stage in set(Stage) - {Stage.LAB}:
        with pytest.raises(Refused):
            require_no_stand_in(world.lab, stage, snapshot)
    world.gateway.clear_faults()
    require_no_stand_in(no_more, Stage.LAB, world.with_policy("none").pull())


def test_an_interrupted_stand_in_goes_on_where_it_stopped(make: Make) -> None:
    world = make()
    world.gateway.add_faults(OUT)
    first = world.pull(12, 13)
    asked = world.asked_massive()
    again = world.pull(12, 13)
    assert world.asked_massive() == asked
    assert again.content_hash == first.content_hash
    longer = world.pull(13, 14)
    assert world.asked_massive() == asked + 1
    assert (longer.range_start, longer.range_end) == (day(12), day(14))
    world.assert_proven(longer)


def test_a_contract_is_asked_for_as_it_is(world: World) -> None:
    world.gateway.add_faults(OUT)
    snapshot = world.pull(12, 14, "MESH4")
    assert snapshot.contracts == ["MESH4"]
    assert {row.params["path"] for row in world.rows("massive")} == {f"{AGGS_ENDPOINT}/MESH4"}
    world.assert_proven(snapshot)


@pytest.mark.parametrize("root", ["GC", "MGC", "SI", "6E", "M6E"])
def test_a_series_through_serial_months_has_no_stand_in(root: str, world: World) -> None:
    """Databento's lead by expiry is a serial month there, which the calendar of the stand-in does not have."""
    spec, span = get_instrument(world.store, root), (to_ns(day(12)), to_ns(day(14)))
    with pytest.raises(Refused) as caught:
        contract_runs(spec, f"{root}.c.0", span)
    assert caught.value.reason.code is ReasonCode.ROLL_RULE_UNAVAILABLE
    assert contract_runs(spec, f"{root}M4", span) == [(f"{root}M4", span)]


@pytest.mark.parametrize("symbol", ["MES.v.0", "MES.n.0"])
def test_series_that_do_not_roll_by_expiry_have_no_stand_in(symbol: str, world: World) -> None:
    world.gateway.add_faults(OUT, Fault("symbology.resolve", status=503, times=9))
    with pytest.raises(BlaidError) as caught:
        world.pull(symbol=symbol)
    codes = [reason.code for reason in caught.value.reasons]
    assert codes[0] is ReasonCode.UPSTREAM_5XX
    assert ReasonCode.ROLL_RULE_UNAVAILABLE in codes
    assert world.asked_massive() == 0


def test_daily_bars_have_no_stand_in(world: World) -> None:
    world.gateway.add_faults(OUT)
    with pytest.raises(BlaidError) as caught:
        world.pull(schema="ohlcv-1d")
    assert caught.value.reason.code is ReasonCode.UPSTREAM_5XX
    assert ReasonCode.INVALID_REQUEST in [reason.code for reason in caught.value.reasons]


def test_silence_while_the_market_was_open_is_no_stand_in(world: World) -> None:
    world.gateway.add_faults(OUT, Fault(AGGS_ENDPOINT, body='{"status": "OK", "request_id": "r"}', times=9))
    with pytest.raises(BlaidError) as caught:
        world.pull()
    assert ReasonCode.DATA_UNAVAILABLE in [reason.code for reason in caught.value.reasons]
    assert current_head(world.lab.store, "MES.c.0", "ohlcv-1m") is None


def test_a_delayed_answer_covers_no_more_than_it_holds(world: World) -> None:
    """Its newest bars may still come: the range after the last one stays missing."""
    last = day(12).replace(hour=15)
    rows = [
        {"ticker": "MESH4", "open": 5000, "high": 5000, "low": 5000, "close": 5000, "volume": 1, "window_start": stamp}
        for stamp in range(to_ns(day(12)), to_ns(last), 60 * 10**9)
    ]
    body = json.dumps({"status": "DELAYED", "request_id": "r", "results": rows})
    world.gateway.add_faults(OUT, Fault(AGGS_ENDPOINT, body=body))
    now = World(world.gateway, replace(world.lab, clock=lambda: last.replace(minute=10)))
    snapshot = now.pull(12, 13, "MESH4")
    assert (snapshot.range_end, snapshot.bar_count) == (last, 900)
    now.assert_proven(snapshot)
    later = world.pull(12, 13, "MESH4")
    assert (later.range_end, world.asked_massive()) == (day(13), 2)


def test_a_delayed_answer_without_bars_says_nothing(world: World) -> None:
    """Half an hour of silence may be delay alone: it is asked for again, and not taken for minutes without a trade."""
    rows = [
        {"ticker": "MESH4", "open": 5000, "high": 5000, "low": 5000, "close": 5000, "volume": 1, "window_start": stamp}
        for stamp in range(to_ns(day(12)), to_ns(day(13)), 60 * 10**9)
    ]
    answers = [json.dumps({"status": "DELAYED", "request_id": "r", "results": part}) for part in (rows, [])]
    world.gateway.add_faults(OUT, Fault(AGGS_ENDPOINT, body=answers[0]))
    end = day(13).replace(minute=30)
    now = World(world.gateway, replace(world.lab, clock=lambda: end))
    first = now.pull(12, 13, "MESH4")
    world.gateway.add_faults(Fault(AGGS_ENDPOINT, body=answers[1]))
    again = pull_series(now.lab, PullRequest("MESH4", day(12), end)).snapshot
    assert (again.range_end, again.bar_count) == (first.range_end, first.bar_count) == (day(13), 1440)
    later = pull_series(now.lab, PullRequest("MESH4", day(12), end)).snapshot
    assert (later.range_end, later.bar_count) == (end, 1470)


# rolls


def two_contracts() -> list[Series]:
    """MESH4 to its last day, and MESM4 from two weeks before: side by side, as Massive has them."""
    whole = synthesise(SMALL)
    out = []
    for name, start, end, shift in (("MESH4", 11, 15, 0), ("MESM4", 11, 20, 50 * 10**9)):
        lead = Lead(name, instrument_id(name), date(2024, 3, start), date(2024, 3, end))
        first, last = to_ns(day(start)), to_ns(day(end))
        part = whole.between(first, last)
        out.append(
            replace(
                part,
                symbol=name,
                open=part.open + shift,
                high=part.high + shift,
                low=part.low + shift,
                close=part.close + shift,
                instrument_id=np.full(len(part), lead.instrument_id, np.int64),
                leads=(lead,),
            )
        )
    return out


def test_a_roll_lies_between_two_sessions(make: Make) -> None:
    world = make(backup_series=two_contracts())
    spec = get_instrument(world.lab.store, "MES.c.0")
    turn = to_ns(datetime(2024, 3, 14, 22, tzinfo=UTC))
    span = (to_ns(day(12)), to_ns(day(19)))
    assert contract_runs(spec, "MES.c.0", span) == [("MESH4", (span[0], turn)), ("MESM4", (turn, span[1]))]
    assert contract_runs(spec, "MES.c.1", span) == [("MESM4", (span[0], turn)), ("MESU4", (turn, span[1]))]
    assert contract_runs(spec, "MESZ4", span) == [("MESZ4", span)]
    world.gateway.add_faults(OUT)
    snapshot = world.pull(12, 19)
    bars = load_bars(world.lab.store, world.lab.lake, snapshot)
    codes = [bars.contracts[code] for code in bars.contract]
    assert {name for name, stamp in zip(codes, bars.ts_open, strict=True) if stamp < turn} == {"MESH4"}
    assert {name for name, stamp in zip(codes, bars.ts_open, strict=True) if stamp >= turn} == {"MESM4"}
    assert judge_series(world.lab, snapshot.snapshot_id).status == "PASS"
    world.assert_proven(snapshot)


def test_a_weekend_before_a_roll_belongs_to_the_session_before(world: World) -> None:
    spec = get_instrument(world.lab.store, "CL.c.0")
    span = (to_ns(datetime(2024, 2, 15, tzinfo=UTC)), to_ns(datetime(2024, 2, 27, tzinfo=UTC)))
    runs = contract_runs(spec, "CL.c.0", span)
    # CLH4 trades last on Tuesday 20 February; its last whole session is that of the Friday before (Presidents' Day)
    assert [name for name, _ in runs] == ["CLH4", "CLJ4"]
    assert runs[0][1][1] == runs[1][1][0]
    with pytest.raises(InvalidRequest):
        contract_runs(spec, "CL", span)


# proof


def a_page_left_out(world: World, like: Snapshot) -> Snapshot:
    return forge(world, like, provenance=like.provenance | {"request_ids": like.provenance["request_ids"][:-1]})


def a_request_of_the_other_provider(world: World, like: Snapshot) -> Snapshot:
    ids = [*like.provenance["request_ids"], str(next(row.id for row in world.rows("databento") if row.success))]
    return forge(world, like, provenance=like.provenance | {"request_ids": ids})


def named_as_the_other_provider(world: World, like: Snapshot) -> Snapshot:
    return forge(world, like, provenance=like.provenance | {"source": "databento"})


@pytest.mark.parametrize("spoil", [a_page_left_out, a_request_of_the_other_provider, named_as_the_other_provider])
def test_a_stand_in_that_is_not_proven(spoil: Callable[[World, Snapshot], Snapshot], world: World) -> None:
    world.pull(12, 13, "MESH4")
    world.gateway.add_faults(OUT)
    snapshot = world.pull(12, 14)
    world.assert_proven(snapshot)
    found = check_snapshot_proof(world.lab.store, spoil(world, snapshot))
    assert {reason.code for reason in found} <= {ReasonCode.PROOF_MISMATCH, ReasonCode.PROOF_UNKNOWN}
    assert found


def test_the_command_shows_it(world: World, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from blaid_pipelines.cli.data import _print_series

    world.gateway.add_faults(OUT)
    outcome = pull_series(world.lab, PullRequest("MES.c.0", day(12), day(14)))
    import click

    @click.command()
    def show() -> None:
        _print_series(outcome.snapshot, None, outcome.metadata, "run", current=True, as_json=False)

    text = CliRunner().invoke(show).output
    assert "massive" in text
    assert "databento, which failed: UPSTREAM_5XX" in text
