"""Reading DBN: real files of versions 1 to 3, what is refused by name, and damage of every kind."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from blaid_pipelines.providers.databento.dbn import (
    MISSING_PRICE,
    DbnBars,
    SymbolInterval,
    read_dbn,
    read_definitions,
)
from blaid_pipelines.reasons import BlaidError, ReasonCode, StopAndFix
from blaid_pipelines.sandbox.encode import dbn_file
from blaid_pipelines.sandbox.synthetic import Defect, Recipe, synthesise

SMALL = Recipe("MES.c.0", date(2024, 3, 14), date(2024, 3, 16))


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["", ".v1", ".v2", ".v3"])
@pytest.mark.parametrize("schema", ["ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d"])
def test_every_version_gives_the_same_bars(name: str, schema: str, real_data: Path) -> None:
    suffix = ".dbn" if not name else f"{name}.dbn.zst"
    bars = read_dbn(real_data / "dbn_codec_tests" / f"test_data.{schema}{suffix}")
    reference = read_dbn(real_data / "dbn_codec_tests" / f"test_data.{schema}.v3.dbn.zst")
    assert (bars.dataset, bars.schema, bars.symbols) == ("GLBX.MDP3", schema, ("ESH1",))
    assert (bars.start, bars.end) == (reference.start, reference.end)
    assert bars.contracts == (() if schema == "ohlcv-1d" else ("ESH1",))
    assert not bars.simulated
    for column in ("ts_open", "open", "high", "low", "close", "volume", "instrument_id"):
        np.testing.assert_array_equal(getattr(bars, column), getattr(reference, column))


@pytest.mark.real_data
def test_true_prices_of_a_real_file(real_data: Path) -> None:
    bars = read_dbn(real_data / "dbn_client_tests" / "GLBX.MDP3" / "test_data.ohlcv-1m.dbn.zst")
    assert bars.open.tolist() == [3_702_750_000_000, 3_704_750_000_000, 3_704_250_000_000, 3_704_500_000_000]
    assert bars.close.tolist() == [3_704_750_000_000, 3_704_000_000_000, 3_704_500_000_000, 3_703_000_000_000]
    assert bars.volume.tolist() == [306, 214, 192, 158]
    assert bars.ts_open.tolist() == [1_609_113_600_000_000_000 + 60_000_000_000 * n for n in range(4)]
    assert bars.contract.tolist() == ["ESH1"] * 4


@pytest.mark.real_data
def test_the_definition_of_es(real_data: Path) -> None:
    (first, *_) = read_definitions(real_data / "dbn_client_tests" / "GLBX.MDP3" / "test_data.definition.dbn.zst")
    assert (first.raw_symbol, first.asset, first.exchange, first.instrument_class) == ("ESH1", "ES", "XCME", "F")
    assert (first.min_price_increment, first.unit_of_measure_qty) == (250_000_000, 50_000_000_000)


@pytest.mark.real_data
@pytest.mark.parametrize("pattern", ["dbn_codec_tests/*.dbz", "dbn_codec_tests/*.frag*", "dbn_client_tests/LIVE/*"])
def test_what_is_not_whole_dbn_of_bars_is_refused_by_name(pattern: str, real_data: Path) -> None:
    paths = sorted(real_data.glob(pattern))
    assert paths
    for path in paths:
        with pytest.raises(StopAndFix) as caught:
            read_dbn(path)
        assert caught.value.reason.code is ReasonCode.FORMAT_UNSUPPORTED
        assert path.name in caught.value.reason.message


@pytest.mark.real_data
def test_other_schemas_are_refused(real_data: Path) -> None:
    paths = [p for p in real_data.glob("dbn_client_tests/GLBX.MDP3/*.zst") if "ohlcv" not in p.name]
    assert paths
    for path in paths:
        with pytest.raises(StopAndFix) as caught:
            read_dbn(path)
        assert caught.value.reason.code is ReasonCode.FORMAT_UNSUPPORTED


def written(*, compress: bool = False) -> bytes:
    return dbn_file(synthesise(SMALL), stype_in="continuous", compress=compress)


@pytest.mark.parametrize("compress", [False, True])
def test_what_the_sandbox_writes_comes_back_and_says_that_it_is_simulated(compress: bool) -> None:
    series = synthesise(SMALL)
    bars = read_dbn(written(compress=compress))
    for column in ("ts_open", "open", "high", "low", "close", "volume", "instrument_id"):
        np.testing.assert_array_equal(getattr(bars, column), getattr(series, column))
    assert bars.simulated
    assert not read_dbn(dbn_file(series, stype_in="continuous", simulated=False)).simulated


def test_contracts_of_a_continuous_file_are_told_apart_and_named_by_a_map() -> None:
    bars = read_dbn(written())
    first, second = (lead.instrument_id for lead in synthesise(SMALL).leads)
    assert bars.contracts == (f"#{first}", f"#{second}")
    named = read_dbn(
        written(),
        {
            first: [SymbolInterval(date(2024, 3, 1), date(2024, 3, 15), "MESH4")],
            second: [SymbolInterval(date(2024, 3, 15), date(2024, 6, 21), "MESM4")],
        },
    )
    assert named.contracts == ("MESH4", "MESM4")
    assert (named.contract == "MESH4").sum() == (bars.instrument_id == first).sum()


def test_an_undefined_price_stays_visible() -> None:
    at = int(synthesise(SMALL).ts_open[7])
    series = synthesise(Recipe(SMALL.symbol, SMALL.start, SMALL.end, defects=(Defect("missing", at),)))
    bars = read_dbn(dbn_file(series, stype_in="continuous"))
    assert np.flatnonzero(bars.close == MISSING_PRICE).tolist() == [7]


def test_several_zstd_frames_are_one_file() -> None:
    raw = written()
    frames = b"".join(zstandard.ZstdCompressor().compress(part) for part in (raw[:5000], raw[5000:]))
    np.testing.assert_array_equal(read_dbn(frames).ts_open, read_dbn(raw).ts_open)


def test_a_missing_file_and_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "empty.dbn").touch()
    for name in ("none.dbn", "empty.dbn"):
        with pytest.raises(StopAndFix) as caught:
            read_dbn(tmp_path / name)
        assert caught.value.reason.code is ReasonCode.FILE_UNREADABLE


@pytest.mark.parametrize("version", [0, 4, 255])
def test_a_version_from_the_future_is_refused(version: int) -> None:
    raw = bytearray(written())
    raw[3] = version
    with pytest.raises(StopAndFix) as caught:
        read_dbn(bytes(raw))
    assert caught.value.reason.code is ReasonCode.FORMAT_UNSUPPORTED
    assert caught.value.reason.numbers["version"] == version


RAW, ZSTD = written(), written(compress=True)


def read_or_code(data: bytes) -> DbnBars | ReasonCode:
    try:
        return read_dbn(data)
    except StopAndFix as error:
        return error.reason.code


@given(cut=st.integers(min_value=0, max_value=len(ZSTD) - 1))
def test_a_cut_compressed_file_never_reads_as_a_shorter_one(cut: int) -> None:
    with pytest.raises(StopAndFix) as caught:
        read_dbn(ZSTD[:cut])
    assert caught.value.reason.code is ReasonCode.FILE_UNREADABLE


@given(cut=st.integers(min_value=0, max_value=len(RAW) - 1))
def test_a_cut_raw_file_reads_as_whole_records_or_not_at_all(cut: int) -> None:
    bars = read_or_code(RAW[:cut])
    if isinstance(bars, DbnBars):
        assert (len(RAW) - cut) % 56 == 0
        np.testing.assert_array_equal(bars.ts_open, read_dbn(RAW).ts_open[: len(bars)])
    else:
        assert bars is ReasonCode.FILE_UNREADABLE


@given(junk=st.binary(max_size=400), prefix=st.sampled_from([b"", b"DBN", b"DBN\x03", b"\x28\xb5\x2f\xfd"]))
def test_junk_is_a_typed_refusal(junk: bytes, prefix: bytes) -> None:
    with pytest.raises(BlaidError) as caught:
        read_dbn(prefix + junk)
    assert caught.value.reason.code in {ReasonCode.FILE_UNREADABLE, ReasonCode.FORMAT_UNSUPPORTED}


@given(at=st.integers(min_value=8, max_value=400), value=st.integers(min_value=0, max_value=255))
def test_a_flipped_byte_in_the_metadata_is_a_typed_refusal_or_reads(at: int, value: int) -> None:
    raw = bytearray(RAW)
    raw[at] = value
    read = read_or_code(bytes(raw))
    assert isinstance(read, DbnBars) or read in {ReasonCode.FILE_UNREADABLE, ReasonCode.FORMAT_UNSUPPORTED}
