"""Importing what files say of contracts, as one job with its trace id; what that means is in ``market.contracts``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blaid_pipelines.jobs.machine import JobType
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.lab.series import as_job
from blaid_pipelines.market.contracts import Imported, import_contracts
from blaid_pipelines.proof.recorder import CallContext


@dataclass(frozen=True)
class ContractsOutcome:
    """What an import brought, and the trace id of its job."""

    trace_id: str
    imported: Imported


def import_contract_files(lab: LabContext, paths: Sequence[Path], *, tz: str | None = None) -> ContractsOutcome:
    """Add definitions, open interest and cleared volume from files, as one CONTRACT_IMPORT job. No external call."""

    def work(context: CallContext) -> Imported:
        return import_contracts(lab.store, paths, trace_id=context.trace_id, tz=tz)

    trace_id, imported = as_job(lab, JobType.CONTRACT_IMPORT, work, None)
    return ContractsOutcome(trace_id, imported)
