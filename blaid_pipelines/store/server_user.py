"""Who the embedded Postgres runs as. Postgres refuses to run as root, so root lends it a system user of its own.

For everybody else the server runs as the caller and nothing here does anything. For root: the user ``pgserver`` is
made when it is missing, and folders above the data folder and the server's programs are made traversable (``o+x``,
never readable) where they are not, because the server must reach them. Each such change is logged.
"""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix

SYSTEM_USER = "pgserver"
_log = logging.getLogger("blaid.store")


@dataclass(frozen=True, slots=True)
class ServerUser:
    """User and group ids of the server's processes; ``lent`` is True when they are not the caller's own."""

    uid: int
    gid: int
    lent: bool

    def subprocess_arguments(self) -> dict[str, Any]:
        """Arguments for ``subprocess`` that run a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.lent else {}

    def own(self, path: Path) -> None:
        """Give ``path`` to this user."""
        if self.lent:
            os.chown(path, self.uid, self.gid)

    def let_reach(self, folder: Path) -> None:
        """Make every folder from the root down to ``folder`` traversable for this user."""
        if not self.lent:
            return
        for step in reversed([folder, *folder.parents]):
            status = step.stat()
            if status.st_uid != self.uid and not status.st_mode & stat.S_IXOTH:
                _log.warning("made %s traversable (o+x): the database runs as user %s", step, SYSTEM_USER)
                step.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)

    def let_run(self, programs: Path) -> None:
        """Make the folder tree ``programs`` (the server's own package files) readable and runnable for this user."""
        if not self.lent:
            return
        self.let_reach(programs)
        for entry in [programs, *programs.rglob("*")]:
            if entry.is_symlink():
                continue
            mode = stat.S_IMODE(entry.stat().st_mode)
            wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
            if wanted != mode:
                entry.chmod(wanted)


def server_user() -> ServerUser:
    """The user the server runs as. Raises :class:`StopAndFix` when root has no way to make one."""
    if os.geteuid() != 0:
        return ServerUser(os.geteuid(), os.getegid(), lent=False)
    entry = _lookup() or _create()
    return ServerUser(entry.pw_uid, entry.pw_gid, lent=True)


def _lookup() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return None


def _create() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", SYSTEM_USER]
    if shutil.which("useradd") is None:
        command = ["adduser", "-S", "-D", "-H", "-s", "/bin/false", SYSTEM_USER]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        complaint = done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        complaint = str(error)
    entry = _lookup()  # another process may have made it meanwhile: only the outcome counts
    if entry is None:
        raise StopAndFix(
            Reason(
                ReasonCode.INSTALLATION_BROKEN,
                f"Postgres does not run as root, and the system user {SYSTEM_USER} cannot be made: {complaint}",
                f"Run blaid as an ordinary user, create the user {SYSTEM_USER}, or set BLAID_DATABASE_URL.",
                {"user": SYSTEM_USER},
            )
        )
    return entry
