"""Starting, finding and ending the processes of one data folder, whatever became of whoever started them.

Every process of a stack carries the folder in its environment (``BLAID_STACK``) and its children inherit that, so all
of them are found again without trusting a pid file: code servers, run workers, orphans. What is started is not known
here.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "BLAID_STACK"
MAX_LOG_BYTES = 20_000_000
_GONE = (psutil.NoSuchProcess, psutil.ZombieProcess)


@dataclass(frozen=True, slots=True)
class Spawned:
    """A started process: its id and start time together name it, because ids are used again."""

    pid: int
    create_time: float


def spawn(
    command: Sequence[str], *, home: Path, environment: Mapping[str, str], log: Path, keep_open: Iterable[int] = ()
) -> Spawned:
    """Start ``command`` in a session of its own, output to ``log``, holding the descriptors ``keep_open``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, MARK: str(home.resolve())},
            start_new_session=True,
            pass_fds=tuple(keep_open),
            cwd=home,
        )
    process.returncode = 0  # it outlives us on purpose: no warning about a child that still runs
    return Spawned(process.pid, psutil.Process(process.pid).create_time())


def is_alive(pid: int, create_time: float) -> bool:
    """True while that very process runs (a zombie does not)."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - create_time) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except _GONE:
        return False


def marked_processes(home: Path) -> list[psutil.Process]:
    """All living processes of this folder's stack, other than ourselves and whoever called us."""
    wanted = str(home.resolve())
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid in ours or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(MARK) == wanted:
                found.append(process)
        except (*_GONE, psutil.AccessDenied):
            continue  # ended meanwhile, or another user's
    return sorted(found, key=lambda process: process.pid)


def terminate(home: Path, *, patience_s: float) -> tuple[list[int], list[int]]:
    """End all processes of this folder's stack: TERM, after ``patience_s`` KILL, again for any that appear meanwhile.

    Returns the ids that were ended and those that could not be.
    """
    ended: set[int] = set()
    asked = marked_processes(home)
    for process in asked:
        _send(process, force=False)
    _, slow = psutil.wait_procs(asked, timeout=patience_s)
    ended.update(process.pid for process in asked if process not in slow)
    for _ in range(5):
        left = marked_processes(home)
        if not left:
            return sorted(ended), []
        for process in left:
            _send(process, force=True)
        psutil.wait_procs(left, timeout=5)
        ended.update(process.pid for process in left)
    remaining = [process.pid for process in marked_processes(home)]
    return sorted(ended - set(remaining)), remaining


def _send(process: psutil.Process, *, force: bool) -> None:
    try:
        if force:
            process.kill()
        else:
            process.terminate()
    except _GONE:
        return
