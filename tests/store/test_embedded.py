"""The embedded server's life: shared, last one out stops it, survives every kind of kill."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from blaid_pipelines.reasons import DependencyDown, ReasonCode, StopAndFix
from blaid_pipelines.settings import Settings, load_settings
from blaid_pipelines.store import embedded
from blaid_pipelines.store.database import Store, initialise, open_store
from tests.store.processes import environment, holder, let_go, servers, wait_open
from tests.support import eventually


@pytest.fixture
def world(tmp_path: Path, clean_environment: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a data folder with an embedded server of its own; whatever is left running is stopped."""
    settings = load_settings(BLAID_HOME=tmp_path / "home", BLAID_ENV="sandbox")
    yield settings
    embedded.EmbeddedServer(settings.home).stop()


def answer(store: Store) -> int:
    with store.session() as session:
        return session.execute(text("SELECT 42")).scalar_one()


def test_last_one_out_stops_the_server(world: Settings) -> None:
    initialise(world).close()
    assert servers(world.home) == []
    first = open_store(world)
    second = open_store(world)  # the same process counts once
    other = holder(world.home)
    wait_open(other)
    first.close()
    first.close()
    assert answer(second) == 42
    second.close()
    assert servers(world.home) != []
    let_go(other)
    assert servers(world.home) == []


