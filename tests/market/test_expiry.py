"""Last trading days by rule, held against published tables; what a contract's short name means."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaid_pipelines.market.bars import from_ns, to_ns
from blaid_pipelines.market.expiry import (
    RULES,
    contract_month,
    contract_of,
    contract_root,
    expiry_ns,
    last_trading_day,
)
from blaid_pipelines.reasons import InvalidRequest, ReasonCode


@pytest.mark.parametrize(
    ("root", "contract", "near", "last_trade_utc"),
    [
        ("ES", "ESH4", "2024-01-05", "2024-03-15 13:30"),  # 08:30 CT, daylight saving
        ("MES", "MESZ3", "2023-10-02", "2023-12-15 14:30"),  # 08:30 CT, standard time
        ("ES", "ESH8", "2008-01-02", "2008-03-20 13:30"),  # third Friday is Good Friday
        ("MNQ", "MNQM6", "2026-04-01", "2026-06-18 13:30"),  # third Friday is Juneteenth
        ("CL", "CLK0", "2020-04-01", "2020-04-21 18:30"),  # the day after -37.63
        ("MCL", "MCLQ1", "2021-07-12", "2021-07-19 18:30"),
        ("CL", "CLF5", "2024-12-02", "2024-12-19 19:30"),  # the 25th is Christmas
        ("GC", "GCG4", "2024-01-05", "2024-02-27 18:30"),
        ("SI", "SIH4", "2024-01-05", "2024-03-26 17:25"),  # Good Friday is the month's last weekday
        ("6E", "6EH4", "2024-01-02", "2024-03-18 14:16"),
        ("M6E", "M6EM4", "2024-05-02", "2024-06-17 14:16"),  # third Wednesday is Juneteenth
        ("ZN", "ZNH4", "2024-01-02", "2024-03-19 17:01"),
        ("ZB", "ZBZ3", "2023-10-02", "2023-12-19 18:01"),
    ],
)
def test_last_trade(root: str, contract: str, near: str, last_trade_utc: str) -> None:
    wanted = to_ns(datetime.fromisoformat(last_trade_utc).replace(tzinfo=UTC))
    assert from_ns(expiry_ns(root, contract, date.fromisoformat(near))) == from_ns(wanted)


@pytest.mark.parametrize(
    ("contract", "near", "means"),
    [
        ("ESZ3", "2013-10-08", (2013, 12)),
        ("ESZ3", "2014-06-01", (2013, 12)),  # after its expiry: still that contract
        ("ESZ3", "2015-01-02", (2023, 12)),
        ("CLZ4", "2016-01-04", (2024, 12)),  # nine years out
        ("ESZ13", "2013-10-08", (2013, 12)),
        ("6EH4", "2024-01-02", (2024, 3)),
    ],
)
def test_what_a_short_year_means(contract: str, near: str, means: tuple[int, int]) -> None:
    assert contract_month(contract, date.fromisoformat(near)) == means


@given(st.sampled_from(sorted(RULES)), st.integers(2002, 2080), st.integers(1, 12), st.integers(-300, 3000))
def test_names_and_months_are_inverse_of_each_other(root: str, year: int, month: int, days_before: int) -> None:
    name = contract_of(root, year, month)
    near = date(year, month, 1) - timedelta(days=days_before)
    assert contract_root(name) == root
    assert contract_month(name, near) == (year, month)
    assert contract_month(f"{name[:-1]}{year % 100:02d}", near) == (year, month)


def test_every_seeded_root_has_a_rule_and_contracts_expire_in_order() -> None:
    for root in RULES:
        days = [last_trading_day(root, year, month) for year in range(2008, 2030) for month in range(1, 13)]
        assert days == sorted(set(days))
        assert all(day.weekday() < 5 for day in days)


@pytest.mark.parametrize(
    ("root", "contract"), [("ES", "MESZ3"), ("XX", "XXZ3"), ("ES", "ESA3"), ("ES", "ES.c.0"), ("ES", "ESH3-ESM3")]
)
def test_what_has_no_rule_is_refused(root: str, contract: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        expiry_ns(root, contract, date(2013, 1, 2))
    assert caught.value.reason.code is ReasonCode.INSTRUMENT_UNKNOWN
    assert caught.value.reason.suggested_fix


@pytest.mark.real_data
def test_every_published_last_trade_date_of_crude_and_metals_agrees(real_data: Path) -> None:
    with (real_data / "rtl_cl_ho" / "expiry_table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["tick.prefix"] in {"CL", "GC", "SI"}]
    for row in rows:
        ours = last_trading_day(row["tick.prefix"], int(float(row["Year"])), int(float(row["Month"])))
        assert ours.isoformat() == row["Last.Trade"], row
    assert len(rows) == 459


@pytest.mark.real_data
def test_mapping_dates_of_es_are_the_day_before_its_last(real_data: Path) -> None:
    lines = [line.split(",") for line in (real_data / "lean_es" / "meta" / "es_map.csv").read_text().splitlines()]
    mapped = [date.fromisoformat(fields[0]) for fields in lines if fields[3:] == ["0"]]
    for day in mapped:
        assert last_trading_day("ES", day.year, day.month) == day + timedelta(days=1)
    assert len(mapped) > 50


@pytest.mark.real_data
def test_the_providers_own_definition_agrees(real_data: Path) -> None:
    import databento

    path = real_data / "dbn_client_tests" / "GLBX.MDP3" / "test_data.definition.dbn.zst"
    seen = 0
    for record in databento.DBNStore.from_file(path):
        assert expiry_ns("ES", record.raw_symbol, from_ns(record.ts_event).date()) == record.expiration
        seen += 1
    assert seen
