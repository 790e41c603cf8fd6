"""Up, down and status of the local stack: Postgres, the Dagster webserver and daemon, the warehouse's docs, in sandbox
the gateway.

One stack a data folder: the processes themselves hold the folder's lock, so a second ``up`` is refused exactly as long
as one of them lives. ``run/up.json`` is for people and for ``status``; nothing is decided by it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blaid_pipelines.reasons import DependencyDown, Reason, ReasonCode, Refused, StopAndFix
from blaid_pipelines.settings import Settings
from blaid_pipelines.stack import processes
from blaid_pipelines.stack.services import Service, port_is_free, service_environment, services
from blaid_pipelines.store import dagster_home, embedded
from blaid_pipelines.store.database import Store, initialise, open_store
from blaid_pipelines.store.leases import FileLock

READY_TIMEOUT_S = 120.0
STOP_PATIENCE_S = 15.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class ProcessStatus:
    """One process of the stack: ``state`` is running, gone, or (for one that no file knows) child."""

    name: str
    pid: int
    state: str
    url: str | None
    log: str | None
    started_at: str | None


@dataclass(frozen=True)
class Stopped:
    """What ``down`` did: the ids of processes it ended, and whether the embedded Postgres is stopped now."""

    processes: list[int]
    postgres_stopped: bool
    postgres_in_use: bool


def up(
    settings: Settings, say: Say, *, workspace: Path | None = None, timeout_s: float = READY_TIMEOUT_S
) -> list[ProcessStatus]:
    """Start the stack of this data folder and wait until it answers. A fresh folder is initialised first.

    Raises :class:`Refused` (``ALREADY_RUNNING``) when one is up already, :class:`StopAndFix` (``PROCESS_FAILED``) for
    a port in use or code that does not load, :class:`DependencyDown` when a process ends or does not get ready; after
    any failure nothing that was started is left.
    """
    with _gate(settings):
        running = FileLock(_run_dir(settings) / "up.lock")
        if not running.try_acquire():
            raise Refused(
                Reason(
                    ReasonCode.ALREADY_RUNNING,
                    f"the stack of {settings.home} is up already",
                    "Use it (`blaid doctor` shows it), or stop it with `blaid down` first.",
                    {"processes": [process.pid for process in processes.marked_processes(settings.home)]},
                )
            )
        with running, _open(settings, say) as store:
            dagster_home.write(settings)
            keep_open = [running.fileno()]
            if settings.database_url is None:
                keep_open.append(embedded.lease_descriptor(settings.home))
            began = datetime.now(UTC)
            wanted = services(settings, store, began, workspace)
            _check_ports(wanted)
            try:
                started = _start(settings, wanted, keep_open, say)
                _await(settings, wanted, started, say, timeout_s)
            except BaseException:
                say("stopping what was started")
                processes.terminate(settings.home, patience_s=STOP_PATIENCE_S)
                _state_file(settings).unlink(missing_ok=True)
                raise
    return status(settings)


def down(settings: Settings, say: Say) -> Stopped:
    """Stop everything of this folder's stack, and the embedded Postgres unless some other command still uses it.

    Harmless when nothing runs. Raises :class:`DependencyDown` when a process cannot be ended.
    """
    with _gate(settings):
        ended, left = processes.terminate(settings.home, patience_s=STOP_PATIENCE_S)
        if left:
            raise DependencyDown(
                Reason(
                    ReasonCode.PROCESS_FAILED,
                    f"processes {', '.join(map(str, left))} do not end",
                    "End them by hand, then run `blaid down` again.",
                    {"processes": left},
                )
            )
        _state_file(settings).unlink(missing_ok=True)
        if settings.database_url is not None:
            return Stopped(ended, postgres_stopped=False, postgres_in_use=False)
        server = embedded.EmbeddedServer(settings.home)
        if not server.created:
            return Stopped(ended, postgres_stopped=False, postgres_in_use=False)
        ran = server.status() is not None
        stopped = embedded.Lease(server).release()
        if not stopped:
            say("Postgres stays: another command still uses it, and stops it when it ends")
        return Stopped(ended, postgres_stopped=ran and stopped, postgres_in_use=not stopped)


def status(settings: Settings) -> list[ProcessStatus]:
    """Every process of this folder's stack: the services as they were started, then their children, then Postgres."""
    known = _read_state(settings)
    found = [
        ProcessStatus(
            entry["name"],
            entry["pid"],
            "running" if processes.is_alive(entry["pid"], entry["create_time"]) else "gone",
            entry["url"],
            entry["log"],
            entry["started_at"],
        )
        for entry in known
    ]
    pids = {entry["pid"] for entry in known}
    for process in processes.marked_processes(settings.home):
        if process.pid not in pids:
            found.append(ProcessStatus(process.name(), process.pid, "child", None, None, None))
    if settings.database_url is None:
        server = embedded.EmbeddedServer(settings.home)
        running = server.status()
        if running is not None:
            found.append(ProcessStatus("postgres", running.pid, "running", None, str(server.log_path), None))
    return found


