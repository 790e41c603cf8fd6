"""Every real DBN file beside the checkout: its values as Databento's own reader has them, or why it is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import databento
import numpy as np
import pytest

from blaid_pipelines.market.intake.files import read_file
from blaid_pipelines.market.intake.reading import Ask
from blaid_pipelines.providers.databento.dbn import (
    UNDEFINED_DBN_PRICE,
    UNDEFINED_DBN_TIMESTAMP,
    read_dbn,
    read_definitions,
    read_statistics,
    read_trades,
)
from blaid_pipelines.reasons import BlaidError, ReasonCode, StopAndFix

pytestmark = pytest.mark.real_data

FOLDERS = ("dbn_client_tests", "dbn_codec_tests")


def files() -> list[str]:
    root = os.environ.get("BLAID_REAL_DATA", "").strip()
    found = [path for folder in FOLDERS for path in Path(root, folder).rglob("*") if root and ".db" in path.name]
    return sorted(str(path.relative_to(root)) for path in found) or ["no real data"]


EVERY_FILE = files()
READERS: dict[str, Callable[[Path], Any]] = {
    **dict.fromkeys(("ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d"), read_dbn),
    **dict.fromkeys(("trades", "tbbo"), read_trades),
    "definition": read_definitions,
    "statistics": read_statistics,
}
NOT_READ = ("mbo", "mbp-1", "mbp-10", "bbo-1s", "bbo-1m", "cbbo-1s", "cmbp-1", "imbalance", "status", "live")


def held(name: str) -> str | None:
    """The schema that a file's name says; None for old formats and fragments."""
    base = Path(name).name
    if ".dbz" in base or ".frag" in base:
        return None
    return base.removeprefix("test_data.").split(".")[0]


def test_all_files_are_there(real_data: Path) -> None:
    schemas = [held(name) for name in EVERY_FILE]
    assert (len(EVERY_FILE), schemas.count(None)) == (120, 17)
    assert {schema for schema in schemas if schema} == READERS.keys() | set(NOT_READ)


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_file_gives_what_databento_reads_in_it_or_is_refused_by_name(name: str, real_data: Path) -> None:
    path, schema = real_data / name, held(name)
    reader = READERS.get(schema or "")
    for other in {read_dbn, read_trades, read_definitions, read_statistics} - {reader}:
        with pytest.raises(StopAndFix) as caught:
            other(path)
        assert caught.value.reason.code is ReasonCode.FORMAT_UNSUPPORTED
        assert path.name in caught.value.reason.message
    if reader is not None:
        compare(reader(path), databento.DBNStore.from_file(path))


def compare(found: Any, oracle: databento.DBNStore) -> None:
    records = list(oracle)
    if isinstance(found, list):
        assert len(found) == len(records) > 0
        for ours, theirs in zip(found, records, strict=True):
            assert (ours.instrument_id, ours.ts_event) == (theirs.instrument_id, theirs.ts_event)
            if hasattr(ours, "kind"):
                assert (ours.kind, ours.quantity) == (int(theirs.stat_type), quantity(theirs))
                assert (ours.ts_ref or UNDEFINED_DBN_TIMESTAMP) == theirs.ts_ref
            else:
                assert (ours.raw_symbol, ours.asset, ours.exchange) == (
                    theirs.raw_symbol,
                    theirs.asset,
                    theirs.exchange,
                )
                assert (ours.min_price_increment or UNDEFINED_DBN_PRICE) == theirs.min_price_increment
                assert (ours.expiration or UNDEFINED_DBN_TIMESTAMP) == theirs.expiration
        return
    array = oracle.to_ndarray()
    columns = (
        {name: name for name in ("open", "high", "low", "close", "volume", "instrument_id")} | {"ts_open": "ts_event"}
        if hasattr(found, "ts_open")
        else {name: name for name in ("price", "size", "instrument_id", "ts_recv")}
    )
    for ours, theirs in columns.items():
        np.testing.assert_array_equal(getattr(found, ours), array[theirs].ravel().astype(np.int64))
    assert found.dataset == oracle.dataset
    assert set(found.contracts) == (set(oracle.symbols) if len(array) else set())


def quantity(record: Any) -> int | None:
    return None if record.quantity in (2**31 - 1, 2**63 - 1) else int(record.quantity)


def outcome(path: Path, ask: Ask) -> ReasonCode | int:
    try:
        return len(read_file(path, ask).bars)
    except BlaidError as error:
        reason = error.reason
    assert path.name in reason.message
    assert reason.suggested_fix
    return reason.code


@pytest.mark.parametrize("name", EVERY_FILE)
def test_what_an_ingest_makes_of_a_file(name: str, real_data: Path) -> None:
    path, schema = real_data / name, held(name)
    as_bars = outcome(path, Ask("ESH1", schema if schema and schema.startswith("ohlcv") else "ohlcv-1m"))
    as_trades = outcome(path, Ask("ESH1", content="trades"))
    if schema in {"ohlcv-1m", "ohlcv-1h", "ohlcv-1d"}:
        assert isinstance(as_bars, int)
        assert as_trades is ReasonCode.INVALID_REQUEST
    elif schema in {"trades", "tbbo"}:
        assert as_bars is ReasonCode.INVALID_REQUEST
        assert as_trades in {2, 4}
    elif schema == "ohlcv-1s":
        assert as_bars is as_trades is ReasonCode.INVALID_REQUEST
        assert outcome(path, Ask("ESH1", content="ohlcv-1s")) in {2, 4}
    else:
        assert as_bars is as_trades is ReasonCode.FORMAT_UNSUPPORTED
