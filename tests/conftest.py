"""Fixtures that tests of every area share: a fresh world on real Postgres, real data, the sandbox gateway.

One embedded server serves the whole test session, all xdist workers included; each test gets its own database, cloned
from a migrated template, so tests neither share rows nor pay for migrations.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, text

from blaid_pipelines.settings import Settings, load_settings
from blaid_pipelines.store import embedded
from blaid_pipelines.store.database import Store, initialise, open_store
from blaid_pipelines.store.leases import FileLock
from tests.sandbox.fixtures import gateway  # noqa: F401 - a fixture

# A session's folders hang in a root of its own: pytest resets the mode of its shared one at every start, and a server
# that runs as another user (when the tests run as root) would lose its data folder to the next session's start.
OWN_TEMPROOT = "BLAID_TESTS_TEMPROOT"


def pytest_configure(config: pytest.Config) -> None:
    """Give this session, and through it its xdist workers, a temporary root of its own."""
    if "PYTEST_XDIST_WORKER" not in os.environ and "PYTEST_DEBUG_TEMPROOT" not in os.environ:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ[OWN_TEMPROOT] = tempfile.mkdtemp(prefix="blaid-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the root of a session; what a test left on purpose is found while it runs, with --pdb for one."""
    if "PYTEST_XDIST_WORKER" not in os.environ and OWN_TEMPROOT in os.environ:
        shutil.rmtree(os.environ.pop(OWN_TEMPROOT), ignore_errors=True)
        os.environ.pop("PYTEST_DEBUG_TEMPROOT", None)


TEMPLATE = "blaid_template"
# Nothing here survives the session, so nothing needs to survive a power cut.
UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}
SETTING_NAMES = (
    "ALLOW_SIM_FALLBACK",
    "DATABENTO_API_KEY",
    "MASSIVE_API_KEY",
    "POLYGON_API_KEY",
    "DAGSTER_HOME",
    "BLAID_DAGSTER_POSTGRES_URL",
)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """Address of database ``postgres`` on the session's server."""
    root = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        root = root.parent
    home = root / "postgres-of-session"
    home.mkdir(exist_ok=True)
    server = embedded.share(home, create=True, options=UNSAFE_BUT_FAST)
    url = server.url("postgres")
    try:
        lock = FileLock(home / "template.lock")
        lock.acquire(timeout_s=120)
        with lock:
            _make_template(url, home)
        yield url
    finally:
        embedded.unshare(home)


def _make_template(url: URL, home: Path) -> None:
    done = home / "template.done"
    if done.exists():
        return
    initialise(
        load_settings(
            BLAID_ENV="sandbox",
            BLAID_HOME=home / "template-home",
            BLAID_DATABASE_URL=url.set(database=TEMPLATE).render_as_string(hide_password=False),
        )
    ).close()
    done.touch()


@pytest.fixture
def database_url(postgres: URL) -> Iterator[str]:
    """Address of a fresh, migrated, seeded database stamped ``sandbox``; dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
    try:
        yield postgres.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        engine.dispose()


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The process environment without any setting of ours, so that no test depends on the developer's."""
    for name in list(os.environ):
        if (name.startswith("BLAID_") and name != "BLAID_REAL_DATA") or name in SETTING_NAMES:
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def settings(tmp_path: Path, database_url: str, clean_environment: pytest.MonkeyPatch) -> Settings:
    """Settings of a fresh, initialised sandbox world; also in the environment, for commands and child processes."""
    for name, value in {
        "BLAID_ENV": "sandbox",
        "BLAID_HOME": str(tmp_path / "home"),
        "BLAID_DATABASE_URL": database_url,
    }.items():
        clean_environment.setenv(name, value)
    fresh = load_settings()
    initialise(fresh).close()
    return fresh


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """The open store of ``settings``."""
    with open_store(settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real market data (``BLAID_REAL_DATA``); skips where there is none."""
    given = os.environ.get("BLAID_REAL_DATA", "").strip()
    if not given:
        pytest.skip("BLAID_REAL_DATA is not set: no real market data beside this checkout")
    folder = Path(given)
    if not folder.is_dir():
        pytest.fail(f"BLAID_REAL_DATA={given} is not a folder")
    return folder
