"""Who may call whom: keys, worlds, symbols that do not resolve, ranges that are none."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from blaid_pipelines.ids import new_trace_id
from blaid_pipelines.proof.recorder import CallContext, Recorder, wire_log_path
from blaid_pipelines.proof.usage import proof_counts
from blaid_pipelines.providers.databento.client import DatabentoHistorical
from blaid_pipelines.providers.databento.symbols import stype_of
from blaid_pipelines.reasons import InvalidRequest, ReasonCode, Refused, StopAndFix
from blaid_pipelines.settings import Settings, load_settings
from blaid_pipelines.store.database import Store
from tests.providers.conftest import World

GLBX = "GLBX.MDP3"
START, END = datetime(2024, 3, 11, tzinfo=UTC), datetime(2024, 3, 20, tzinfo=UTC)


def build(settings: Settings, store: Store) -> DatabentoHistorical:
    return DatabentoHistorical(settings, Recorder(store, wire_log_path(settings)), CallContext(new_trace_id()))


def test_without_a_key_there_is_no_client_and_no_row(settings: Settings, store: Store) -> None:
    settings.sandbox_key_path.unlink()
    with pytest.raises(StopAndFix) as caught:
        build(settings, store)
    assert caught.value.reason.code is ReasonCode.INTEGRATION_KEY_MISSING
    assert proof_counts(store, settings).rows == 0


@pytest.mark.parametrize("env", ["production", "dev"])
def test_a_local_gateway_is_refused_outside_the_sandbox_world(env: str, settings: Settings, store: Store) -> None:
    other = load_settings(BLAID_ENV=env, BLAID_DATABENTO_URL="http://127.0.0.1:1", DATABENTO_API_KEY="db-" + "x" * 29)
    with pytest.raises(Refused) as caught:
        build(other, store)
    assert caught.value.reason.code is ReasonCode.SIMULATED_SOURCE_REFUSED
    official = load_settings(BLAID_ENV=env, DATABENTO_API_KEY="db-" + "x" * 29)
    build(official, store)  # makes no call


def test_a_sandbox_key_is_never_sent_to_the_real_service(settings: Settings, store: Store) -> None:
    real = load_settings(BLAID_DATABENTO_URL="https://hist.databento.com")
    with pytest.raises(StopAndFix) as caught:
        build(real, store)
    assert caught.value.reason.code is ReasonCode.INTEGRATION_KEY_MISSING


def test_a_wrong_key_is_refused_by_the_gateway(world: World) -> None:
    wrong = load_settings(**world.settings.model_dump(by_alias=True) | {"DATABENTO_API_KEY": "db-wrong"})
    with pytest.raises(StopAndFix) as caught:
        build(wrong, world.store).list_datasets()
    assert caught.value.reason.code is ReasonCode.AUTH_FAILED
    world.assert_all_counted(1)


@pytest.mark.parametrize(
    ("symbol", "form"),
    [
        ("MES.c.0", "continuous"),
        ("6E.v.1", "continuous"),
        ("ES.n.0", "continuous"),
        ("MES.FUT", "parent"),
        ("MESH4", "raw_symbol"),
        ("6EH4", "raw_symbol"),
        ("ESH1-ESM1", "raw_symbol"),
    ],
)
def test_the_form_of_a_symbol(symbol: str, form: str) -> None:
    assert stype_of(symbol) == form


@pytest.mark.parametrize("symbol", ["", "MESH4,MESM4", "ALL_SYMBOLS", "MES c\n0", "'; --"])
def test_what_is_no_symbol_is_never_sent(symbol: str, world: World) -> None:
    with pytest.raises(InvalidRequest):
        world.client().get_cost(GLBX, symbol, "ohlcv-1m", None, START, END)
    world.assert_all_counted(0)


@pytest.mark.parametrize(("start", "end"), [(END, START), (START, START), (datetime(2024, 3, 11), END)])  # noqa: DTZ001
def test_what_is_no_range_is_never_sent(start: datetime, end: datetime, world: World) -> None:
    with pytest.raises(InvalidRequest):
        world.client().get_bars(GLBX, "MES.c.0", "ohlcv-1m", start, end)
    world.assert_all_counted(0)


@pytest.mark.parametrize("symbol", ["XYZ.c.0", "MES.v.0", "MES.c.1", "NOSUCH", "XYZ.FUT"])
def test_a_symbol_that_is_not_there_bills_nothing(symbol: str, world: World) -> None:
    with pytest.raises(InvalidRequest) as caught:
        world.client().get_bars(GLBX, symbol, "ohlcv-1m", START, END)
    assert caught.value.reason.code is ReasonCode.SYMBOL_NOT_FOUND
    assert [row.endpoint for row in world.rows()] == ["symbology.resolve"]
    world.assert_all_counted(1)


def test_a_symbol_that_resolves_in_part_is_refused_before_anything_is_billed(world: World) -> None:
    with pytest.raises(InvalidRequest) as caught:
        world.client().get_bars(GLBX, "MESH4", "ohlcv-1m", START, END)
    assert caught.value.reason.code is ReasonCode.PARTIAL_RESOLUTION
    assert caught.value.reason.numbers["resolved"] == {"MESH4": [["2024-03-11", "2024-03-15"]]}
    (row,) = world.rows()
    assert (row.endpoint, row.http_status, row.success) == ("symbology.resolve", 206, False)
    world.assert_all_counted(1)


def test_contract_and_parent_symbols(world: World) -> None:
    databento = world.client()
    own, _ = databento.get_bars(GLBX, "MESH4", "ohlcv-1m", START, datetime(2024, 3, 15, tzinfo=UTC))
    assert own.contracts == ("MESH4",)
    family, _ = databento.get_bars(GLBX, "MES.FUT", "ohlcv-1h", START, END)
    assert family.contracts == ("MESH4", "MESM4")


def test_a_range_that_is_not_available_says_which_is(world: World) -> None:
    with pytest.raises(InvalidRequest) as caught:
        world.client().get_cost(GLBX, "MES.c.0", "ohlcv-1m", None, START, datetime(2024, 5, 1, tzinfo=UTC))
    assert caught.value.reason.code is ReasonCode.RANGE_UNAVAILABLE
    assert caught.value.reason.numbers["available_end"] == "2024-03-20T00:00:00.000000000Z"


def test_a_range_without_trades_gives_no_bars_and_no_error(world: World) -> None:
    saturday = datetime(2024, 3, 16, 1, tzinfo=UTC), datetime(2024, 3, 16, 9, tzinfo=UTC)
    bars, _ = world.client().get_bars(GLBX, "MES.c.0", "ohlcv-1m", *saturday)
    assert len(bars) == 0
    assert bars.contracts == ()
    assert world.rows()[-1].bar_count == 0
    assert world.rows()[-1].success


def test_resolving_an_unknown_dataset(world: World) -> None:
    with pytest.raises(InvalidRequest) as caught:
        world.client().resolve(
            "XNAS.ITCH", ["NVDA"], "raw_symbol", "instrument_id", date(2024, 3, 11), date(2024, 3, 12)
        )
    assert caught.value.reason.code is ReasonCode.NOT_FOUND