def test_a_process_that_forgets_to_close_still_stops_it_at_exit(world: Settings) -> None:
    initialise(world).close()
    code = (
        "from blaid_pipelines.settings import load_settings\n"
        "from blaid_pipelines.store.database import open_store\n"
        "store = open_store(load_settings())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(world.home), timeout=60)
    assert servers(world.home) == []


def test_killed_starter_neither_takes_the_server_down_nor_keeps_it_up(world: Settings) -> None:
    initialise(world).close()
    starter = holder(world.home)
    wait_open(starter)
    running = embedded.EmbeddedServer(world.home).status()
    starter.kill()
    starter.wait()
    with open_store(world) as store:
        assert embedded.EmbeddedServer(world.home).status() == running
        assert answer(store) == 42
    assert servers(world.home) == []


def test_killed_postmaster_is_replaced(world: Settings) -> None:
    initialise(world).close()
    with open_store(world) as store:
        running = embedded.EmbeddedServer(world.home).status()
        assert running is not None
        os.kill(running.pid, signal.SIGKILL)

        def down() -> bool:
            try:
                answer(store)
            except DependencyDown as error:
                return error.reason.code is ReasonCode.DATABASE_UNAVAILABLE
            return False

        eventually(down, what="the lost server is reported as what it is")
        with open_store(world) as again:
            assert answer(again) == 42
        assert answer(store) == 42  # the old store finds the new server: same address
    assert servers(world.home) == []


def test_two_processes_start_it_at_once(world: Settings) -> None:
    both = [holder(world.home, "initialise"), holder(world.home, "initialise")]
    for process in both:
        wait_open(process)
    postmasters = [pid for pid in servers(world.home) if "-D" in psutil.Process(pid).cmdline()]
    assert len(postmasters) == 1
    for process in both:
        let_go(process)
    assert servers(world.home) == []


def test_a_pid_file_whose_id_was_used_again_does_not_stop_the_start(world: Settings) -> None:
    initialise(world).close()
    server = embedded.EmbeddedServer(world.home)
    user = pwd.getpwuid(server.data_dir.stat().st_uid)
    # a living process of the server's own user, with the id in a pid file of before
    bystander = subprocess.Popen(["sleep", "60"], user=user.pw_uid if os.geteuid() == 0 else None)
    try:
        pid_file = server.data_dir / "postmaster.pid"
        pid_file.write_text(f"{bystander.pid}\n{server.data_dir}\n1700000000\n5432\n{server.data_dir}\n\n1 2\nready\n")
        os.chown(pid_file, user.pw_uid, user.pw_gid)
        with open_store(world) as store:
            assert answer(store) == 42
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("name", ["d" * 120, "a 'quoted' \"folder\", with $SIGNS; and spaces"])
def test_deep_and_odd_data_folders(tmp_path: Path, name: str, clean_environment: pytest.MonkeyPatch) -> None:
    settings = load_settings(BLAID_HOME=tmp_path / name, BLAID_ENV="sandbox")
    with initialise(settings) as store:
        assert answer(store) == 42
        running = embedded.EmbeddedServer(settings.home).status()
        assert running is not None
        assert len(os.fsencode(running.socket_dir / embedded.SOCKET_NAME)) <= 107
        assert stat.S_IMODE(running.socket_dir.stat().st_mode) & 0o077 == 0  # nobody else may connect
    assert servers(settings.home) == []


def test_socket_folder_of_somebody_else_is_refused(tmp_path: Path, clean_environment: pytest.MonkeyPatch) -> None:
    settings = load_settings(BLAID_HOME=tmp_path / ("d" * 120), BLAID_ENV="sandbox")
    squatted = embedded.EmbeddedServer(settings.home)._socket_dir()
    squatted.mkdir(mode=0o777)
    squatted.chmod(0o777)
    try:
        with pytest.raises(StopAndFix, match="belongs to somebody else") as caught:
            initialise(settings)
        assert caught.value.reason.code is ReasonCode.INSTALLATION_BROKEN
    finally:
        squatted.rmdir()
    assert servers(settings.home) == []


def test_nothing_is_made_by_opening_what_is_not_there(world: Settings) -> None:
    with pytest.raises(StopAndFix) as caught:
        open_store(world)
    assert caught.value.reason.code is ReasonCode.SCHEMA_OUT_OF_DATE
    assert "blaid init" in caught.value.reason.suggested_fix
    assert not (world.home / "postgres").exists()


def test_strange_files_where_the_cluster_should_be_are_left_alone(world: Settings) -> None:
    (world.home / "postgres").mkdir(parents=True)
    (world.home / "postgres" / "precious").write_text("x")
    with pytest.raises(StopAndFix) as caught:
        initialise(world)
    assert caught.value.reason.code is ReasonCode.INSTALLATION_BROKEN
    assert (world.home / "postgres" / "precious").read_text() == "x"


def test_damaged_cluster_is_a_typed_failure_with_the_servers_own_words(world: Settings) -> None:
    initialise(world).close()
    (world.home / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(DependencyDown) as caught:
        open_store(world)
    assert caught.value.reason.code is ReasonCode.DATABASE_UNAVAILABLE
    assert "pg_control" in caught.value.reason.message or "database system" in caught.value.reason.message
    assert servers(world.home) == []


def test_a_forked_child_is_no_user_and_stops_nothing(world: Settings) -> None:
    initialise(world).close()
    code = (
        "import os\n"
        "from sqlalchemy import text\n"
        "from blaid_pipelines.settings import load_settings\n"
        "from blaid_pipelines.store.database import open_store\n"
        "store = open_store(load_settings())\n"
        "if os.fork() == 0:\n"
        "    raise SystemExit(0)\n"  # runs its exit handlers
        "os.wait()\n"
        "with store.session() as session:\n"
        "    assert session.execute(text('SELECT 1')).scalar_one() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(world.home), timeout=60)
    assert servers(world.home) == []


def test_the_server_sees_no_secret(world: Settings, clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("DATABENTO_API_KEY", "db-planted-secret")
    with initialise(world):
        running = embedded.EmbeddedServer(world.home).status()
        assert running is not None
        assert "planted" not in str(psutil.Process(running.pid).environ())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_runs_it_as_himself(tmp_path: Path, clean_environment: pytest.MonkeyPatch) -> None:
    nobody = pwd.getpwnam("nobody")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)
    as_nobody: dict[str, Any] = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}
    try:
        subprocess.run([sys.executable, "-c", "import sqlalchemy"], check=True, **as_nobody)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("this Python is not readable for other users")
    code = (
        "import os\n"
        "from blaid_pipelines.settings import load_settings\n"
        "from blaid_pipelines.store import embedded\n"
        "from blaid_pipelines.store.database import initialise\n"
        "settings = load_settings()\n"
        "with initialise(settings):\n"
        "    pid = embedded.EmbeddedServer(settings.home).status().pid\n"
        "    print(os.stat(f'/proc/{pid}').st_uid)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(home), capture_output=True, text=True, timeout=60, check=False, **as_nobody,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == nobody.pw_uid
    assert servers(home) == []
