"""Snapshots held against daily bars, copies and the backup; rows of what was found; and who is refused for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import select

from blaid_pipelines.backtest.diagnostics import diagnose
from blaid_pipelines.cli.main import blaid
from blaid_pipelines.lab.bots import NewBot, create_bot
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.lab.cycle import run_cohort
from blaid_pipelines.lab.inputs import InputCache, gather_inputs
from blaid_pipelines.lab.reconciliation import (
    DailyBars,
    ReconcileOutcome,
    ReconcileRequest,
    head_snapshot,
    reconcile_series,
)
from blaid_pipelines.lab.series import judge_series, pull_series
from blaid_pipelines.market.bars import Bars, to_ns
from blaid_pipelines.market.intake.ingest import IngestRequest, ingest
from blaid_pipelines.market.lake.files import FilePart
from blaid_pipelines.market.lake.snapshots import load_bars
from blaid_pipelines.market.purchase.pull import PullRequest
from blaid_pipelines.market.reconcile import Comparison, record_reconciliation, require_reconciled
from blaid_pipelines.market.reconcile.thresholds import RequiredReconciliations
from blaid_pipelines.policy.load import load_policy
from blaid_pipelines.proof.recorder import CallContext, Recorder, wire_log_path
from blaid_pipelines.proof.usage import check_requests, proof_counts
from blaid_pipelines.providers.massive.client import AGGS_ENDPOINT
from blaid_pipelines.reasons import BlaidError, InvalidRequest, Reason, ReasonCode, Refused
from blaid_pipelines.sandbox.gateway import Fault
from blaid_pipelines.sandbox.series import Series
from blaid_pipelines.sandbox.synthetic import synthesise
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import BotJob, Reconciliation, Snapshot
from tests.market.helpers import changed, clean_bars, write_csv
from tests.sandbox.fixtures import SMALL, RunningGateway, StartGateway

POLICY = load_policy()
LIMITS = POLICY.reconciliation


def day(number: int, hour: int = 0) -> datetime:
    return datetime(2024, 3, number, hour, tzinfo=UTC)


def another_account(series: Series) -> Series:
    """The same bars as a second provider might have them: one lost, two off by a tick, the volume a little more."""
    close, volume = series.close.copy(), series.volume.copy()
    first = int(np.searchsorted(series.ts_open, to_ns(day(12))))
    close[[first + 200, first + 900]] += 250_000_000
    volume[::50] += 1
    return replace(series, close=close, volume=volume).take(np.arange(len(series)) != first + 333)


@dataclass
class World:
    gateway: RunningGateway
    lab: LabContext

    def pull(self, start: int = 12, end: int = 14, schema: str = "ohlcv-1m") -> Snapshot:
        return pull_series(self.lab, PullRequest("MES.c.0", day(start), day(end), schema)).snapshot

    def reconcile(self, snapshot: Snapshot, kind: str, **more: object) -> ReconcileOutcome:
        return reconcile_series(self.lab, ReconcileRequest(snapshot.snapshot_id, kind, **more))  # type: ignore[arg-type]

    def rows(self) -> list[Reconciliation]:
        with self.lab.store.session() as session:
            return list(session.scalars(select(Reconciliation).order_by(Reconciliation.created_at, Reconciliation.id)))


@pytest.fixture
def world(store: Store, gateway: StartGateway) -> World:
    small = synthesise(SMALL)
    running = gateway(series=[small], backup_series=[another_account(small)])
    return World(running, LabContext(running.settings, store, POLICY, Recorder(store, wire_log_path(running.settings))))


def test_against_the_backup(world: World) -> None:
    snapshot = world.pull(11, 19)  # a roll inside
    found = world.reconcile(snapshot, "backup")
    assert found.status == "PASS", found.reasons
    assert (found.numbers["only_ours"], found.numbers["only_other"], found.numbers["price_differs"]) == (1, 0, 2)
    assert found.numbers["max_price_ticks"] == 1.0
    assert 1 < found.numbers["volume_factor"] < 1.001
    assert [part["contract"] for part in found.other["asked"]] == ["MESH4", "MESM4"]
    assert check_requests(world.lab.store, found.request_ids) == []
    assert len(found.request_ids) == 2
    (row,) = world.rows()
    assert (row.kind, row.status, row.snapshot_id, row.policy_hash, row.simulated) == (
        "backup",
        "PASS",
        snapshot.snapshot_id,
        POLICY.hash,
        True,
    )
    assert (row.trace_id, row.request_ids) == (found.trace_id, [str(request_id) for request_id in found.request_ids])
    with world.lab.store.session() as session:
        job = session.scalars(select(BotJob).where(BotJob.trace_id == found.trace_id)).one()
        assert (job.job_type, job.status) == ("RECONCILE", "COMPLETED")
    assert proof_counts(world.lab.store, world.lab.settings).equal
    assert found.numbers["compared"] == [[day(11).isoformat(), day(19).isoformat()]]
    assert 99.9 < found.numbers["compared_share_pct"] < 100
    part = world.reconcile(snapshot, "backup", start=day(12), end=day(12, 2))
    assert part.numbers["compared"] == [[day(12).isoformat(), day(12, 2).isoformat()]]
    assert part.numbers["compared_share_pct"] == 10_000 * part.numbers["common"] // snapshot.bar_count / 100 < 5
    assert (60 <= part.numbers["bars"] <= 120, part.status) == (True, "PASS")
    few = world.reconcile(snapshot, "backup", start=day(12), end=day(12, 0).replace(minute=30))
    assert (few.status, few.reasons[0].code) == ("UNKNOWN", ReasonCode.RECONCILIATION_UNKNOWN)
    assert few.reconciliation_id is not None
    # a backup that is out, or refuses, is an error and not an answer: no row
    before = len(world.rows())
    world.gateway.add_faults(Fault(AGGS_ENDPOINT, status=403))
    with pytest.raises(BlaidError) as caught:
        world.reconcile(snapshot, "backup")
    assert caught.value.reason.code is ReasonCode.ENTITLEMENT_MISSING
    assert len(world.rows()) == before
    # one without any of these bars is an answer
    world.gateway.add_faults(Fault(AGGS_ENDPOINT, body='{"status": "OK", "request_id": "r"}', times=2))
    none = world.reconcile(snapshot, "backup")
    assert (none.status, none.reasons[0].code) == ("FAIL", ReasonCode.BARS_MISSING)


def test_against_daily_bars_of_the_lake_and_of_a_file(world: World, tmp_path: Path) -> None:
    snapshot = world.pull()
    with pytest.raises(InvalidRequest) as caught:
        world.reconcile(snapshot, "daily")
    assert caught.value.reason.code is ReasonCode.SNAPSHOT_MISSING
    daily = world.pull(schema="ohlcv-1d")
    found = world.reconcile(snapshot, "daily")
    assert (found.status, found.numbers["convention"], found.numbers["sessions"]) == ("PASS", "utc_day", 2)
    assert found.other["snapshot_id"] == daily.snapshot_id
    whole = [[day(12).isoformat(), day(14).isoformat()]]
    assert (found.numbers["compared"], found.numbers["compared_share_pct"]) == (whole, 100.0)
    bars = load_bars(world.lab.store, world.lab.lake, daily)
    twice = changed(bars, 1, volume=int(bars.volume[1]) * 2)
    path = write_csv(tmp_path / "daily.csv", twice, contract_column=True)
    bad = world.reconcile(snapshot, "daily", daily=DailyBars(path, stamp="open", tz="UTC"))
    assert (bad.status, [reason.code for reason in bad.reasons]) == ("FAIL", [ReasonCode.VOLUME_DIFFERS])
    assert bad.numbers["worst"][0]["day"] == "2024-03-13"
    assert bad.other["name"] == "daily.csv"
    with pytest.raises(InvalidRequest):
        world.reconcile(daily, "daily")
    with pytest.raises(InvalidRequest):
        world.reconcile(snapshot, "hearsay")
    with pytest.raises(BlaidError) as unreadable:
        world.reconcile(snapshot, "daily", daily=DailyBars(tmp_path / "nothing.csv"))
    assert unreadable.value.reason.code is ReasonCode.FILE_UNREADABLE
    # the bars that were not confirmed are refused, until they are
    with pytest.raises(Refused) as refused:
        require_reconciled(world.lab.store, snapshot, POLICY.hash, LIMITS)
    assert [reason.code for reason in refused.value.reasons] == [
        ReasonCode.RECONCILIATION_FAILED,
        ReasonCode.VOLUME_DIFFERS,
    ]
    judge_series(world.lab, snapshot.snapshot_id)
    bot = create_bot(world.lab, NewBot("held", "MES", "ma_cross", {}, 2_500_000, symbol="MES.c.0"))
    with pytest.raises(Refused) as no_backtest:
        gather_inputs(world.lab, bot, snapshot, InputCache())
    assert no_backtest.value.reason.code is ReasonCode.RECONCILIATION_FAILED
    few = write_csv(tmp_path / "few.csv", bars.take(slice(0, 1)), contract_column=True)
    one = world.reconcile(snapshot, "daily", daily=DailyBars(few, stamp="open", tz="UTC"))
    assert (one.status, one.numbers["compared_share_pct"]) == ("PASS", 50.0)
    with pytest.raises(Refused):  # the good day alone does not speak for the bad one
        require_reconciled(world.lab.store, snapshot, POLICY.hash, LIMITS)
    world.reconcile(snapshot, "daily")
    assert gather_inputs(world.lab, bot, snapshot, InputCache()).snapshot is snapshot
    assert [row.status for row in require_reconciled(world.lab.store, snapshot, POLICY.hash, LIMITS)] == ["PASS"]


def taken(world: World, path: Path, bars: Bars) -> Snapshot:
    write_csv(path, bars)
    request = IngestRequest([path], "MESH4", "open", "UTC")
    return ingest(world.lab.store, world.lab.settings, CallContext("a" * 32), request).snapshot


def test_against_other_copies_in_the_lake(world: World, tmp_path: Path) -> None:
    bars = clean_bars()
    first = taken(world, tmp_path / "first.csv", bars)
    alone = world.reconcile(first, "overlap")
    assert (alone.status, alone.reconciliation_id) == ("UNKNOWN", None)
    assert require_reconciled(world.lab.store, first, POLICY.hash, LIMITS) == []  # nobody has looked
    longer = clean_bars(end=datetime(2024, 2, 8, 22, tzinfo=UTC))
    second = taken(world, tmp_path / "second.csv", longer)
    same = world.reconcile(second, "overlap")
    assert (same.status, same.numbers["copies"]) == ("PASS", 1)
    assert same.numbers["compared"] == [[first.range_start.isoformat(), first.range_end.isoformat()]]
    assert same.numbers["compared_share_pct"] == 10_000 * len(bars) // len(longer) / 100 < 100
    other = changed(changed(longer, 7, close=int(longer.close[7]) + 250_000_000), 1500, volume=9_999)
    third = taken(world, tmp_path / "third.csv", other)
    found = world.reconcile(third, "overlap")
    assert (found.status, found.numbers["copies"], found.numbers["differing_copies"]) == ("FAIL", 2, 2)
    named = {(bar["ts"], bar["ours"]["volume"]) for bar in found.numbers["first_differing"]}
    assert {ts for ts, _ in named} == {"2024-02-04T23:07:00+00:00", "2024-02-06T01:00:00+00:00"}
    assert len(found.numbers["first_differing"]) == 4  # both bars, in both copies
    assert found.numbers["differ_between"] == sorted({ts for ts, _ in named})
    with pytest.raises(Refused):
        require_reconciled(world.lab.store, third, POLICY.hash, LIMITS)
    # what a gateway simulated is never held against what a file brought
    world.pull()
    assert world.reconcile(head_snapshot(world.lab, "MES.c.0", "ohlcv-1m"), "overlap").status == "UNKNOWN"


def required(**kinds: bool) -> object:
    wanted = RequiredReconciliations(**{"daily": False, "overlap": False, "backup": False} | kinds)
    return LIMITS.model_copy(update={"required": wanted})


def like(snapshot: Snapshot, digit: str = "", **changes: object) -> Snapshot:
    """A row like this one but for ``changes``; with ``digit`` under another id and of other content."""
    values = {column.key: getattr(snapshot, column.key) for column in Snapshot.__table__.columns}
    named = {"snapshot_id": digit * 64, "content_hash": digit * 64} if digit else {}
    return Snapshot(**values | named | changes)


def compared(*spans: tuple[int, int]) -> dict[str, object]:
    return {"compared": [[day(start).isoformat(), day(end).isoformat()] for start, end in spans]}


WHOLE = compared((1, 31))
REASON = Reason(ReasonCode.BARS_DIFFER, "they differ", "look", {})


def test_who_is_refused(world: World) -> None:
    """Newest row of each kind: FAIL and UNKNOWN refuse, a PASS serves only where it is of this policy and as real."""
    snapshot = world.pull(12, 13)
    store = world.lab.store

    def write(kind: str, status: str, policy: str = POLICY.hash, share: float = 100.0) -> None:
        reasons = () if status == "PASS" else (REASON,)
        record_reconciliation(
            store,
            snapshot,
            Comparison(kind, status, reasons, WHOLE | {"compared_share_pct": share}),  # type: ignore[arg-type]
            other={"source": "test"},
            policy_hash=policy,
            request_ids=[],
            simulated=False,
            trace_id="b" * 32,
        )

    def outcome(limits: object = LIMITS) -> str:
        try:
            return str(len(require_reconciled(store, snapshot, POLICY.hash, limits)))  # type: ignore[arg-type]
        except Refused as error:
            return error.reason.code.value

    assert outcome() == "0"
    assert outcome(required(backup=True)) == "RECONCILIATION_MISSING"
    write("backup", "PASS", policy="another")
    assert outcome() == "1"
    assert outcome(required(backup=True)) == "RECONCILIATION_MISSING"
    limit = LIMITS.min_required_share_pct
    write("backup", "PASS", share=limit - 0.01)
    assert outcome() == "1"
    assert outcome(required(backup=True)) == "RECONCILIATION_MISSING"
    write("backup", "PASS", share=limit)
    assert outcome(required(backup=True)) == "1"
    write("backup", "PASS", share=1.0)  # a look at a few bars more takes nothing away
    assert outcome(required(backup=True)) == "1"
    assert outcome(required(backup=True, daily=True)) == "RECONCILIATION_MISSING"
    write("daily", "UNKNOWN")
    assert outcome() == outcome(required(backup=True)) == "RECONCILIATION_FAILED"
    write("daily", "PASS")
    assert outcome(required(backup=True, daily=True)) == "2"
    write("backup", "FAIL", policy="another")
    assert outcome() == "RECONCILIATION_FAILED"
    write("backup", "PASS")
    assert outcome() == "2"
    # simulated evidence does not speak for real bars
    real = like(snapshot, simulated=False)
    with pytest.raises(Refused) as caught:
        require_reconciled(store, real, POLICY.hash, required(backup=True))  # type: ignore[arg-type]
    assert caught.value.reason.code is ReasonCode.RECONCILIATION_MISSING
    other = like(snapshot, content_hash="0" * 64)
    with pytest.raises(Refused):
        require_reconciled(store, other, POLICY.hash, LIMITS)


def test_what_lifts_a_refusal(world: World) -> None:
    """Not a PASS under a policy of one's choice, nor on simulated bars, nor over a part; and no other name for them."""
    store, pulled = world.lab.store, world.pull(12, 13)
    real, renamed = (like(pulled, snapshot_id=name, simulated=False) for name in (pulled.snapshot_id, "2" * 64))

    def write(
        status: str, *, kind: str = "daily", numbers: object = WHOLE, simulated: bool = False, **more: str
    ) -> None:
        record_reconciliation(
            store,
            real,
            Comparison(kind, status, () if status == "PASS" else (REASON,), numbers),  # type: ignore[arg-type]
            other={},
            policy_hash=more.get("policy", POLICY.hash),
            request_ids=[],
            simulated=simulated,
            trace_id="b" * 32,
        )

    def refused() -> bool:
        found = []
        for snapshot in (real, renamed):
            try:
                require_reconciled(store, snapshot, POLICY.hash, LIMITS)
            except Refused as error:
                found.append(error.reason.code)
        assert found in ([], 2 * [ReasonCode.RECONCILIATION_FAILED])
        return bool(found)

    write("FAIL")
    write("PASS", policy="another")
    write("PASS", simulated=True)
    assert refused()
    write("PASS")
    assert not refused()
    for kind in ("daily", "overlap", "backup"):
        write("FAIL", kind=kind, numbers=compared((12, 19)))
        write("PASS", kind=kind, numbers=compared((14, 19)))
        write("PASS", kind=kind, numbers=compared((12, 15), (16, 19)))
        write("PASS", kind=kind, numbers={})  # nobody knows what it looked at
        assert refused()
        write("PASS", kind=kind, numbers=compared((11, 15), (15, 20)))
        assert not refused()
    write("FAIL", numbers={})  # all of the snapshot, then
    write("PASS", numbers=compared((12, 12)))
    assert refused()
    write("PASS", numbers=compared((12, 13)))
    assert not refused()


