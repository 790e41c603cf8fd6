"""Proof bound to the data: one true chain from snapshot to requests passes, each forged link is a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from blaid_pipelines.ids import new_id
from blaid_pipelines.market.bars import Bars, from_ns, to_ns
from blaid_pipelines.market.intake.ingest import IngestRequest, ingest
from blaid_pipelines.market.lake.files import write_segment
from blaid_pipelines.market.lake.provenance import check_snapshot_proof
from blaid_pipelines.market.lake.snapshots import FilePart, Series, create_snapshot, load_bars
from blaid_pipelines.proof.recorder import CallContext
from blaid_pipelines.reasons import BlaidError, ReasonCode
from blaid_pipelines.sandbox.gateway import Fault
from blaid_pipelines.sandbox.synthetic import synthesise
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import LakeSegment, ProviderRequest, Snapshot
from tests.market.helpers import clean_bars, write_csv
from tests.market.test_ingest import SHORT
from tests.market.test_pull import World, day
from tests.sandbox.fixtures import SMALL, StartGateway

MISMATCH, UNKNOWN = ReasonCode.PROOF_MISMATCH, ReasonCode.PROOF_UNKNOWN
BARS = clean_bars(*SHORT)


@pytest.fixture
def world(gateway: StartGateway, store: Store) -> World:
    return World(gateway(series=[synthesise(SMALL), synthesise(replace(SMALL, symbol="MNQ.c.0"))]), store)


def found(store: Store, snapshot: Snapshot) -> list[ReasonCode]:
    reasons = check_snapshot_proof(store, snapshot)
    assert all(reason.suggested_fix and reason.numbers for reason in reasons)
    return list(dict.fromkeys(reason.code for reason in reasons))


def forge(world: World, like: Snapshot, **changes: Any) -> Snapshot:
    """A snapshot as another one is, with changes, under an id that fits them."""
    values: dict[str, Any] = {
        "series": Series(like.dataset, like.schema, like.symbol, like.instrument),
        "start_ns": to_ns(like.range_start),
        "end_ns": to_ns(like.range_end),
        "parts": [FilePart(**entry) for entry in like.files],
        "provenance": like.provenance,
        "simulated": like.simulated,
    }
    lake = world.gateway.settings.lake
    return create_snapshot(world.store, lake, **(values | changes), trace_id="f" * 32)


def test_what_was_pulled_in_one_go_in_parts_and_as_a_part_is_proven(world: World) -> None:
    inner = world.pull(day(12), day(13)).snapshot
    other = world.pull(day(15), day(16)).snapshot
    whole = world.pull(day(11), day(19)).snapshot
    part = world.pull(day(12, 6), day(15, 6)).snapshot
    for snapshot in (inner, other, whole, part):
        assert check_snapshot_proof(world.store, snapshot) == []


def test_what_was_ingested_is_proven(store: Store, settings: Settings, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", BARS)
    for _ in range(2):
        taken = ingest(store, settings, CallContext("c" * 32), IngestRequest([path], "MESH4", "open", "UTC"))
        assert check_snapshot_proof(store, taken.snapshot) == []


def other_symbol(world: World, like: Snapshot) -> Snapshot:
    foreign = world.pull(day(11), day(12), "MNQ.c.0").snapshot.provenance["request_ids"]
    return forge(world, like, provenance=like.provenance | {"request_ids": foreign})


def one_more_request(world: World, like: Snapshot) -> Snapshot:
    more = world.pull(day(13), day(14)).snapshot.provenance["request_ids"]
    return forge(world, like, provenance=like.provenance | {"request_ids": like.provenance["request_ids"] + more})


def only_a_quote(world: World, like: Snapshot) -> Snapshot:
    with world.store.session() as session:
        quote = session.scalar(select(ProviderRequest.id).where(ProviderRequest.endpoint == "metadata.get_cost"))
    return forge(world, like, provenance=like.provenance | {"request_ids": [str(quote)]})


def a_failed_request(world: World, like: Snapshot) -> Snapshot:
    world.gateway.add_faults(Fault("timeseries.get_range", status=402))
    with pytest.raises(BlaidError):
        world.pull(day(14), day(15))
    with world.store.session() as session:
        failed = session.scalar(select(ProviderRequest.id).where(ProviderRequest.success.is_(False)))
    ids = [*like.provenance["request_ids"], str(failed)]
    return forge(world, like, provenance=like.provenance | {"request_ids": ids})


def a_request_left_out(world: World, like: Snapshot) -> Snapshot:
    return forge(world, like, provenance=like.provenance | {"request_ids": like.provenance["request_ids"][:-1]})


def no_id(world: World, like: Snapshot) -> Snapshot:
    return forge(world, like, provenance=like.provenance | {"request_ids": ["?"]})


def no_request(world: World, like: Snapshot) -> Snapshot:
    return forge(world, like, provenance=like.provenance | {"request_ids": []})


def another_source(world: World, like: Snapshot) -> Snapshot:
    return forge(world, like, provenance=like.provenance | {"source": "hearsay"})


def another_gateway(world: World, like: Snapshot) -> Snapshot:
    return forge(world, like, provenance=like.provenance | {"source_key": "databento:https://elsewhere"})


def a_wider_range(world: World, like: Snapshot) -> Snapshot:
    return forge(world, like, end_ns=to_ns(day(13)))


def beyond_the_segment(world: World, like: Snapshot) -> Snapshot:
    end = to_ns(day(13))
    return forge(world, like, end_ns=end, parts=[FilePart(**(like.files[0] | {"end_ns": end}))])


def not_simulated(world: World, like: Snapshot) -> Snapshot:
    return forge(world, like, simulated=False)


def own_bars(world: World, like: Snapshot, recorded: bool = True) -> Snapshot:
    """Bars from nowhere under the true calls' name, with or without a segment row."""
    span = to_ns(like.range_start), to_ns(like.range_end)
    bars = clean_bars(like.range_start, like.range_end)
    lake = world.gateway.settings.lake
    [file] = write_segment(lake, like.dataset, like.schema, like.symbol, bars, *span, like.provenance)
    if recorded:
        with world.store.session() as session:
            session.add(
                LakeSegment(
                    dataset=like.dataset,
                    schema=like.schema,
                    symbol=like.symbol,
                    source_key=like.provenance["source_key"],
                    range_start=from_ns(file.start_ns),
                    range_end=from_ns(file.end_ns),
                    path=file.path,
                    file_sha256=file.sha256,
                    bar_count=file.bar_count,
                    provenance=like.provenance,
                    simulated=True,
                )
            )
    return forge(world, like, parts=[FilePart(file.path, file.sha256, *span)])


