"""``blaid doctor``: a table of what can be broken, and the check that says so."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from blaid_pipelines.settings import Settings, load_settings
from blaid_pipelines.stack.doctor import Check, examine, lock_differences
from blaid_pipelines.store import embedded
from blaid_pipelines.store.database import initialise
from tests.stack.world import free_port
from tests.support import eventually


def in_database(statement: str) -> Callable[[Settings], None]:
    def damage(settings: Settings) -> None:
        assert settings.database_url is not None
        engine = create_engine(settings.database_url.get_secret_value())
        with engine.begin() as connection:
            connection.execute(text(statement))
        engine.dispose()

    return damage


@pytest.fixture
def installation(settings: Settings, clean_environment: pytest.MonkeyPatch) -> Settings:
    """A healthy installation on free ports."""
    clean_environment.setenv("BLAID_WEBSERVER_PORT", str(free_port()))
    clean_environment.setenv("BLAID_DOCS_PORT", str(free_port()))
    clean_environment.setenv("BLAID_SANDBOX_PORT", str(free_port()))
    return load_settings()


def problems(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in examine(settings) if not check.ok}


def test_healthy_installation_has_no_problem(installation: Settings) -> None:
    assert problems(installation) == {}
    assert {check.name for check in examine(installation)} >= {
        "python", "packages", "home", "lake", "disk", "database", "policy", "sandbox key", "dagster.yaml", "workspace",
        "stack",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "check", "word"),
    [
        (lambda s: s.sandbox_key_path.unlink(), "sandbox key", "blaid init"),
        (lambda s: s.sandbox_key_path.chmod(0o644), "sandbox key", "chmod 600"),
        (lambda s: s.sandbox_key_path.write_text("\n"), "sandbox key", "blaid init"),
        (lambda s: (s.dagster_home / "dagster.yaml").write_text("{}"), "dagster.yaml", "blaid init"),
        (lambda s: shutil.rmtree(s.lake), "lake", "blaid init"),
        (in_database("UPDATE blaid.alembic_version SET version_num = '0001'"), "database", "blaid init"),
        (in_database("DROP SCHEMA blaid CASCADE"), "database", "blaid init"),
    ],
)
def test_damage_is_named_with_a_way_to_mend_it(
    installation: Settings, damage: Callable[[Settings], None], check: str, word: str
) -> None:
    damage(installation)
    found = problems(installation)
    assert set(found) == {check}
    assert word in found[check].suggested_fix


def test_database_of_another_world(installation: Settings, clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("BLAID_ENV", "dev")
    found = problems(load_settings())
    assert "ENVIRONMENT_MISMATCH" in found["database"].message
    assert "DATABENTO_API_KEY" in found["databento key"].message


def test_unreachable_database(installation: Settings, clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("BLAID_DATABASE_URL", "postgresql://u:planted@127.0.0.1:9/blaid")
    found = problems(load_settings())
    assert "DATABASE_UNAVAILABLE" in found["database"].message
    assert "planted" not in str(found)


def test_lost_postgres_is_named_and_started_again(tmp_path: Path, clean_environment: pytest.MonkeyPatch) -> None:
    settings = load_settings(BLAID_HOME=tmp_path / "home", BLAID_ENV="sandbox")
    with initialise(settings):
        running = embedded.EmbeddedServer(settings.home).status()
        assert running is not None
        assert "postgres process" not in problems(settings)
        os.kill(running.pid, signal.SIGKILL)
        eventually(lambda: embedded.EmbeddedServer(settings.home).status() is None)
        lost = problems(settings)["postgres process"]
        assert "ended while processes were using it" in lost.message
        assert "postgres.log" in lost.suggested_fix
        assert not {"postgres process", "database"} & set(problems(settings))
    # stopped as it should be: nothing to tell
    assert "postgres process" not in problems(settings)


def test_port_in_use(installation: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", installation.webserver_port))
        other.listen()
        found = problems(installation)
    assert "BLAID_WEBSERVER_PORT" in found[f"port {installation.webserver_port}"].suggested_fix


def test_foreign_dagster_home(installation: Settings, clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("DAGSTER_HOME", "/somewhere/else")
    assert set(problems(installation)) == {"DAGSTER_HOME"}


def test_stale_pid_file(installation: Settings) -> None:
    (installation.home / "run").mkdir(exist_ok=True)
    (installation.home / "run" / "up.json").write_text(
        '[{"name": "dagster-daemon", "pid": 999999, "create_time": 1.0, "url": null, "log": "x", "started_at": "y"}]'
    )
    assert "stale" in problems(installation)["dagster-daemon"].message


def test_bad_policy(installation: Settings, clean_environment: pytest.MonkeyPatch) -> None:
    path = installation.home / "policy.toml"
    path.write_text("version = ")
    clean_environment.setenv("BLAID_POLICY", str(path))
    assert "POLICY_INVALID" in problems(load_settings())["policy"].message


LOCK = """
# made by hand
alpha==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
beta[extra]==2.0 ; python_version >= "3" \\
    --hash=sha256:cc
gamma==3.0 ; sys_platform == "never"
"""


@pytest.mark.parametrize(
    ("installed", "differences"),
    [
        ({"alpha": "1.0", "beta": "2.0"}, []),
        ({"alpha": "1.1", "beta": "2.0"}, ["alpha is 1.1, not ==1.0"]),
        ({"alpha": "1.0"}, ["beta is missing"]),
    ],
)
def test_lock_against_what_is_installed(installed: dict[str, str], differences: list[str]) -> None:
    assert lock_differences(LOCK, installed.get) == differences
