"""The code location: assembles assets, checks, jobs, the sensor and resources, and does nothing else.

Loading it opens no connection, writes no file and imports neither great_expectations nor dbt.
"""

import dagster as dg

from assets.jobs import JOBS
from assets.lab import bots, lab_cohort, provider_requests
from assets.market import bars, instruments, judged_snapshots, matches_definitions, quality_verdict
from assets.marts import build_warehouse
from assets.reconciliation import reconciliation
from resources.lab import LabResource
from sensors.lab_cadence import lab_cadence

defs = dg.Definitions(
    assets=[
        instruments,
        bars,
        quality_verdict,
        reconciliation,
        judged_snapshots,
        bots,
        provider_requests,
        lab_cohort,
        build_warehouse,
    ],
    asset_checks=[matches_definitions],
    jobs=JOBS,
    sensors=[lab_cadence],
    resources={"lab": LabResource()},
    executor=dg.in_process_executor,
)
