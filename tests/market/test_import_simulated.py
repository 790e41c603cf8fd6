"""Simulated bars are known again however they come back, and real ones are never taken for them."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from sqlalchemy import select

from blaid_pipelines.market.bars import PRICES, Bars, bars_of_dbn
from blaid_pipelines.market.intake.files import read_file
from blaid_pipelines.market.intake.ingest import IngestRequest, ingest
from blaid_pipelines.market.intake.reading import Ask
from blaid_pipelines.market.lake.segments import ENOUGH_SAMPLES, SAMPLED, bar_samples, known_as_simulated
from blaid_pipelines.market.lake.snapshots import load_bars
from blaid_pipelines.market.purchase.pull import PullRequest, pull
from blaid_pipelines.proof.recorder import CallContext, Recorder, wire_log_path
from blaid_pipelines.providers.databento.dbn import read_dbn
from blaid_pipelines.sandbox.encode import dbn_file
from blaid_pipelines.sandbox.synthetic import Recipe, synthesise
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import LakeSegment
from tests.market.helpers import EURO_CSV, changed, clean_bars
from tests.market.test_pull import PLENTY
from tests.sandbox.fixtures import StartGateway

CONTEXT = CallContext(trace_id="c" * 32, stage="LAB")


def laundered(path: Path, bars: Bars, zone: str, *, keep: int, seed: int = 3) -> Path:
    """Every ``keep``-th bar, shuffled, without marks or contracts' history, in a zone of its own, stamped at close."""
    chance = random.Random(seed)
    rows = list(range(0, len(bars), keep))
    chance.shuffle(rows)
    lines = ["time,volume,close,low,high,open,contract"]
    for row in rows:
        moment = datetime.fromtimestamp(int(bars.ts_open[row]) // 10**9, UTC) + timedelta(minutes=1)
        prices = [str(Decimal(int(getattr(bars, name)[row])).scaleb(-9).normalize()) for name in reversed(PRICES)]
        local = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None).isoformat(" ")
        lines.append(",".join([local, str(int(bars.volume[row])), *prices, bars.contracts[bars.contract[row]]]))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_simulated_bars_are_known_by_a_few_of_them(gateway: StartGateway, store: Store, tmp_path: Path) -> None:
    settings: Settings = gateway().settings
    request = PullRequest("MES.c.0", datetime(2024, 3, 12, tzinfo=UTC), datetime(2024, 3, 16, tzinfo=UTC))
    recorder = Recorder(store, wire_log_path(settings))
    bars = load_bars(store, settings.lake, pull(store, settings, recorder, PLENTY, CONTEXT, request).snapshot)
    with store.session() as session:
        segments = session.scalars(select(LakeSegment)).all()
        kept = [sample for each in segments for sample in each.provenance["bar_samples"]]
        assert sorted(kept) == bar_samples(bars)
    for zone, keep in (("Asia/Tokyo", 2), ("America/Chicago", 7)):
        path = laundered(tmp_path / f"every{keep}.csv", bars, zone, keep=keep)
        asked = IngestRequest([path], "MES.c.0", "close", zone)
        assert ingest(store, settings, CONTEXT, asked).snapshot.simulated, keep
    honest = laundered(tmp_path / "honest.csv", clean_bars(request.start, request.end), "Asia/Tokyo", keep=2)
    asked = IngestRequest([honest], "MES.c.0", "close", "Asia/Tokyo")
    assert not ingest(store, settings, CONTEXT, asked).snapshot.simulated
    with store.session() as session:
        # under another contract's name, and hidden among as many honest bars
        renamed = Bars(*(getattr(bars, name) for name in ("ts_open", *PRICES, "volume", "contract")), ("ESH4", "ESM4"))
        half = renamed.take(slice(0, len(renamed) // 2))
        later = clean_bars(datetime(2024, 3, 17, 22, tzinfo=UTC), datetime(2024, 3, 20, tzinfo=UTC))
        assert known_as_simulated(session, Bars.concat([half, later]), [])
        # what it does not catch, as it says: every volume changed by a lot
        assert not known_as_simulated(session, changed(bars, slice(None), volume=3), [])


def test_the_sample_is_of_the_bars_alone() -> None:
    bars = clean_bars()
    sample = bar_samples(bars)
    assert 0.5 < len(sample) * SAMPLED / len(bars) < 1.5
    order = np.random.default_rng(1).permutation(len(bars))
    assert bar_samples(bars.take(order)) == sample
    half = bar_samples(bars.take(slice(0, None, 2)))
    assert set(half) <= set(sample)
    assert len(half) > ENOUGH_SAMPLES
    flat = changed(bars, slice(None), open=5000 * 10**9, high=5000 * 10**9, low=5000 * 10**9, close=5000 * 10**9)
    assert bar_samples(flat) == [], "bars without a range say too little"


@pytest.mark.real_data
def test_real_bars_are_not_taken_for_simulated_ones(real_data: Path) -> None:
    """Against simulated bars of the same product and month, not one bar of the sample in common."""
    real = read_file(real_data / EURO_CSV, Ask("6EH4", stamp="close", tz="UTC")).bars
    sample = set(bar_samples(real))
    assert len(sample) > 500
    made = synthesise(Recipe("6E.c.0", date(2024, 1, 2), date(2024, 2, 1)))
    simulated = bars_of_dbn(read_dbn(dbn_file(made, stype_in="continuous")))
    assert len(bar_samples(simulated)) > 500
    assert not sample & set(bar_samples(simulated))
