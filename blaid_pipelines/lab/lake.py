"""The lake as a job: a clean-up leaves a row like any other work, with its trace id on every file that it removed."""

from __future__ import annotations

from collections.abc import Callable

from blaid_pipelines.jobs.machine import JobType
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.lab.series import as_job
from blaid_pipelines.market.lake.cleanup import CleanResult, LakeFile, clean_lake
from blaid_pipelines.proof.recorder import CallContext


def clean(
    lab: LabContext, *, age_hours: float, bought: bool, progress: Callable[[LakeFile], None] = lambda _: None
) -> tuple[str, CleanResult]:
    """Remove what nothing worth keeping cites, as one LAKE_CLEAN job; its trace id and what went."""

    def work(context: CallContext) -> CleanResult:
        return clean_lake(
            lab.store,
            lab.lake,
            context.trace_id,
            lab.clock(),
            age_hours=age_hours,
            bought=bought,
            progress=progress,
        )

    return as_job(lab, JobType.LAKE_CLEAN, work, None)