def bars_without_a_segment(world: World, like: Snapshot) -> Snapshot:
    return own_bars(world, like, recorded=False)


def another_id(world: World, like: Snapshot) -> Snapshot:
    columns = {column.name: getattr(like, column.name) for column in Snapshot.__table__.columns}
    made_up = columns | {"snapshot_id": "0" * 64}
    with world.store.session() as session:
        session.execute(insert(Snapshot).values(made_up))
    return Snapshot(**made_up)


FORGERIES: dict[Callable[[World, Snapshot], Snapshot], list[ReasonCode]] = {
    other_symbol: [MISMATCH],
    one_more_request: [MISMATCH],
    only_a_quote: [MISMATCH],
    a_failed_request: [MISMATCH],
    a_request_left_out: [MISMATCH],
    no_id: [MISMATCH],
    no_request: [UNKNOWN],
    another_source: [UNKNOWN],
    another_gateway: [MISMATCH],
    a_wider_range: [MISMATCH],
    beyond_the_segment: [MISMATCH],
    not_simulated: [MISMATCH],
    own_bars: [MISMATCH],
    bars_without_a_segment: [MISMATCH],
    another_id: [MISMATCH],
}


def test_each_forged_link_is_a_reason(world: World) -> None:
    true = world.pull(day(11), day(12)).snapshot
    for forgery, codes in FORGERIES.items():
        if forgery is not own_bars:
            assert found(world.store, forgery(world, true)) == codes, forgery.__name__
    assert check_snapshot_proof(world.store, true) == []
    assert found(world.store, own_bars(world, true)) == [MISMATCH]


def test_what_the_caller_holds_is_not_trusted(world: World) -> None:
    forged = no_request(world, world.pull(day(11), day(12)).snapshot)
    forged.provenance = {"source": "file", "source_key": "file", "files": [{"name": "a", "sha256": "0" * 64}]}
    assert found(world.store, forged) == [UNKNOWN]


FILE_FORGERIES: dict[str, tuple[dict[str, Any], ReasonCode]] = {
    "no files": ({"files": []}, UNKNOWN),
    "files that are none": ({"files": "bars.csv"}, UNKNOWN),
    "no hash": ({"files": [{"name": "bars.csv"}]}, UNKNOWN),
    "a short hash": ({"files": [{"name": "bars.csv", "sha256": "abc"}]}, UNKNOWN),
    "no name": ({"files": [{"name": "", "sha256": "0" * 64}]}, UNKNOWN),
    "other files": ({"files": [{"name": "bars.csv", "sha256": "0" * 64}]}, MISMATCH),
    "calls": ({"request_ids": [str(new_id())]}, MISMATCH),
}


def test_files_need_name_hash_and_segments_of_their_own(gateway: StartGateway, store: Store, tmp_path: Path) -> None:
    world = World(gateway(), store)
    settings = world.gateway.settings
    path = write_csv(tmp_path / "bars.csv", BARS)
    true = ingest(store, settings, CallContext("c" * 32), IngestRequest([path], "MESH4", "open", "UTC")).snapshot
    for name, (change, code) in FILE_FORGERIES.items():
        assert code in found(store, forge(world, true, provenance=true.provenance | change)), name
    loaded: Bars = load_bars(store, settings.lake, true)
    assert loaded.content_hash() == BARS.content_hash()
    assert check_snapshot_proof(store, true) == []
