"""What is wrong with an installation, and how to mend it: a list of checks, each of which only looks.

Nothing is repaired here, and nothing is started except, for the look into it, the embedded Postgres.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

import blaid_pipelines
from blaid_pipelines.reasons import BlaidError, Reason
from blaid_pipelines.settings import Environment, Settings
from blaid_pipelines.stack import lifecycle
from blaid_pipelines.stack.services import port_is_free, workspace_file
from blaid_pipelines.store import dagster_home, embedded
from blaid_pipelines.store.database import open_store

MIN_FREE_BYTES = 2_000_000_000
PYTHON_VERSIONS = ((3, 11), (3, 13))


@dataclass(frozen=True)
class Check:
    """One line of the doctor's answer."""

    name: str
    ok: bool
    message: str
    suggested_fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"check": self.name, "ok": self.ok, "message": self.message, "suggested_fix": self.suggested_fix}


def examine(settings: Settings) -> list[Check]:
    """All checks, in the order in which their problems are best mended."""
    checks: list[Check] = []
    for look in _CHECKS:
        try:
            checks.extend(look(settings))
        except BlaidError as error:
            checks.extend(_problem(look.__name__.strip("_"), reason) for reason in error.reasons)
    return checks


def _problem(name: str, reason: Reason) -> Check:
    return Check(name, False, str(reason), reason.suggested_fix)


def _python(_: Settings) -> Iterator[Check]:
    version = sys.version_info[:2]
    low, high = PYTHON_VERSIONS
    said = f"Python {version[0]}.{version[1]}"
    if low <= version <= high:
        yield Check("python", True, said)
    else:
        yield Check(
            "python", False, f"{said} is not supported", "Use Python 3.11, 3.12 or 3.13 (make PYTHON=python3.12)."
        )


def lock_differences(lock: str, installed: Callable[[str], str | None]) -> list[str]:
    """Packages of a lock file that are missing or of another version; ``installed`` tells a name's version."""
    found = []
    for line in lock.splitlines():
        if not re.match(r"[A-Za-z0-9]", line):
            continue
        requirement = Requirement(line.split("\\", 1)[0].split(" --hash", 1)[0].strip())
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        version = installed(requirement.name)
        if version is None:
            found.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    return found


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _packages(_: Settings) -> Iterator[Check]:
    lock = Path(blaid_pipelines.__file__).parents[1] / "requirements.lock"
    if not lock.is_file():
        yield Check("packages", True, "installed as a package; there is no lock file to compare with")
        return
    different = lock_differences(lock.read_text(), _installed_version)
    if different:
        more = f" and {len(different) - 5} more" if len(different) > 5 else ""
        yield Check("packages", False, "; ".join(different[:5]) + more, "Run `make install`.")
    else:
        yield Check("packages", True, "as in requirements.lock")


def _home(settings: Settings) -> Iterator[Check]:
    fix = "Run `blaid init`; check BLAID_HOME if there should be an installation."
    for name, folder in (("home", settings.home), ("lake", settings.lake)):
        if not folder.is_dir():
            yield Check(name, False, f"{folder} does not exist", fix)
        elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            yield Check(name, False, f"{folder} is not writable", "Give it to the user that runs blaid.")
        else:
            yield Check(name, True, str(folder))


def _disk(settings: Settings) -> Iterator[Check]:
    folder = settings.home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    said = f"{free / 1e9:.1f} GB free at {folder}"
    yield Check("disk", free >= MIN_FREE_BYTES, said, "" if free >= MIN_FREE_BYTES else "Make room: at least 2 GB.")


def _database(settings: Settings) -> Iterator[Check]:
    """Server, world and schema, through the same door that every command uses."""
    with open_store(settings) as store:
        where = "embedded Postgres" if settings.database_url is None else "the server of BLAID_DATABASE_URL"
        yield Check("database", True, f"{where} answers, stamped {settings.env.value}, schema at head")
        with store.engine.connect() as connection:
            version = connection.exec_driver_sql("SHOW server_version").scalar()
        yield Check("postgres", True, f"Postgres {version}")


