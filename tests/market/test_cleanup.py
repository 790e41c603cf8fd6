"""Cleaning the lake: what something rests on stays, what goes is on record first, a stop at any point is safe."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from blaid_pipelines.ids import new_id
from blaid_pipelines.market.lake import cleanup
from blaid_pipelines.market.lake.cleanup import clean_lake, lake_report
from blaid_pipelines.market.lake.files import write_segment
from blaid_pipelines.market.lake.identity import adopt_lake, check_lake
from blaid_pipelines.market.lake.segments import record_segments
from blaid_pipelines.market.lake.snapshots import FilePart, Series, create_snapshot, load_bars
from blaid_pipelines.market.locks import LAKE, exclusive
from blaid_pipelines.reasons import ReasonCode, Refused
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import (
    BacktestSession,
    EnvironmentStamp,
    LakeRemoval,
    PromotionDecision,
    QualityVerdict,
    Reconciliation,
    Snapshot,
)
from tests.market.helpers import clean_bars
from tests.market.test_pull import World, day
from tests.market.test_snapshots import CLEAN, SPAN
from tests.policy.rows import add_bot
from tests.sandbox.fixtures import StartGateway

LATER = datetime.now(UTC) + timedelta(days=3)
TRACE = "c" * 32


def taken(store: Store, lake: Path, note: str, source: str = "file", symbol: str = "MES.c.0") -> Snapshot:
    """A snapshot of one file of its own; it becomes the head of its series."""
    provenance = {"source": source, "source_key": source, "request_ids": [], "note": note}
    bars = CLEAN if note == "same" else clean_bars(seed=len(note) + ord(note[0]))
    series = Series("FILE", "ohlcv-1m", symbol, "MES")
    files = write_segment(lake, series.dataset, series.schema, symbol, bars, *SPAN, provenance)
    with store.session() as session:
        record_segments(session, series, source, files, bars, provenance, False)
    parts = [FilePart(file.path, file.sha256, file.start_ns, file.end_ns) for file in files]
    return create_snapshot(store, lake, series, *SPAN, parts, provenance, False, TRACE)


def paths(snapshot: Snapshot) -> set[str]:
    return {entry["path"] for entry in snapshot.files}


def on_disk(lake: Path) -> set[str]:
    return {path.relative_to(lake).as_posix() for path in (lake / "bars").rglob("*.parquet")}


def a_decision(store: Store, snapshot: Snapshot) -> None:
    a_session(store, snapshot, decision=True)


def a_session(store: Store, snapshot: Snapshot, decision: bool = False) -> None:
    bot_id = add_bot(store, f"bot-{new_id()}")
    with store.session() as session:
        row = BacktestSession(
            id=new_id(),
            bot_id=bot_id,
            trace_id=TRACE,
            status="REFUSED",
            reason={"code": "NOT_ENOUGH_BARS"},
            instrument="MES",
            snapshot_id=None if decision else snapshot.snapshot_id,
            request_ids=[],
            strategy_family="ma_cross",
            strategy_hash="s",
            params={},
            params_hash="p",
            engine_version="1",
            policy_hash="p",
            spec={},
            capital_cents=1,
        )
        session.add(row)
        session.flush()
        if decision:
            session.add(
                PromotionDecision(
                    bot_id=bot_id,
                    session_id=row.id,
                    trace_id=TRACE,
                    from_stage="LAB",
                    to_stage="PAPER",
                    decision="REFUSE",
                    gate_set="gates-v1",
                    gates=[],
                    failing_gates=[],
                    snapshot_id=snapshot.snapshot_id,
                    strategy_hash="s",
                    policy_hash="p",
                    request_ids=[],
                    decision_hash="h",
                )
            )


def a_reconciliation(store: Store, snapshot: Snapshot, other: dict[str, Any] | None = None) -> None:
    about = taken_before(store) if other else snapshot.snapshot_id
    with store.session() as session:
        session.add(
            Reconciliation(
                snapshot_id=about,
                content_hash="h",
                kind="overlap",
                other=other or {"source": "file"},
                status="FAIL",
                policy_hash="p",
                numbers={},
                reasons=[],
                request_ids=[],
                simulated=False,
                trace_id=TRACE,
            )
        )


def a_copy_of_a_reconciliation(store: Store, snapshot: Snapshot) -> None:
    copies = [{"path": path, "sha256": "s", "source_key": "file"} for path in sorted(paths(snapshot))]
    a_reconciliation(store, snapshot, {"source": "lake", "copies": copies})


def taken_before(store: Store) -> str:
    with store.session() as session:
        return str(session.scalars(select(Snapshot.snapshot_id).order_by(Snapshot.created_at.desc())).first())


def the_other_of_a_reconciliation(store: Store, snapshot: Snapshot) -> None:
    a_reconciliation(store, snapshot, {"with": [{"id": snapshot.snapshot_id}]})


CITING: list[Callable[[Store, Snapshot], None]] = [
    a_decision,
    a_session,
    a_reconciliation,
    the_other_of_a_reconciliation,
    a_copy_of_a_reconciliation,
]


def test_what_something_rests_on_stays_and_the_rest_goes(store: Store, settings: Settings) -> None:
    lake = settings.lake
    named = [taken(store, lake, f"{number}") for number in range(len(CITING))]
    judged = taken(store, lake, "judged")
    with store.session() as session:
        verdict = {"status": "FAIL", "policy_hash": "p", "suite_version": "s", "checks": [], "reasons": []}
        about = {"snapshot_id": judged.snapshot_id, "content_hash": judged.content_hash, "trace_id": TRACE}
        session.add(QualityVerdict(**verdict, **about))
    forgotten = taken(store, lake, "forgotten")
    head = taken(store, lake, "head")
    other = taken(store, lake, "other series", symbol="MES.v.0")
    for cite, snapshot in zip(CITING, named, strict=True):
        cite(store, snapshot)
    stays = set().union(*(paths(snapshot) for snapshot in (*named, judged, head, other)))
    report = lake_report(store, lake, LATER)
    assert {file.path for file in report.removable} == paths(forgotten)
    assert clean_lake(store, lake, TRACE, datetime.now(UTC)).removed == [], "all are younger than a day"
    result = clean_lake(store, lake, TRACE, LATER)
    assert ({file.path for file in result.removed}, result.kept) == (paths(forgotten), [])
    assert result.bytes_removed > 0
    assert on_disk(lake) == stays
    for snapshot in (*named, judged, head, other):
        assert load_bars(store, lake, snapshot).content_hash() == snapshot.content_hash
    with store.session() as session:
        [row] = session.scalars(select(LakeRemoval))
    assert (row.path, row.file_bytes, row.why, row.trace_id) == (
        *paths(forgotten),
        result.bytes_removed,
        cleanup.SUPERSEDED,
        TRACE,
    )
    with pytest.raises(Refused) as caught:
        load_bars(store, lake, forgotten)
    assert caught.value.reason.code is ReasonCode.SNAPSHOT_REMOVED
    assert caught.value.reason.numbers["removed"] == sorted(paths(forgotten))
    back = taken(store, lake, "forgotten")
    assert back.snapshot_id == forgotten.snapshot_id
    assert load_bars(store, lake, forgotten).content_hash() == forgotten.content_hash


def test_bars_that_were_paid_for_stay_unless_told(gateway: StartGateway, store: Store) -> None:
    world = World(gateway(), store)
    lake = world.gateway.settings.lake
    first = world.pull(day(11), day(12)).snapshot
    second = world.pull(day(14), day(15)).snapshot  # does not touch the first: the head is here now
    assert lake_report(store, lake, LATER).removable == []
    with_bought = lake_report(store, lake, LATER, bought=True)
    assert {file.path for file in with_bought.removable} == paths(first)
    clean_lake(store, lake, TRACE, LATER, bought=True)
    assert on_disk(lake) == paths(second)
    again = world.pull(day(11), day(12))
    assert again.bars_pulled == again.snapshot.bar_count == first.bar_count


def test_a_spoilt_file_goes_once_its_range_was_bought_again(gateway: StartGateway, store: Store) -> None:
    world = World(gateway(), store)
    lake = world.gateway.settings.lake
    [spoilt] = paths(world.pull(day(11), day(12)).snapshot)
    (lake / spoilt).write_bytes(b"rot")
    mended = world.pull(day(11), day(12)).snapshot
    assert {file.path for file in clean_lake(store, lake, TRACE, LATER).removed} == {spoilt}
    assert load_bars(store, lake, mended).content_hash() == mended.content_hash


def bought(store: Store, lake: Path, note: str) -> Snapshot:
    """A snapshot of bars that cost money, all of one range."""
    return taken(store, lake, note, source="databento")


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"rot")], ids=["missing", "spoilt"])
def test_the_last_good_copy_stays_where_the_cited_one_is_not_intact(
    store: Store, settings: Settings, spoil: Callable[[Path], object]
) -> None:
    good, head = bought(store, settings.lake, "good"), bought(store, settings.lake, "head")
    [path] = paths(good)
    assert {file.path for file in lake_report(store, settings.lake, LATER).removable} == {path}
    spoil(settings.lake / next(iter(paths(head))))
    report = lake_report(store, settings.lake, LATER)
    assert report.removable == []
    assert {file.path for file in report.files if file.kind == cleanup.BOUGHT} == {path}


def test_files_on_their_way_are_left_alone_until_they_are_old(store: Store, settings: Settings) -> None:
    lake = settings.lake
    head = taken(store, lake, "head")
    orphan = write_segment(lake, "FILE", "ohlcv-1m", "MES.c.0", CLEAN, *SPAN, {"never": "recorded"})[0].path
    half = (lake / orphan).with_name(f".{new_id()}.parquet.1.2.tmp")
    half.write_bytes(b"half")
    reply = lake / "incoming" / "x" / f"{new_id()}.dbn.zst"
    reply.parent.mkdir(parents=True)
    reply.write_bytes(b"of a request that failed")
    trades = lake / "trades" / "session.parquet"
    trades.parent.mkdir()
    trades.write_bytes(b"not bars")
    report = lake_report(store, lake, datetime.now(UTC))
    assert sorted(file.kind for file in report.files) == ["cited", "young", "young", "young"]
    kinds = {file.path: file.kind for file in clean_lake(store, lake, TRACE, LATER).removed}
    assert kinds == {
        orphan: "orphan",
        half.relative_to(lake).as_posix(): "leftover",
        reply.relative_to(lake).as_posix(): "leftover",
    }
    assert on_disk(lake) == paths(head)
    assert trades.exists()


def test_a_clean_up_killed_between_row_and_file_is_repeated(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(BaseException):
        pass

    def cut(*_: object) -> None:
        raise PowerCut

    lake = settings.lake
    gone, head = taken(store, lake, "gone"), taken(store, lake, "head")
    with monkeypatch.context() as patched:
        patched.setattr(cleanup, "_unlink", cut)
        with pytest.raises(PowerCut):
            clean_lake(store, lake, TRACE, LATER)
    assert load_bars(store, lake, gone).content_hash() == gone.content_hash, "on record as going, and still there"
    assert [file.path for file in clean_lake(store, lake, TRACE, LATER).removed] == list(paths(gone))
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(LakeRemoval)) == 1
    assert on_disk(lake) == paths(head)


def test_a_file_that_is_cited_or_written_meanwhile_stays(store: Store, settings: Settings) -> None:
    lake = settings.lake
    cited, touched = taken(store, lake, "cited"), taken(store, lake, "touched")
    taken(store, lake, "head")
    removable = lake_report(store, lake, LATER).removable
    a_session(store, cited)
    [path] = paths(touched)
    os.utime(lake / path)
    assert cleanup._announce(store, lake, removable, TRACE) == []


def test_nobody_cites_a_file_while_it_goes(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "_LOCK_WAIT_S", 1)
    taken(store, settings.lake, "head")
    with store.session() as session:
        session.execute(text("SELECT pg_advisory_xact_lock_shared(:number)"), {"number": LAKE})
        with pytest.raises(Refused) as caught:
            clean_lake(store, settings.lake, TRACE, LATER)
    assert caught.value.reason.code is ReasonCode.ALREADY_RUNNING
    with exclusive(store, LAKE), store.session() as session:
        session.execute(text("SET LOCAL lock_timeout = '200ms'"))
        with pytest.raises(Exception, match="lock timeout"):
            session.execute(text("SELECT pg_advisory_xact_lock_shared(:number)"), {"number": LAKE})


def test_a_snapshot_of_files_that_went_meanwhile_is_not_written(store: Store, settings: Settings) -> None:
    lake = settings.lake
    gone = taken(store, lake, "gone")
    taken(store, lake, "head")
    clean_lake(store, lake, TRACE, LATER)
    parts = [FilePart(**entry) for entry in gone.files]
    series = Series("FILE", "ohlcv-1m", "MES.c.0", "MES")
    with pytest.raises(Refused):
        create_snapshot(store, lake, series, *SPAN, parts, {"source_key": "x"}, False, TRACE, known={parts[0].path: []})


def test_a_database_and_a_lake_that_do_not_belong_together_are_refused(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    lake = settings.lake
    head = taken(store, lake, "head")
    check_lake(store, lake)
    (tmp_path / "empty").mkdir()
    strangers = tmp_path / "strangers"
    write_segment(strangers, "FILE", "ohlcv-1m", "MES.c.0", CLEAN, *SPAN, {})
    for other in (tmp_path / "empty", strangers):
        for refused in (lambda: check_lake(store, other), lambda: clean_lake(store, other, TRACE, LATER)):  # noqa: B023
            with pytest.raises(Refused) as caught:
                refused()
            assert caught.value.reason.code is ReasonCode.LAKE_MISMATCH
    assert on_disk(strangers)
    adopt_lake(store, strangers)
    with pytest.raises(Refused) as caught:
        clean_lake(store, strangers, TRACE, LATER)
    assert caught.value.reason.numbers["files_missing"] == 1, "adopted, but not where this database's bars are"
    with store.session() as session:
        session.execute(text("ALTER TABLE blaid.environment_stamp DISABLE TRIGGER ALL"))
        session.execute(update(EnvironmentStamp).values(installation_id=new_id()))
    for refused in (lambda: clean_lake(store, lake, TRACE, LATER), lambda: taken(store, lake, "another database's")):
        with pytest.raises(Refused) as caught:
            refused()
        assert caught.value.reason.code is ReasonCode.LAKE_MISMATCH
    adopt_lake(store, lake)
    assert load_bars(store, lake, head).content_hash() == head.content_hash
