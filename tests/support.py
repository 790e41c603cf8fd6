"""Helpers that tests of every area share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], *, timeout_s: float = 10.0, interval_s: float = 0.02, what: str = "") -> T:
    """Call ``probe`` until it returns something true and return that; fail after ``timeout_s``.

    An ``AssertionError`` from the probe counts as not yet.
    """
    deadline = time.monotonic() + timeout_s
    last: BaseException | None = None
    while True:
        try:
            found = probe()
            if found:
                return found
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what or probe}") from last
        time.sleep(interval_s)
