"""The three jobs as people start them from the command line: one series, one cohort, the warehouse.

Each waits for its run and returns what the assets reported. What a job does is in ``assets``; how it is run in this
process is in ``resources.launch``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blaid_pipelines.settings import Settings
from resources.launch import JobResult, run_job_in_process

# Failures come back as typed errors and refused snapshots as verdicts; Dagster's own log of them is in the UI.
QUIET = "CRITICAL"


@dataclass(frozen=True)
class SeriesRun:
    """A run of ``market_data``: what the ``bars`` asset reported of its snapshot."""

    run_id: str
    bars: Mapping[str, Any]


def run_market_data(settings: Settings, symbol: str, bars_config: Mapping[str, Any]) -> SeriesRun:
    """Pull or ingest one series and judge it.

    Raises the error with which the run failed. A snapshot that the quality gate refuses raises nothing here: its
    verdict is stored, and everything that would use the snapshot refuses it.
    """
    config = {
        "ops": {
            "bars": {"config": dict(bars_config)},
            "quality_verdict": {"config": {"data_schema": bars_config["data_schema"]}},
        }
    }
    result = run_job_in_process(settings, "market_data", config, partition_key=symbol, log_level=QUIET)
    made = [event.metadata for event in result.materialized if event.asset == "bars"]
    judged = any(event.asset == "quality_verdict" for event in result.materialized)
    if not made or not judged:
        result.raise_for_failure()
    return SeriesRun(result.run_id, made[-1])


def run_lab_cycle(settings: Settings, bots: Sequence[str], *, snapshot_id: str | None = None) -> JobResult:
    """One cycle for ``bots`` in one run; raises the error with which the run failed."""
    cohort: dict[str, Any] = {"bots": list(bots), **({"snapshot_id": snapshot_id} if snapshot_id else {})}
    result = run_job_in_process(
        settings,
        "lab_cycle",
        {"ops": {"lab_cohort": {"config": cohort}}},
    )
    result.raise_for_failure()
    return result


def run_warehouse(settings: Settings) -> JobResult:
    """Build, test and publish the analysts' warehouse; raises the error with which the run failed."""
    result = run_job_in_process(settings, "warehouse", log_level=QUIET)
    result.raise_for_failure()
    return result
