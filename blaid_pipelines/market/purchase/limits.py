"""How bars are bought: the size of one purchase, how many at a time, how fast, and the pace that holds them to it.

Policy holds the values. What may be spent is ``budget``'s business.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field

BURST = 4
"""Requests that may leave at once after a rest: with the highest rate allowed they stay under Databento's 20/s."""


class PullLimits(BaseModel):
    """Limits on how a provider is asked for bars. Every field is required; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    months_per_request: int = Field(
        ge=1,
        le=12,
        description="UTC months that one purchase may span: what a killed pull may have to buy again.",
        json_schema_extra={"looser": "higher", "unit": "months"},
    )
    parallel_downloads: int = Field(
        ge=1,
        le=16,
        description="Purchases of one pull under way at a time.",
        json_schema_extra={"looser": "higher", "unit": "requests"},
    )
    requests_per_second: float = Field(
        gt=0,
        le=16,
        description="Requests of one kind (metadata, symbology, time series) that this process sends a second.",
        json_schema_extra={"looser": "higher", "unit": "1/s"},
    )
    call_deadline_s: float = Field(
        gt=0,
        le=3600,
        description="Longest time for one call as a whole; a slower one is cut and ends as TIMEOUT.",
        json_schema_extra={"looser": "higher", "unit": "s"},
    )


DEFAULT_LIMITS = PullLimits(months_per_request=1, parallel_downloads=4, requests_per_second=16.0, call_deadline_s=600.0)
"""The default policy's values, for callers that have no policy at hand (a test holds the two together)."""


class Pace:
    """A token bucket: ``per_second`` on average, at most :data:`BURST` at once. Thread-safe."""

    def __init__(
        self,
        per_second: float,
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._per_second = per_second
        self._timer = timer
        self._sleep = sleep
        self._lock = threading.Lock()
        self._tokens = float(BURST)
        self._at = timer()

    def wait(self) -> None:
        """Return when one more request may leave."""
        with self._lock:
            now = self._timer()
            self._tokens = min(float(BURST), self._tokens + (now - self._at) * self._per_second)
            self._at = now
            self._tokens -= 1  # taken now, perhaps on credit: those who come later wait behind
            owed = max(0.0, -self._tokens) / self._per_second
        if owed:
            self._sleep(owed)


_paces: dict[tuple[str, str, float], Pace] = {}
_paces_lock = threading.Lock()


def pace_of(provider_url: str, per_second: float) -> Callable[[str], None]:
    """The pace that every client of this process shares for one provider: called with an endpoint, it waits its turn.

    Each kind of endpoint (``metadata``, ``symbology``, ``timeseries``) has its own, as Databento counts them.
    """

    def wait(endpoint: str) -> None:
        key = (provider_url, endpoint.partition(".")[0], per_second)
        with _paces_lock:
            pace = _paces.setdefault(key, Pace(per_second))
        pace.wait()

    return wait