def test_a_fail_goes_with_its_bar_files(world: World) -> None:
    """A day more, or less, is a new snapshot of bars that were not confirmed."""
    short = world.pull(12, 14)

    def write(about: Snapshot, status: str, numbers: object = None, kind: str = "daily") -> Reconciliation:
        return record_reconciliation(
            world.lab.store,
            about,
            Comparison(kind, status, () if status == "PASS" else (REASON,), numbers or {}),  # type: ignore[arg-type]
            other={},
            policy_hash=POLICY.hash,
            request_ids=[],
            simulated=False,
            trace_id="b" * 32,
        )

    def refusal(snapshot: Snapshot) -> Reason | None:
        try:
            require_reconciled(world.lab.store, snapshot, POLICY.hash, LIMITS)
        except Refused as error:
            return error.reason
        return None

    failed = write(short, "FAIL", compared((12, 14)))
    grown = world.pull(12, 15)
    assert (grown.snapshot_id, grown.content_hash) != (short.snapshot_id, short.content_hash)
    reason = refusal(grown)
    assert reason is not None
    assert reason.code is ReasonCode.RECONCILIATION_FAILED
    assert reason.numbers["inherited"] == [
        {"reconciliation_id": str(failed.id), "snapshot_id": short.snapshot_id},
    ]
    assert (str(failed.id) in reason.message, short.snapshot_id[:16] in reason.message) == (True, True)
    judge_series(world.lab, grown.snapshot_id)
    bot = create_bot(world.lab, NewBot("grown", "MES", "ma_cross", {}, 2_500_000, symbol="MES.c.0"))
    with pytest.raises(Refused) as no_backtest:
        gather_inputs(world.lab, bot, grown, InputCache())
    assert no_backtest.value.reason.code is ReasonCode.RECONCILIATION_FAILED
    # other bars are no heirs: of another schema, of another file, of another stretch of the file
    part = FilePart(**short.files[0])
    elsewhere = [
        like(grown, "3", schema="ohlcv-1h"),
        like(grown, "3", files=[replace(part, sha256="0" * 64).as_json()]),
        like(grown, "3", files=[replace(part, start_ns=part.end_ns, end_ns=part.end_ns + 1).as_json()]),
    ]
    assert [refusal(snapshot) for snapshot in elsewhere] == [None] * 3
    assert refusal(like(grown, "3", files=[replace(part, start_ns=part.end_ns - 1).as_json()])) is not None
    # the same bars taken anew, and then a day more, are no other bars
    anew = [replace(part, sha256="1" * 64).as_json()]
    with world.lab.store.session() as session:
        session.add(like(short, snapshot_id="6" * 64, files=anew, trace_id="c" * 32))
    again = like(grown, "7", files=[*anew, *grown.files[1:]])
    assert refusal(again) is not None
    # a PASS lifts it that looked at these bars, and at no less
    write(grown, "PASS", compared((13, 15)))
    assert refusal(grown) is not None
    write(grown, "PASS", compared((12, 15)))
    assert (refusal(grown), refusal(short)) == (None, None)
    # but not where the failed bars were taken anew meanwhile: it saw the new ones
    write(short, "UNKNOWN", compared((12, 14)), kind="backup")
    other_file = [replace(part, sha256="0" * 64).as_json(), *grown.files[1:]]
    with world.lab.store.session() as session:
        session.add(like(grown, "4", files=other_file, trace_id="c" * 32))
    write(like(grown, "4"), "PASS", compared((12, 15)), kind="backup")
    assert refusal(like(grown, "4", files=other_file)) is None
    assert None not in (refusal(short), refusal(grown))
    write(grown, "PASS", compared((12, 14)), kind="backup")
    assert refusal(grown) is None
    # where the differing bars are known, only snapshots that hold them inherit
    first_day = [replace(part, end_ns=to_ns(day(13))).as_json()]
    inside = {"differ_between": [day(13, 1).isoformat(), day(13, 2).isoformat()]}
    write(short, "FAIL", compared((12, 14)) | inside, kind="overlap")
    assert refusal(grown) is not None
    assert refusal(like(grown, "5", files=first_day)) is None


