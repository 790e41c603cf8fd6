"""What every piece of LAB work needs: settings, store, policy and the recorder, opened together and closed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from blaid_pipelines.policy.load import load_policy
from blaid_pipelines.policy.model import Policy
from blaid_pipelines.proof.recorder import Recorder, wire_log_path
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store, open_store


def utc_now() -> datetime:
    """The wall clock; the only place where the LAB reads it."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class LabContext:
    """An open LAB. ``clock`` is what stamps jobs and sessions; tests pass their own."""

    settings: Settings
    store: Store
    policy: Policy
    recorder: Recorder
    clock: Callable[[], datetime] = field(default=utc_now)

    @property
    def lake(self) -> Path:
        """The folder of the Parquet lake."""
        return self.settings.lake


@contextmanager
def open_lab(settings: Settings) -> Iterator[LabContext]:
    """Load the policy, open the store, and close it at the end.

    Raises what :func:`load_policy` and :func:`open_store` raise: nothing runs on a broken policy or a foreign database.
    """
    policy = load_policy(settings.policy_path)
    with open_store(settings) as store:
        yield LabContext(settings, store, policy, Recorder(store, wire_log_path(settings)))
