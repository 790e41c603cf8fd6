"""One world for all tests of a module that only make calls: a database, a store and a gateway, counted per test.

A fresh database for each cell of a table would cost more than the calls themselves.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest
from sqlalchemy import URL, create_engine, select, text

from blaid_pipelines.ids import new_trace_id
from blaid_pipelines.proof.recorder import CallContext, Recorder, wire_log_path
from blaid_pipelines.proof.usage import ProofCounts, proof_counts, request_log_path
from blaid_pipelines.providers.databento.client import DatabentoHistorical
from blaid_pipelines.providers.massive.client import MassiveRest
from blaid_pipelines.sandbox.gateway import Fault
from blaid_pipelines.sandbox.synthetic import synthesise
from blaid_pipelines.settings import Settings, load_settings
from blaid_pipelines.store.database import Store, initialise, open_store
from blaid_pipelines.store.tables import ProviderRequest
from tests.conftest import SETTING_NAMES, TEMPLATE
from tests.sandbox.fixtures import SMALL, RunningGateway


@dataclass
class World:
    """A gateway, a store, and what happened since the test began."""

    gateway: RunningGateway
    store: Store
    before: ProofCounts
    traces: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return self.gateway.settings

    def client(self, **options: object) -> DatabentoHistorical:
        """A new client of a new piece of work."""
        self.traces.append(new_trace_id())
        recorder = Recorder(self.store, wire_log_path(self.settings))
        return DatabentoHistorical(self.settings, recorder, CallContext(self.traces[-1]), **options)  # type: ignore[arg-type]

    def massive(self, **options: object) -> MassiveRest:
        """The same for Massive."""
        self.traces.append(new_trace_id())
        recorder = Recorder(self.store, wire_log_path(self.settings))
        return MassiveRest(self.settings, recorder, CallContext(self.traces[-1]), **options)  # type: ignore[arg-type]

    def faults(self, *faults: Fault) -> None:
        self.gateway.add_faults(*faults)

    def rows(self) -> list[ProviderRequest]:
        """This test's rows, in order."""
        query = select(ProviderRequest).where(ProviderRequest.trace_id.in_(self.traces))
        with self.store.session() as session:
            return list(session.scalars(query.order_by(ProviderRequest.created_at, ProviderRequest.id)))

    def assert_all_counted(self, calls: int) -> None:
        """Calls that left, rows, and requests that the gateway received since the test began: all ``calls``."""
        now = proof_counts(self.store, self.settings)
        assert now.sandbox_received is not None
        assert self.before.sandbox_received is not None
        grown = (
            now.calls - self.before.calls,
            now.rows - self.before.rows,
            now.sandbox_received - self.before.sandbox_received,
        )
        assert grown == (calls, calls, calls)
        assert now.equal


@pytest.fixture(scope="module")
def shared(postgres: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningGateway, Store]]:
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
    with pytest.MonkeyPatch.context() as patch:
        for variable in [*SETTING_NAMES, *(key for key in os.environ if key.startswith("BLAID_"))]:
            if variable != "BLAID_REAL_DATA":
                patch.delenv(variable, raising=False)
        options = {
            "BLAID_HOME": tmp_path_factory.mktemp("home"),
            "BLAID_DATABASE_URL": postgres.set(database=name).render_as_string(hide_password=False),
        }
        initialise(load_settings(**options)).close()
        settings = load_settings(**options)
        key = settings.databento_key()
        assert key is not None
        request_log_path(settings).parent.mkdir(parents=True)
        request_log_path(settings).touch()
        gateway = RunningGateway(
            [synthesise(SMALL)], key=key.get_secret_value(), request_log=request_log_path(settings)
        )
        gateway.start()
        gateway.settings = load_settings(**options, BLAID_DATABENTO_URL=gateway.url, BLAID_MASSIVE_URL=gateway.url)
        store = open_store(gateway.settings)
    yield gateway, store
    gateway.stop()
    store.close()
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def world(shared: tuple[RunningGateway, Store]) -> Iterable[World]:
    """The module's gateway and store, without faults, counting from here."""
    gateway, store = shared
    gateway.clear_faults()
    return World(gateway, store, proof_counts(store, gateway.settings))