def test_what_is_found_while_a_backtest_runs_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the reading of the bars and the decision on them lie minutes: the decision asks again."""
    snapshot = world.pull()
    judge_series(world.lab, snapshot.snapshot_id)
    create_bot(world.lab, NewBot("running", "MES", "ma_cross", {}, 2_500_000, symbol="MES.c.0"))

    def meanwhile(*arguments: object) -> object:
        found = Comparison("backup", "FAIL", (REASON,), {})
        more = {"other": {}, "policy_hash": POLICY.hash, "request_ids": [], "simulated": True, "trace_id": "b" * 32}
        record_reconciliation(world.lab.store, snapshot, found, **more)  # type: ignore[arg-type]
        return diagnose(*arguments)  # type: ignore[arg-type]

    def proof() -> tuple[bool, ReasonCode | None]:
        [outcome] = run_cohort(world.lab, ["running"])
        [gate] = [gate for gate in outcome.judgement.verdict.gates if gate.name == "proof"]
        return gate.passed, None if gate.reason is None else gate.reason.code

    assert proof() == (True, None)
    monkeypatch.setattr("blaid_pipelines.lab.cycle.diagnose", meanwhile)
    assert proof() == (False, ReasonCode.RECONCILIATION_FAILED)


def test_the_command(world: World, tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(blaid, ["reconcile", *arguments], standalone_mode=False)
        code = result.exit_code if result.exception is None else getattr(result.exception, "exit_code", -1)
        return result.return_value if isinstance(result.return_value, int) else code, result.stdout

    assert run("MES.c.0", "--with", "backup")[0] == 2  # no bars yet
    world.pull()
    code, text = run("MES.c.0", "--with", "backup", "--json")
    document = json.loads(text)
    assert (code, document["success"], document["status"]) == (0, True, "PASS")
    assert len(document["request_ids"]) == 1
    assert document["trace_id"]
    code, text = run("MES.c.0", "--with", "backup")
    assert code == 0
    assert "2024-03-12" in text
    daily = load_bars(world.lab.store, world.lab.lake, world.pull(schema="ohlcv-1d"))
    path = write_csv(tmp_path / "daily.csv", changed(daily, 0, volume=1), contract_column=True)
    code, text = run("MES.c.0", "--daily", str(path), "--stamp", "open", "--tz", "UTC")
    assert code == 1
    assert "VOLUME_DIFFERS" in text
    assert "2024-03-12" in text
    assert run("MES.c.0", "--with", "overlap")[0] == 1
    assert run("MES.c.0", "--daily", str(path), "--with", "overlap")[0] == 2
    assert run("XX.c.0")[0] == 2
