"""A series has one name: whoever takes a symbol takes only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from blaid_pipelines.market.instruments import instrument_root
from blaid_pipelines.market.intake.ingest import IngestRequest, ingest
from blaid_pipelines.market.purchase.pull import PullRequest, pull
from blaid_pipelines.proof.recorder import CallContext, Recorder, wire_log_path
from blaid_pipelines.providers.databento.symbols import check_spelling
from blaid_pipelines.reasons import InvalidRequest
from blaid_pipelines.sandbox.files import BarsFile, load_series
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from tests.market.helpers import clean_bars, write_csv
from tests.market.test_ingest import SHORT
from tests.market.test_pull import PLENTY


@pytest.mark.parametrize(
    ("symbol", "written"),
    [
        ("MES.C.0", "MES.c.0"),
        ("mes.c.0", "MES.c.0"),
        ("MES.c.00", "MES.c.0"),
        ("MES.N.01", "MES.n.1"),
        ("MES.fut", "MES.FUT"),
        ("mesh4", "MESH4"),
        ("6eH4", "6EH4"),
    ],
)
def test_a_series_has_one_spelling(store: Store, settings: Settings, tmp_path: Path, symbol: str, written: str) -> None:
    path = write_csv(tmp_path / "bars.csv", clean_bars(*SHORT))
    start, end = SHORT
    recorder, context = Recorder(store, wire_log_path(settings)), CallContext("a" * 32)
    for ask in (
        lambda: instrument_root(symbol),
        lambda: pull(store, settings, recorder, PLENTY, context, PullRequest(symbol, start, end)),
        lambda: ingest(store, settings, context, IngestRequest([path], symbol, "open")),
        lambda: load_series(BarsFile(path, symbol)),
    ):
        with pytest.raises(InvalidRequest) as caught:
            ask()
        assert caught.value.reason.numbers["written"] == written
    assert check_spelling(written) == written
