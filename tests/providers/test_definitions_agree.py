"""Two tables of contract facts, the product's and the gateway's, agree over the wire for every product."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from blaid_pipelines.market.definitions import cross_check
from blaid_pipelines.market.instruments import get_instrument
from blaid_pipelines.sandbox.contracts import PRODUCTS
from blaid_pipelines.sandbox.synthetic import Recipe, synthesise
from blaid_pipelines.store.database import Store
from tests.providers.conftest import World
from tests.sandbox.fixtures import StartGateway


@pytest.fixture
def everything(gateway: StartGateway, store: Store) -> World:
    from blaid_pipelines.proof.usage import proof_counts

    days = (date(2024, 3, 11), date(2024, 3, 13))
    running = gateway(series=[synthesise(Recipe(f"{root}.c.0", *days)) for root in PRODUCTS])
    return World(running, store, proof_counts(store, running.settings))


def test_every_definition_agrees_with_the_instrument_table(everything: World) -> None:
    client = everything.client()
    span = datetime(2024, 3, 11, tzinfo=UTC), datetime(2024, 3, 13, tzinfo=UTC)
    found = {}
    for root in PRODUCTS:
        (definition, *_) = client.get_definitions("GLBX.MDP3", f"{root}.c.0", *span)
        found[root] = [str(reason) for reason in cross_check(get_instrument(everything.store, root), definition)]
    assert found == {root: [] for root in PRODUCTS}
