"""Instruments: symbol forms, the seeded contracts, dated costs and margins, the cross-check with definitions."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import select, update

from blaid_pipelines.market.instruments import (
    costs_on,
    cross_check,
    get_instrument,
    instrument_root,
    list_instruments,
    margins_on,
)
from blaid_pipelines.market.sessions import load_sessions
from blaid_pipelines.providers.databento.dbn import Definition, read_definitions
from blaid_pipelines.reasons import InvalidRequest, ReasonCode, StopAndFix
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import Instrument, InstrumentCost, InstrumentMargin
from tests.market.helpers import MES

# symbol: tick size, point value, tick value in millionths of a dollar, MIC, calendar; as CME specifies them
CONTRACTS = {
    "ES": ("0.25", "50", 12_500_000, "XCME", "CME Globex Equity"),
    "MES": ("0.25", "5", 1_250_000, "XCME", "CME Globex Equity"),
    "NQ": ("0.25", "20", 5_000_000, "XCME", "CME Globex Equity"),
    "MNQ": ("0.25", "2", 500_000, "XCME", "CME Globex Equity"),
    "RTY": ("0.10", "50", 5_000_000, "XCME", "CME Globex Equity"),
    "M2K": ("0.10", "5", 500_000, "XCME", "CME Globex Equity"),
    "YM": ("1", "5", 5_000_000, "XCBT", "CME Globex Equity"),
    "MYM": ("1", "0.50", 500_000, "XCBT", "CME Globex Equity"),
    "CL": ("0.01", "1000", 10_000_000, "XNYM", "CMEGlobex_CL"),
    "MCL": ("0.01", "100", 1_000_000, "XNYM", "CMEGlobex_MCL"),
    "GC": ("0.10", "100", 10_000_000, "XCEC", "CMEGlobex_GC"),
    "MGC": ("0.10", "10", 1_000_000, "XCEC", "CMEGlobex_GC"),
    "SI": ("0.005", "5000", 25_000_000, "XCEC", "CMEGlobex_SI"),
    "6E": ("0.00005", "125000", 6_250_000, "XCME", "CMEGlobex_FX"),
    "M6E": ("0.0001", "12500", 1_250_000, "XCME", "CMEGlobex_FX"),
    "ZN": ("0.015625", "1000", 15_625_000, "XCBT", "CME Globex Interest Rate Products"),
    "ZB": ("0.03125", "1000", 31_250_000, "XCBT", "CME Globex Interest Rate Products"),
}


@pytest.mark.parametrize(
    ("symbol", "root"),
    [
        ("MES", "MES"),
        ("MES.c.0", "MES"),
        ("MES.v.1", "MES"),
        ("MES.FUT", "MES"),
        ("MESH4", "MES"),
        ("MESZ26", "MES"),
        ("6EH4", "6E"),
        ("M6EM4", "M6E"),
        ("M6E", "M6E"),
        ("6E", "6E"),
        ("M2KZ4", "M2K"),
        ("M2K", "M2K"),
        ("ZNH4", "ZN"),
        ("ESH1", "ES"),
    ],
)
def test_the_root_of_a_symbol(symbol: str, root: str) -> None:
    assert instrument_root(symbol) == root


@pytest.mark.parametrize("symbol", ["", "MESH4-MESM4", "MES.x.0", "MES.c", "mes", "ALL_SYMBOLS", "MES H4", "../MES"])
def test_what_is_no_symbol(symbol: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        instrument_root(symbol)
    assert caught.value.reason.code is ReasonCode.INSTRUMENT_UNKNOWN


def test_the_seeded_contracts_are_the_seventeen(store: Store) -> None:
    found = {
        spec.symbol: (str(spec.tick_size), spec.point_value, spec.tick_value_microusd, spec.mic, spec.session)
        for spec in list_instruments(store)
    }
    assert found.keys() == CONTRACTS.keys()
    for symbol, (tick, point, value, mic, calendar) in CONTRACTS.items():
        assert Decimal(found[symbol][0]) == Decimal(tick)
        assert found[symbol][1:] == (Decimal(point), value, mic, calendar)


def test_every_contract_has_a_calendar_costs_and_margins_that_say_what_they_rest_on(store: Store) -> None:
    for spec in list_instruments(store):
        assert len(load_sessions(spec.session, 1_704_844_800 * 10**9, 1_704_931_200 * 10**9)) >= 1
        assert spec.currency == "USD"
        assert 1 <= spec.min_qty <= spec.max_qty
        assert spec.price_low < spec.price_high
        costs = costs_on(store, spec.symbol, date(2024, 1, 2))
        assert costs.commission_per_side_microusd > 0
        assert costs.fees_per_side_microusd > 0
        assert costs.slippage_ticks >= 1
        assert "Assumption" in costs.source
        margins = margins_on(store, spec.symbol, date(2024, 1, 2))
        assert margins.initial_cents >= margins.maintenance_cents > 0
        assert "Assumption" in margins.source


def test_any_form_finds_the_instrument_and_an_unknown_root_says_what_is_known(store: Store) -> None:
    assert get_instrument(store, "6EH4").symbol == "6E"
    assert get_instrument(store, "6E").tick_nanos == 50_000
    with pytest.raises(InvalidRequest) as caught:
        get_instrument(store, "HOH4")
    assert caught.value.reason.code is ReasonCode.INSTRUMENT_UNKNOWN
    assert "MES" in caught.value.reason.suggested_fix


def test_an_instrument_that_is_switched_off_is_unknown(store: Store) -> None:
    with store.session() as session:
        session.execute(update(Instrument).where(Instrument.symbol == "ZB").values(is_active=False))
    with pytest.raises(InvalidRequest, match="switched off"):
        get_instrument(store, "ZB.c.0")
    assert "ZB" not in {spec.symbol for spec in list_instruments(store)}


def test_costs_and_margins_are_those_of_the_day(store: Store) -> None:
    with store.session() as session:
        session.add(
            InstrumentCost(
                symbol="MES",
                effective_from=date(2024, 3, 1),
                commission_per_side=Decimal("0.10"),
                fees_per_side=Decimal("0.35"),
                slippage_ticks=2,
                source="test",
            )
        )
        session.add(
            InstrumentMargin(
                symbol="MES",
                effective_from=date(2024, 3, 1),
                initial=Decimal("2000.50"),
                maintenance=Decimal(1800),
                source="test",
            )
        )
    assert costs_on(store, "MES.c.0", date(2024, 2, 29)).slippage_ticks == 1
    later = costs_on(store, "MESM4", date(2024, 3, 1))
    assert (later.commission_per_side_microusd, later.fees_per_side_microusd, later.slippage_ticks) == (
        100_000,
        350_000,
        2,
    )
    assert margins_on(store, "MES", date(2024, 3, 1)).initial_cents == 200_050
    assert margins_on(store, "MES", date(2024, 2, 29)).source != "test"


def test_a_day_without_a_cost_row_is_an_error_not_zero(store: Store) -> None:
    for lookup in (costs_on, margins_on):
        with pytest.raises(StopAndFix) as caught:
            lookup(store, "MES", date(2000, 1, 3))
        assert caught.value.reason.code is ReasonCode.EVIDENCE_MISSING


ES = replace(MES, symbol="ES", point_value=Decimal(50), tick_value_microusd=12_500_000)


def definition(**values: object) -> Definition:
    fields: dict[str, object] = {
        "ts_event": 0,
        "instrument_id": 1,
        "raw_symbol": "ESH1",
        "asset": "ES",
        "exchange": "XCME",
        "instrument_class": "F",
        "security_type": "FUT",
        "currency": "USD",
        "min_price_increment": 250_000_000,
        "unit_of_measure": "IPNT",
        "unit_of_measure_qty": 50_000_000_000,
        "min_trade_vol": 1,
        "max_trade_vol": 1000,
        "activation": None,
        "expiration": None,
    }
    return Definition(**{**fields, **values})  # type: ignore[arg-type]


def test_a_definition_that_agrees_has_no_differences(store: Store) -> None:
    assert cross_check(get_instrument(store, "ES"), definition()) == []
    assert cross_check(ES, definition()) == []
    note = definition(
        asset="ZN", exchange="XCBT", min_price_increment=15_625_000, unit_of_measure_qty=100_000_000_000_000
    )
    assert cross_check(get_instrument(store, "ZN"), note) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"min_price_increment": 500_000_000}, "tick_size"),
        ({"min_price_increment": None}, "tick_size"),
        ({"unit_of_measure_qty": 5_000_000_000}, "point_value"),
        ({"unit_of_measure_qty": None}, "point_value"),
        ({"currency": "EUR"}, "currency"),
        ({"exchange": "XCBT"}, "mic"),
        ({"asset": "MES"}, "asset"),
    ],
)
def test_each_difference_is_named(change: dict[str, object], field: str) -> None:
    [reason] = cross_check(ES, definition(**change))
    assert reason.code is ReasonCode.INSTRUMENT_MISMATCH
    assert reason.numbers["field"] == field


@pytest.mark.real_data
def test_our_es_is_the_one_of_databentos_own_definition_file(store: Store, real_data: Path) -> None:
    found = read_definitions(real_data / "dbn_client_tests" / "GLBX.MDP3" / "test_data.definition.dbn.zst")
    assert found
    for entry in found:
        assert cross_check(get_instrument(store, "ES"), entry) == []
    assert {reason.numbers["field"] for reason in cross_check(get_instrument(store, "NQ"), found[0])} >= {"point_value"}


def test_costs_have_one_row_a_date(store: Store) -> None:
    with store.session() as session:
        rows = list(session.scalars(select(InstrumentCost)))
    assert len({(row.symbol, row.effective_from) for row in rows}) == len(rows) == len(CONTRACTS)


def test_a_wrong_row_is_an_error_where_it_would_round(store: Store) -> None:
    with store.session() as session:
        session.execute(update(Instrument).where(Instrument.symbol == "ES").values(point_value=Decimal("0.000001")))
    with pytest.raises(StopAndFix) as caught:
        get_instrument(store, "ES")
    assert caught.value.reason.code is ReasonCode.INSTRUMENT_MISMATCH
