"""``DAGSTER_HOME`` of an installation: its ``dagster.yaml`` and the variables that go with it. Dagster is not imported.

The file is ours: it is written from the packaged template (``deploy/dagster.yaml`` in a checkout), and a version that
differs is kept beside it as ``dagster.yaml.previous``.
"""

from __future__ import annotations

import os
from pathlib import Path

from blaid_pipelines.settings import Settings

TEMPLATE = Path(__file__).parent / "dagster.yaml"
# One insert for many events: a run over a thousand partitions is three times as fast.
EVENT_BATCH_SIZE = 200


def write(settings: Settings) -> bool:
    """Write ``dagster.yaml`` unless it is there and the same. Returns True when it was written."""
    wanted = TEMPLATE.read_text()
    target = settings.dagster_home / "dagster.yaml"
    if target.exists():
        if target.read_text() == wanted:
            return False
        target.replace(target.with_suffix(".yaml.previous"))
    temporary = target.with_suffix(f".yaml.{os.getpid()}.tmp")
    temporary.write_text(wanted)
    temporary.replace(target)
    return True


def is_current(settings: Settings) -> bool:
    """True when the installation's ``dagster.yaml`` is the one this code would write."""
    target = settings.dagster_home / "dagster.yaml"
    return target.is_file() and target.read_text() == TEMPLATE.read_text()


def environment(settings: Settings, database_url: str) -> dict[str, str]:
    """Variables for a process that opens our Dagster instance."""
    return {
        "DAGSTER_HOME": str(settings.dagster_home),
        "BLAID_DAGSTER_POSTGRES_URL": database_url,
        "DAGSTER_EVENT_BATCH_SIZE": str(EVENT_BATCH_SIZE),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "PGTZ": "UTC",  # the caller's own would overrule the address's options
    }
