"""The jobs that people, sensors and commands start. All run in one process: a step process costs seconds."""

from __future__ import annotations

import dagster as dg

LAB_CYCLE_JOB = "lab_cycle"
# A run whose host died is ended by run monitoring after this long, so that it cannot hold up the LAB for ever.
MAX_RUNTIME_TAG = "dagster/max_runtime"

reference_data = dg.define_asset_job(
    "reference_data",
    selection=["instruments"],
    executor_def=dg.in_process_executor,
    tags={MAX_RUNTIME_TAG: "3600"},
    description="The instruments table as it stands, held against the provider's definitions of pulled contracts.",
)
market_data = dg.define_asset_job(
    "market_data",
    selection=["bars", "quality_verdict"],
    executor_def=dg.in_process_executor,
    tags={MAX_RUNTIME_TAG: "3600"},
    description="One series: pull or ingest its bars, then put the snapshot through the quality gate.",
)
reconcile = dg.define_asset_job(
    "reconcile",
    selection=["reconciliation"],
    executor_def=dg.in_process_executor,
    tags={MAX_RUNTIME_TAG: "3600"},
    description="The bars of one series held against the backup provider, daily bars, or other copies in the lake.",
)
lab_cycle = dg.define_asset_job(
    LAB_CYCLE_JOB,
    selection=["backtest", "diagnostics", "autonomy_score", "promotion_decision"],
    executor_def=dg.in_process_executor,
    tags={MAX_RUNTIME_TAG: "3600"},
    description="One cohort of bots: backtest, diagnose, score and decide, in one run.",
)
warehouse = dg.define_asset_job(
    "warehouse",
    selection=dg.AssetSelection.groups("warehouse"),
    executor_def=dg.in_process_executor,
    tags={MAX_RUNTIME_TAG: "3600"},
    description="Build and test the analysts' warehouse from Postgres and the lake, then swap it in.",
)
JOBS = [reference_data, market_data, reconcile, lab_cycle, warehouse]
