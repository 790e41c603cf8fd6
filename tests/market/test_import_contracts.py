"""Definitions and open interest of contracts: taken in whole or not at all, never against the instrument table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select

from blaid_pipelines.cli.contracts import contracts as command
from blaid_pipelines.jobs.machine import JobStatus, JobType
from blaid_pipelines.lab.context import open_lab
from blaid_pipelines.lab.contracts import import_contract_files
from blaid_pipelines.market.bars import to_ns
from blaid_pipelines.market.contracts import (
    Imported,
    differs_from_rule,
    import_contracts,
    known_expiries,
    list_contracts,
    names_of_ids,
    open_interest,
)
from blaid_pipelines.market.instruments import instrument_root
from blaid_pipelines.providers.databento.dbn import SymbolInterval
from blaid_pipelines.reasons import BlaidError, InvalidRequest, ReasonCode, Refused, StopAndFix
from blaid_pipelines.sandbox.contracts import Lead
from blaid_pipelines.sandbox.encode import Header, definition_bytes, metadata_bytes
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import BotJob, ContractDay, ContractDefinition

DEFINITION = "dbn_client_tests/GLBX.MDP3/test_data.definition.dbn.zst"


def take(store: Store, *paths: Path, tz: str | None = None) -> Imported:
    return import_contracts(store, paths, trace_id="c" * 32, tz=tz)


def rows(store: Store) -> tuple[int, int]:
    with store.session() as session:
        counts = [
            session.scalar(select(func.count()).select_from(table)) for table in (ContractDefinition, ContractDay)
        ]
    return int(counts[0] or 0), int(counts[1] or 0)


def csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.real_data
def test_the_real_definition_of_es(store: Store, real_data: Path) -> None:
    found = take(store, real_data / DEFINITION)
    assert (found.definitions, found.contracts, found.simulated, found.left_out) == (1, ["ESH1"], False, {})
    assert known_expiries(store, "ES") == {"ESH1": to_ns(datetime(2021, 3, 19, 13, 30, tzinfo=UTC))}
    (contract,) = list_contracts(store, "ES")
    assert (contract.instrument_id, contract.definition["min_price_increment"]) == (5482, 250_000_000)
    assert differs_from_rule(contract) is None
    assert names_of_ids(store, "ES")[5482][0].symbol == "ESH1"
    again = take(store, real_data / DEFINITION)
    assert (again.definitions, again.definitions_known, rows(store)) == (0, 1, (1, 0))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("path", "kind", "code"),
    [
        ("dbn_client_tests/XNAS.ITCH/test_data.definition.dbn.zst", InvalidRequest, ReasonCode.INSTRUMENT_UNKNOWN),
        ("dbn_client_tests/IFEU.IMPACT/test_data.definition.dbn.zst", InvalidRequest, ReasonCode.INSTRUMENT_UNKNOWN),
        ("dbn_codec_tests/test_data.definition.v1.dbn.zst", InvalidRequest, ReasonCode.INSTRUMENT_UNKNOWN),
        ("dbn_codec_tests/test_data.definition.dbz", StopAndFix, ReasonCode.FORMAT_UNSUPPORTED),
        ("dbn_codec_tests/test_data.definition.v3.dbn.frag", StopAndFix, ReasonCode.FORMAT_UNSUPPORTED),
        ("dbn_codec_tests/multi-frame.definition.v1.dbn.frag.zst", StopAndFix, ReasonCode.FORMAT_UNSUPPORTED),
        ("dbn_client_tests/GLBX.MDP3/test_data.statistics.dbn.zst", StopAndFix, ReasonCode.DATA_UNAVAILABLE),
        ("dbn_client_tests/IFEU.IMPACT/test_data.statistics.dbn.zst", StopAndFix, ReasonCode.DATA_UNAVAILABLE),
        ("dbn_codec_tests/test_data.statistics.v1.dbn.zst", StopAndFix, ReasonCode.DATA_UNAVAILABLE),
        ("dbn_client_tests/GLBX.MDP3/test_data.ohlcv-1m.dbn.zst", StopAndFix, ReasonCode.FORMAT_UNSUPPORTED),
        ("dbn_client_tests/LIVE/test_data.live.dbn.zst", StopAndFix, ReasonCode.FORMAT_UNSUPPORTED),
        ("lean_es/minute/20131007_trade.zip", StopAndFix, ReasonCode.FORMAT_UNSUPPORTED),
        ("es_ticks/es_ticks_20130901_20130903.csv.gz", StopAndFix, ReasonCode.FIELD_MISSING),
    ],
)
def test_real_files_that_say_nothing_of_our_contracts(
    store: Store, real_data: Path, path: str, kind: type[BlaidError], code: ReasonCode
) -> None:
    with pytest.raises(kind) as caught:
        take(store, real_data / path)
    assert caught.value.reason.code is code
    assert rows(store) == (0, 0)


def dbn(path: Path, schema: str, body: bytes, mappings: dict[str, int], *, simulated: bool = False) -> Path:
    span = [SymbolInterval(date(2024, 2, 5), date(2024, 2, 9), "")]
    header = Header(
        "GLBX.MDP3",
        schema,
        to_ns(datetime(2024, 2, 5, tzinfo=UTC)),
        to_ns(datetime(2024, 2, 9, tzinfo=UTC)),
        "raw_symbol",
        list(mappings) or ["MES.FUT"],
        {name: [SymbolInterval(span[0].start, span[0].end, str(number))] for name, number in mappings.items()},
    )
    path.write_bytes(metadata_bytes(header, simulated=simulated) + body)
    return path


def definitions(path: Path, symbols: Sequence[str], *, simulated: bool = False) -> Path:
    leads = [Lead(symbol, 100 + at, date(2024, 2, 5), date(2024, 2, 9)) for at, symbol in enumerate(symbols)]
    return dbn(path, "definition", definition_bytes(leads)[0], {}, simulated=simulated)


def statistics(path: Path, *entries: tuple[int, str, int, int]) -> Path:
    """(instrument id, session, kind, count) as DBN, each said a minute after the one before."""
    from databento_dbn import StatMsg, StatType, StatUpdateAction

    start = to_ns(datetime(2024, 2, 6, 1, tzinfo=UTC))
    body = b"".join(
        bytes(
            StatMsg(
                publisher_id=1,
                instrument_id=number,
                ts_event=start + at * 60 * 10**9,
                ts_recv=start + at * 60 * 10**9,
                ts_ref=to_ns(datetime.fromisoformat(session).replace(tzinfo=UTC)),
                price=2**63 - 1,
                quantity=count,
                stat_type=StatType(kind),
                update_action=StatUpdateAction.NEW,
            )
        )
        for at, (number, session, kind, count) in enumerate(entries)
    )
    return dbn(path, "statistics", body, {"MESH4": 101, "MESM4": 102})


def test_statistics_give_open_interest_and_cleared_volume_of_a_session(store: Store, tmp_path: Path) -> None:
    path = statistics(
        tmp_path / "day.statistics.dbn",
        (101, "2024-02-05", 9, 500),
        (101, "2024-02-05", 6, 7000),
        (101, "2024-02-05", 9, 510),  # the final count
        (102, "2024-02-05", 9, 20),
        (101, "2024-02-05", 5, 1),  # a session's high: no count
        (103, "2024-02-05", 9, 1),  # nobody says what it is
    )
    found = take(store, path)
    assert (found.days, found.contracts, found.left_out) == (2, ["MESH4", "MESM4"], {"contract without a name": 1})
    assert open_interest(store, "MES") == {(20240205, "MESH4"): 510, (20240205, "MESM4"): 20}
    with store.session() as session:
        row = session.scalars(select(ContractDay).where(ContractDay.raw_symbol == "MESH4")).one()
        assert (row.volume, row.open_interest, row.instrument) == (7000, 510, "MES")
    assert (take(store, path).days_known, rows(store)[1]) == (2, 2)
    later = take(store, csv(tmp_path / "later.csv", "contract,date,open_interest", "MESH4,2024-02-05,512"))
    assert later.days == 1
    assert open_interest(store, "MES")[20240205, "MESH4"] == 512, "the newest statement counts"


def test_csv_of_expiries_and_of_open_interest(store: Store, tmp_path: Path) -> None:
    take(
        store,
        csv(
            tmp_path / "expiries.csv",
            "contract,expiration,tick_size,currency",
            "MESH4,2024-03-15 08:30:00,0.25,USD",
            "MESM4,2024-06-21 08:30:00,0.25,USD",
        ),
        tz="America/Chicago",
    )
    assert known_expiries(store, "MES") == {
        "MESH4": to_ns(datetime(2024, 3, 15, 13, 30, tzinfo=UTC)),
        "MESM4": to_ns(datetime(2024, 6, 21, 13, 30, tzinfo=UTC)),
    }
    days = csv(
        tmp_path / "oi.csv",
        "contract,session_date,open_interest,volume",
        "MESH4,2024-02-05,100,7",
        "MESM4,2024-02-05,,3",
    )
    assert take(store, days).days == 2
    assert open_interest(store, "MES") == {(20240205, "MESH4"): 100}
    (first, second) = list_contracts(store, "MES")
    assert (first.open_interest_days, first.last_open_interest, first.last_session) == (1, 100, date(2024, 2, 5))
    assert second.open_interest_days == 0


def test_a_name_that_comes_back_after_ten_years_is_told_apart(store: Store, tmp_path: Path) -> None:
    path = csv(tmp_path / "e.csv", "contract,expiration", "ESH1,2011-03-18T13:30:00Z", "ESH1,2021-03-19T13:30:00Z")
    take(store, path)
    for near, year in ((date(2011, 1, 5), 2011), (date(2021, 1, 5), 2021), (None, 2021)):
        (expiry,) = known_expiries(store, "ES", near).values()
        assert datetime.fromtimestamp(expiry / 1e9, UTC).year == year
    assert known_expiries(store, "ES", date(2031, 1, 5)) == {}


HEADER = "contract,expiration,tick_size,currency,mic,point_value,instrument_id,activation"
GOOD = "ESH4,2024-03-15T13:30:00Z,0.25,USD,XCME,50,5602,2022-12-16T14:30:00Z"


@pytest.mark.parametrize(
    ("row", "kind", "code"),
    [
        (GOOD, None, None),
        (GOOD.replace("0.25", "0.5"), Refused, ReasonCode.INSTRUMENT_MISMATCH),
        (GOOD.replace("USD", "EUR"), Refused, ReasonCode.INSTRUMENT_MISMATCH),
        (GOOD.replace("XCME", "XNYM"), Refused, ReasonCode.INSTRUMENT_MISMATCH),
        (GOOD.replace(",50,", ",5,"), Refused, ReasonCode.INSTRUMENT_MISMATCH),
        (GOOD.replace("2024-03-15", "2024-09-20"), Refused, ReasonCode.INSTRUMENT_MISMATCH),
        (GOOD.replace("T13:30:00Z,0", ",0"), StopAndFix, ReasonCode.FILE_UNREADABLE),  # which hour of that day?
        (GOOD.replace("13:30:00Z,0", "13:30:00,0"), StopAndFix, ReasonCode.FILE_UNREADABLE),  # which zone?
        (GOOD.replace("2024-03-15T13:30:00Z", ""), StopAndFix, ReasonCode.FIELD_MISSING),
        (GOOD.replace("2024-03-15T", "9999-03-15T"), StopAndFix, ReasonCode.TIME_INVALID),
        (GOOD.replace("0.25", "a quarter"), StopAndFix, ReasonCode.FILE_UNREADABLE),
        (GOOD.replace("0.25", "NaN"), StopAndFix, ReasonCode.FILE_UNREADABLE),
        (GOOD.replace("5602", "-1"), StopAndFix, ReasonCode.FILE_UNREADABLE),
        (GOOD.replace("ESH4", "XXH4"), InvalidRequest, ReasonCode.INSTRUMENT_UNKNOWN),
        (GOOD.replace("ESH4", "ESH4-ESM4"), InvalidRequest, ReasonCode.INSTRUMENT_UNKNOWN),
        (GOOD.replace("ESH4", ""), StopAndFix, ReasonCode.FIELD_MISSING),
    ],
)
def test_one_definition_after_another(
    store: Store, tmp_path: Path, row: str, kind: type[BlaidError] | None, code: ReasonCode | None
) -> None:
    # A sound definition goes before: a file is taken whole or not at all.
    path = csv(tmp_path / "d.csv", HEADER, "ESM4,2024-06-21T13:30:00Z,0.25,USD,XCME,50,,", row)
    if kind is None:
        assert take(store, path).contracts == ["ESH4", "ESM4"]
        return
    if code is ReasonCode.INSTRUMENT_UNKNOWN:  # other products are left aside, and alone are no import
        assert take(store, path).contracts == ["ESM4"]
        path = csv(tmp_path / "alone.csv", HEADER, row)
    before = rows(store)
    with pytest.raises(kind) as caught:
        take(store, path)
    assert caught.value.reason.code is code
    assert rows(store) == before


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (("contract,date,open_interest", "MESH4,2024-02-05,-1"), ReasonCode.FILE_UNREADABLE),
        (("contract,date,open_interest", "MESH4,2024-02-05,1.5"), ReasonCode.FILE_UNREADABLE),
        (("contract,date,open_interest", "MESH4,02/05/2024,1"), ReasonCode.FILE_UNREADABLE),
        (("contract,date,open_interest", "MESH4,,1"), ReasonCode.FIELD_MISSING),
        (("contract,date,open_interest", "MESH4,2024-02-05,"), ReasonCode.FILE_UNREADABLE),
        (("contract,date,price", "MESH4,2024-02-05,1"), ReasonCode.FIELD_MISSING),
        (("contract,date,open_interest",), ReasonCode.DATA_UNAVAILABLE),
    ],
    ids=str,
)
def test_counts_that_are_none(store: Store, tmp_path: Path, lines: Sequence[str], code: ReasonCode) -> None:
    with pytest.raises(StopAndFix) as caught:
        take(store, csv(tmp_path / "oi.csv", *lines))
    assert caught.value.reason.code is code
    assert rows(store) == (0, 0)


def test_what_the_sandbox_defines_is_marked_and_not_used(store: Store, tmp_path: Path) -> None:
    path = definitions(tmp_path / "sim.definition.dbn", ["MESH4", "MESM4"], simulated=True)
    found = take(store, path)
    assert (found.simulated, found.contracts) == (True, ["MESH4", "MESM4"])
    assert known_expiries(store, "MES") == {}
    assert not names_of_ids(store, "MES")
    assert set(known_expiries(store, "MES", simulated=True)) == {"MESH4", "MESM4"}
    assert [contract.simulated for contract in list_contracts(store, "MES")] == [True, True]


def test_an_import_is_a_job_and_a_refused_one_too(store: Store, settings: Settings, tmp_path: Path) -> None:
    path = csv(tmp_path / "e.csv", "contract,expiration", "ESH4,2024-03-15T13:30:00Z")
    bad = csv(tmp_path / "bad.csv", "contract,expiration,tick_size", "ESH4,2024-03-15T13:30:00Z,1")
    with open_lab(settings) as lab:
        outcome = import_contract_files(lab, [path])
        with pytest.raises(Refused):
            import_contract_files(lab, [bad])
    with store.session() as session:
        jobs = list(session.scalars(select(BotJob).order_by(BotJob.created_at)))
        assert {job.job_type for job in jobs} == {JobType.CONTRACT_IMPORT.value}
        assert [job.status for job in jobs] == [JobStatus.COMPLETED.value, JobStatus.REFUSED.value]
        assert jobs[0].trace_id == outcome.trace_id
        assert jobs[1].reason is not None
        assert jobs[1].reason["code"] == "INSTRUMENT_MISMATCH"
        assert session.scalars(select(ContractDefinition)).one().trace_id == outcome.trace_id


def test_the_commands(settings: Settings, tmp_path: Path) -> None:
    path = csv(tmp_path / "e.csv", "contract,expiration", "ESH4,2024-03-15T13:30:00Z", "ESM4,2024-06-21T14:30:00Z")
    run = CliRunner()
    said = run.invoke(command, ["import", str(path)], catch_exceptions=False)
    assert (said.exit_code, "2 new" in said.output) == (0, True)
    said = run.invoke(command, ["import", str(path), "--json"], catch_exceptions=False)
    assert '"definitions_known": 2' in said.output
    said = run.invoke(command, ["list", "ES"], catch_exceptions=False)
    assert "2024-03-15 13:30" in said.output
    assert "2024-06-21 13:30" in said.output, "what the rule says instead"
    said = run.invoke(command, ["list", "NQ"], catch_exceptions=False)
    assert "blaid contracts import" in said.output
    with pytest.raises(InvalidRequest):
        run.invoke(command, ["list", "XX"], catch_exceptions=False)


def test_the_root_of_a_contract_is_not_guessed() -> None:
    assert instrument_root("6EH4") == "6E"