def _socket(settings: Settings) -> Iterator[Check]:
    if settings.database_url is not None:
        return
    server = embedded.EmbeddedServer(settings.home)
    yield Check("server programs", True, str(embedded.programs_dir()))
    if server.created and not (server.data_dir / "postgresql.conf").is_file():
        yield Check(
            "data folder",
            False,
            f"{server.data_dir} is incomplete",
            "Restore it from a backup, or move it away and run `blaid init`.",
        )
    # Before the database is looked into: opening it starts the server again.
    if server.created and embedded.Lease(server).server_lost():
        yield Check(
            "postgres process",
            False,
            "the embedded Postgres ended while processes were using it; this command starts it again",
            f"Read {server.log_path} for why. Running processes connect again by themselves; what they did meanwhile "
            "failed: run it again. Then run `blaid doctor` again.",
        )


def _policy(settings: Settings) -> Iterator[Check]:
    from blaid_pipelines.policy.load import load_policy

    policy = load_policy(settings.policy_path)
    yield Check("policy", True, f"version {policy.version}, {policy.hash[:12]}")


def _sandbox_key(settings: Settings) -> Iterator[Check]:
    if settings.env is not Environment.SANDBOX:
        if settings.databento_key() is None:
            yield Check("databento key", False, "DATABENTO_API_KEY is not set", "Set it before you pull bars.")
        return
    path = settings.sandbox_key_path
    if not path.is_file():
        yield Check("sandbox key", False, f"{path} does not exist", "Run `blaid init`.")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Check("sandbox key", False, f"{path} has mode {mode:04o}: others may read it", f"Run `chmod 600 {path}`.")
    elif not path.read_text().strip():
        yield Check("sandbox key", False, f"{path} is empty", "Remove it and run `blaid init`.")
    else:
        yield Check("sandbox key", True, f"present, mode {mode:04o}")


def _dagster(settings: Settings) -> Iterator[Check]:
    if dagster_home.is_current(settings):
        yield Check("dagster.yaml", True, str(settings.dagster_home / "dagster.yaml"))
    else:
        yield Check(
            "dagster.yaml",
            False,
            f"{settings.dagster_home / 'dagster.yaml'} is missing or not this version's",
            "Run `blaid init`; it keeps a changed file as dagster.yaml.previous.",
        )
    given = os.environ.get("DAGSTER_HOME")
    if given and Path(given).absolute() != settings.dagster_home:
        yield Check(
            "DAGSTER_HOME",
            False,
            f"DAGSTER_HOME={given} points at another Dagster instance",
            "Unset it; blaid sets it for its own processes.",
        )
    found = workspace_file()
    yield Check("workspace", True, str(found) if found else "none in a checkout: the installed package is loaded")


def _stack(settings: Settings) -> Iterator[Check]:
    found = lifecycle.status(settings)
    up = lifecycle.is_up(settings)
    gone = [process for process in found if process.state == "gone"]
    for process in gone:
        yield Check(
            process.name,
            False,
            f"{process.name} (process {process.pid}) has ended" + ("" if up else "; its pid file is stale"),
            f"Read {process.log}; run `blaid down`, then `blaid up`.",
        )
    if not up and any(process.state == "child" for process in found):
        yield Check("orphans", False, "processes of an earlier `blaid up` still run", "Run `blaid down`.")
    if up:
        running = [process for process in found if process.state == "running"]
        yield Check(
            "stack",
            not gone,
            "up: " + ", ".join(_shown(process) for process in running),
            "" if not gone else "See above.",
        )
        return
    yield Check("stack", True, "down")
    ports = {"BLAID_WEBSERVER_PORT": settings.webserver_port, "BLAID_DOCS_PORT": settings.docs_port}
    if settings.env is Environment.SANDBOX and settings.databento_url_setting is None:
        ports["BLAID_SANDBOX_PORT"] = settings.sandbox_port
    for variable, port in ports.items():
        free = port_is_free(port)
        fix = "" if free else f"Set {variable} to a free port, or stop what listens there."
        yield Check(f"port {port}", free, "free" if free else "something else listens there", fix)


def _shown(process: lifecycle.ProcessStatus) -> str:
    return process.name if process.url is None else f"{process.name} at {process.url}"


_CHECKS: tuple[Callable[[Settings], Iterator[Check]], ...] = (
    _python,
    _packages,
    _home,
    _disk,
    _socket,
    _database,
    _policy,
    _sandbox_key,
    _dagster,
    _stack,
)