def is_up(settings: Settings) -> bool:
    """True while at least one service of the stack lives."""
    path = _run_dir(settings) / "up.lock"
    if not path.exists():
        return False
    probe = FileLock(path)
    with probe:
        return not probe.try_acquire()


def _run_dir(settings: Settings) -> Path:
    return settings.home.resolve() / "run"


def _state_file(settings: Settings) -> Path:
    return _run_dir(settings) / "up.json"


def _gate(settings: Settings) -> FileLock:
    """The lock that one ``up`` or ``down`` at a time holds, taken."""
    gate = FileLock(_run_dir(settings) / "stack.gate")
    if not gate.try_acquire():
        raise Refused(
            Reason(
                ReasonCode.ALREADY_RUNNING,
                f"another `blaid up` or `blaid down` is at work on {settings.home}",
                "Wait until it is done.",
                {"lock": str(gate.path)},
            )
        )
    return gate


def _open(settings: Settings, say: Say) -> Store:
    if settings.database_url is None and not embedded.EmbeddedServer(settings.home).created:
        say(f"initialising {settings.home}")
        return initialise(settings)
    return open_store(settings)


def _check_ports(wanted: list[Service]) -> None:
    variables = {
        "dagster-webserver": "BLAID_WEBSERVER_PORT",
        "docs": "BLAID_DOCS_PORT",
        "sandbox": "BLAID_SANDBOX_PORT",
    }
    taken = [service for service in wanted if service.port is not None and not port_is_free(service.port)]
    if taken:
        raise StopAndFix(
            *(
                Reason(
                    ReasonCode.PROCESS_FAILED,
                    f"port {service.port} of {service.name} is in use",
                    f"Set {variables[service.name]} to a free port, or stop what listens there.",
                    {"port": service.port, "service": service.name},
                )
                for service in taken
            )
        )


def _start(settings: Settings, wanted: list[Service], keep_open: list[int], say: Say) -> dict[str, processes.Spawned]:
    environment = service_environment(settings)
    started: dict[str, processes.Spawned] = {}
    entries: list[dict[str, Any]] = []
    for service in wanted:
        log = settings.log_dir / f"{service.name}.log"
        say(f"starting {service.name}")
        spawned = processes.spawn(
            service.command, home=settings.home, environment=environment, log=log, keep_open=keep_open
        )
        started[service.name] = spawned
        entries.append(
            {
                "name": service.name,
                **asdict(spawned),
                "url": service.url,
                "log": str(log),
                "started_at": datetime.fromtimestamp(spawned.create_time, UTC).isoformat(timespec="seconds"),
            }
        )
        _write_state(settings, entries)
    return started


def _await(
    settings: Settings, wanted: list[Service], started: dict[str, processes.Spawned], say: Say, timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    waiting = {service.name: service for service in wanted}
    while waiting:
        for name, service in list(waiting.items()):
            spawned = started[name]
            if not processes.is_alive(spawned.pid, spawned.create_time):
                raise DependencyDown(_failed(settings, name, "ended while starting"))
            if service.ready():
                say(f"{name} is ready{f' at {service.url}' if service.url else ''}")
                del waiting[name]
        if waiting and time.monotonic() > deadline:
            raise DependencyDown(
                *(_failed(settings, name, f"was not ready within {timeout_s:g} s") for name in waiting)
            )
        time.sleep(0.2)


def _failed(settings: Settings, name: str, what: str) -> Reason:
    log = settings.log_dir / f"{name}.log"
    tail = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
    return Reason(
        ReasonCode.PROCESS_FAILED,
        f"{name} {what}; its last words: {' | '.join(tail)[-600:] or 'none'}",
        f"Read {log}, then run `blaid doctor`.",
        {"service": name, "log": str(log)},
    )


def _write_state(settings: Settings, entries: list[dict[str, Any]]) -> None:
    target = _state_file(settings)
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(entries, indent=1))
    temporary.replace(target)


def _read_state(settings: Settings) -> list[dict[str, Any]]:
    try:
        return list(json.loads(_state_file(settings).read_text()))
    except (FileNotFoundError, ValueError):  # for people only: processes are found by their mark
        return []
