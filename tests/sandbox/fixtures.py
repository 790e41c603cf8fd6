"""The running sandbox gateway for tests of every area: ``gateway()`` starts one on a free port with the settings' key.

It hands back the gateway; ``gateway.settings`` are the test's settings, pointed at it (also in the environment, for
commands and child processes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date

import pytest

from blaid_pipelines.proof.usage import request_log_path
from blaid_pipelines.sandbox.gateway import Fault, SandboxGateway
from blaid_pipelines.sandbox.series import Series
from blaid_pipelines.sandbox.synthetic import Recipe, synthesise
from blaid_pipelines.settings import Settings, load_settings

SMALL = Recipe("MES.c.0", date(2024, 3, 11), date(2024, 3, 20))
"""A week and a half of MES across the roll from MESH4 to MESM4 on 2024-03-15."""


class RunningGateway(SandboxGateway):
    """A gateway and the settings of a world that uses it."""

    settings: Settings


StartGateway = Callable[..., RunningGateway]


@pytest.fixture
def gateway(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartGateway]:
    """``gateway(series=[...], faults=[...])``: started, stopped after the test. Default: a small MES series."""
    running: list[RunningGateway] = []

    def start(
        series: Sequence[Series] | None = None,
        faults: Iterable[Fault] = (),
        backup_series: Sequence[Series] | None = None,
    ) -> RunningGateway:
        key = settings.databento_key()
        assert key is not None, "the sandbox world has a key"
        started = RunningGateway(
            [synthesise(SMALL)] if series is None else series,
            key=key.get_secret_value(),
            request_log=request_log_path(settings),
            faults=faults,
            backup_series=backup_series,
        )
        started.start()
        running.append(started)
        monkeypatch.setenv("BLAID_DATABENTO_URL", started.url)
        monkeypatch.setenv("BLAID_MASSIVE_URL", started.url)
        started.settings = load_settings()
        return started

    yield start
    for started in running:
        started.stop()
