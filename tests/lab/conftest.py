"""A LAB on real Postgres against the sandbox gateway's default series, and shortcuts for what most tests begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time

import pytest

from blaid_pipelines.lab.bots import NewBot, create_bot
from blaid_pipelines.lab.context import LabContext, open_lab
from blaid_pipelines.lab.series import SeriesOutcome, judge_series, pull_series
from blaid_pipelines.market.purchase.pull import PullRequest
from blaid_pipelines.sandbox.catalog import RECIPES
from blaid_pipelines.sandbox.series import Series
from blaid_pipelines.sandbox.synthetic import synthesise
from blaid_pipelines.store.tables import Bot
from tests.sandbox.fixtures import StartGateway


def midnight(day: date) -> datetime:
    """The first instant of a UTC day."""
    return datetime.combine(day, time(), UTC)


MakeBot = Callable[..., Bot]
Pull = Callable[..., SeriesOutcome]


@pytest.fixture(scope="session")
def catalog() -> dict[str, Series]:
    """The default series that these tests use, by symbol, made once a session."""
    return {recipe.symbol: synthesise(recipe) for recipe in RECIPES if recipe.symbol in {"MES.c.0", "M2K.c.0"}}


@pytest.fixture
def lab(store: object, gateway: StartGateway, catalog: dict[str, Series]) -> Iterator[LabContext]:
    """An open LAB in a world of its own, with a gateway that serves the default series."""
    with open_lab(gateway(series=list(catalog.values())).settings) as opened:
        yield opened


@pytest.fixture
def pulled(lab: LabContext) -> Pull:
    """Pull a range of a series (default: three weeks) and, unless told otherwise, judge it."""

    def pull(
        symbol: str = "MES.c.0", start: date = date(2024, 1, 2), end: date = date(2024, 1, 23), *, judged: bool = True
    ) -> SeriesOutcome:
        outcome = pull_series(lab, PullRequest(symbol, midnight(start), midnight(end)))
        if judged:
            judge_series(lab, outcome.snapshot.snapshot_id)
        return outcome

    return pull


@pytest.fixture
def make_bot(lab: LabContext) -> MakeBot:
    """Create a bot with few words."""

    def make(
        name: str, symbol: str = "MES.c.0", strategy: str = "ma_cross", usd: int = 25_000, **params: object
    ) -> Bot:
        texts = {key: str(value) for key, value in params.items()}
        return create_bot(lab, NewBot(name, symbol.split(".")[0], strategy, texts, usd * 100, symbol=symbol))

    return make
