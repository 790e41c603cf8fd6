"""Definitions from the provider against our rows: agreement, difference, absence, cost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal

import pytest
from sqlalchemy import update

from blaid_pipelines.market.definitions import DefinitionCheck, check_definitions
from blaid_pipelines.market.purchase.budget import purchase_lock
from blaid_pipelines.proof.recorder import CallContext, Recorder, wire_log_path
from blaid_pipelines.proof.usage import check_requests
from blaid_pipelines.providers.budget import DataBudget
from blaid_pipelines.reasons import ReasonCode, Refused
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from blaid_pipelines.store.tables import Instrument
from tests.market.test_pull import PLENTY
from tests.sandbox.fixtures import StartGateway


def check(store: Store, settings: Settings, budget: DataBudget = PLENTY) -> DefinitionCheck:
    recorder = Recorder(store, wire_log_path(settings))
    return check_definitions(
        store, settings, recorder, budget, CallContext(trace_id="d" * 32), "MES.c.0", date(2024, 3, 12)
    )


def test_our_row_agrees_with_the_definition_and_a_changed_one_does_not(gateway: StartGateway, store: Store) -> None:
    running = gateway()
    found = check(store, running.settings)
    assert (found.reasons, found.contracts) == ([], ["MESH4"])
    assert check_requests(store, found.request_ids) == []
    assert len(found.request_ids) == sum(running.counts().values())
    with store.session() as session:
        session.execute(update(Instrument).where(Instrument.symbol == "MES").values(tick_size=Decimal("0.5")))
    [reason] = check(store, running.settings).reasons
    assert reason.code is ReasonCode.INSTRUMENT_MISMATCH
    assert reason.numbers["field"] == "tick_size"


def test_definitions_are_held_against_the_budget(gateway: StartGateway, store: Store) -> None:
    running = gateway()
    nothing = DataBudget(max_cost_usd_per_pull=Decimal(0), max_cost_usd_per_day=Decimal(0))
    with pytest.raises(Refused) as caught:
        check(store, running.settings, nothing)
    assert caught.value.reason.code is ReasonCode.COST_BUDGET_EXCEEDED
    assert "timeseries.get_range" not in running.counts()


def test_a_check_waits_until_a_pull_has_spent(gateway: StartGateway, store: Store) -> None:
    settings = gateway().settings
    cents = DataBudget(max_cost_usd_per_pull=Decimal(5), max_cost_usd_per_day=Decimal("0.000001"))
    started = threading.Event()

    def late() -> DefinitionCheck:
        started.set()
        return check(store, settings, cents)

    with ThreadPoolExecutor(1) as pool:
        with purchase_lock(store):
            answer = pool.submit(late)
            started.wait(10)
            with pytest.raises(TimeoutError):
                answer.result(timeout=1)
        with pytest.raises(Refused) as caught:
            answer.result(timeout=20)
    assert caught.value.reason.code is ReasonCode.COST_BUDGET_EXCEEDED
