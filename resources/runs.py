"""Runs whose process is gone: found by their claims and reported as failed, so that they hold up nobody.

Dagster itself has no sign of life for a run in a command's own process or under its default launcher: without this a
killed run stays STARTED until its longest allowed time, and queue and sensor wait for it. A run started by a command
carries the key of its claim as a tag; one started by the daemon is known by the claim of the jobs that it works on.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blaid_pipelines.store.database import Store

CLAIM_TAG = "blaid/claim"
IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_GONE = "The process that worked on this run is gone; what it had not stored is lost. The next cycle starts a new run."


def end_dead_runs(instance: dg.DagsterInstance, store: Store, now: datetime) -> list[str]:
    """Report every abandoned run as failed; returns their ids. Runs that somebody works on are left alone."""
    from blaid_pipelines.jobs.machine import dead_run_ids

    runs = [record.dagster_run for record in instance.get_run_records(dg.RunsFilter(statuses=IN_PROGRESS))]
    with store.session() as session:
        dead = dead_run_ids(session, {run.run_id: _claim_key(run) for run in runs}, now=now)
    for run in runs:
        if run.run_id in dead:
            instance.report_run_failed(run, message=_GONE)
    return sorted(dead)


def _claim_key(run: dg.DagsterRun) -> int | None:
    value = run.tags.get(CLAIM_TAG, "")
    return int(value) if value.isdecimal() else None


def in_progress(instance: dg.DagsterInstance, job_name: str) -> Sequence[dg.RunRecord]:
    """The oldest run of ``job_name`` that has not ended, or nothing."""
    return instance.get_run_records(dg.RunsFilter(job_name=job_name, statuses=IN_PROGRESS), limit=1, ascending=True)
