"""File locks (flock) by which processes share one data folder: held by the kernel, so ``kill -9`` releases them.

A lock belongs to the open file, not to the process: a child that is given the descriptor keeps it held after its
parent ended. ``blaid up`` uses that to leave the embedded server a user that lives as long as its own processes do.
Nothing here knows what a lock is for.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from blaid_pipelines.reasons import DependencyDown, Reason, ReasonCode


class FileLock:
    """One flock on one file, shared or exclusive. Not re-entrant; not for use by several threads at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """True while this object holds the lock."""
        return self._fd is not None

    def fileno(self) -> int:
        """The descriptor, to pass on to a child process. Raises ``ValueError`` while not held."""
        if self._fd is None:
            raise ValueError(f"{self.path.name} is not held")
        return self._fd

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Take the lock now or return False."""
        if self._fd is not None:
            raise ValueError(f"{self.path.name} is already held by this object")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def acquire(self, *, shared: bool = False, timeout_s: float) -> None:
        """Take the lock, waiting up to ``timeout_s``; raises :class:`DependencyDown` after that."""
        deadline = time.monotonic() + timeout_s
        while not self.try_acquire(shared=shared):
            if time.monotonic() > deadline:
                raise DependencyDown(
                    Reason(
                        ReasonCode.DATABASE_UNAVAILABLE,
                        f"another process has held {self.path} for more than {timeout_s:g} s",
                        "See which process starts or stops the server (`blaid doctor`), then try again.",
                        {"lock": str(self.path), "waited_s": timeout_s},
                    )
                )
            time.sleep(0.02)

    def release(self) -> None:
        """Give the lock back (a child that was given the descriptor keeps it held). Harmless when not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
