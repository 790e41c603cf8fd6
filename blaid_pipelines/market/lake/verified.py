"""Which bar files were hashed before and have not been touched since, so that a pull need not hash five years again.

A file counts as untouched while its size, its times of change and its place on the disk are those at which its bytes
were last found right. That is kept in one small file in the lake, which may be lost or removed at any time: then
everything is hashed again. Nothing that is read as bars rests on it: loading checks every byte, always.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from blaid_pipelines.ids import sha256_hex

OWN_FOLDER = ".blaid"
"""Folder of the lake for what Blaid notes about the lake itself."""

YOUNG_NS = 2_000_000_000
"""A file changed so recently could change again within the same tick of the file system's clock: it is not noted."""


class VerifiedFiles:
    """What is known of one lake's files. Not thread-safe; :meth:`save` keeps it for the next process."""

    def __init__(self, lake: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._lake = lake
        self._note = lake / OWN_FOLDER / "verified.json"
        self._now_ns = now_ns
        self._known = self._read()
        self._changed = False
        self.hashed = 0

    def intact(self, path: str, sha256: str) -> bool:
        """Whether the file holds the bytes with this hash; False where it is gone or cannot be read."""
        try:
            looks = _looks(self._lake / path)
            entry = [sha256, *looks]
            if self._known.get(path) == entry:
                return True
            data = (self._lake / path).read_bytes()
            after = _looks(self._lake / path)
        except OSError:
            return False
        self.hashed += 1
        if sha256_hex(data) != sha256:
            self._changed |= self._known.pop(path, None) is not None
            return False
        if after == looks and self._now_ns() - max(looks[1], looks[2]) > YOUNG_NS:
            self._known[path] = entry
            self._changed = True
        return True

    def save(self) -> None:
        """Note what was found, for the next process. That it cannot be noted costs time later and nothing else."""
        if not self._changed:
            return
        temporary = self._note.with_name(f".{self._note.name}.{os.getpid()}.tmp")
        with suppress(OSError):
            self._note.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._known))
            os.replace(temporary, self._note)
            self._changed = False
        with suppress(OSError):
            temporary.unlink(missing_ok=True)

    def _read(self) -> dict[str, list[Any]]:
        try:
            found = json.loads(self._note.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _looks(path: Path) -> list[int]:
    """Size, times of change and place; the time of the inode's change cannot be set back by the owner of a file."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]
