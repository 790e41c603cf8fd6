"""The sensor that keeps the LAB going: finds due bots and asks for one run for their whole cohort.

Which bots are due is a question for ``lab.bots``; how many a run takes and how often to look are policy. A tick says
why it asked for nothing. A broken policy or an unreachable database fails the tick, which Dagster shows in red.
"""

from datetime import UTC, datetime

import dagster as dg

from assets.jobs import LAB_CYCLE_JOB, lab_cycle
from blaid_pipelines.ids import fingerprint
from resources.lab import LabResource
from resources.runs import end_dead_runs, in_progress


@dg.sensor(
    name="lab_cadence",
    job=lab_cycle,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Looks for LAB bots whose last cycle began longer ago than the policy's cadence, the longest waiting first, "
        "and asks for one run per cohort. Never two LAB cycles at once."
    ),
)
def lab_cadence(context: dg.SensorEvaluationContext, lab: LabResource) -> dg.SensorResult | dg.SkipReason:
    """One tick: skip with a reason, or one run request."""
    return tick(context, lab, datetime.now(UTC))


def tick(context: dg.SensorEvaluationContext, lab: LabResource, now: datetime) -> dg.SensorResult | dg.SkipReason:
    """What the sensor does at ``now``."""
    from blaid_pipelines.lab.bots import due_bots

    with lab.open() as opened:
        end_dead_runs(context.instance, opened.store, now)
    running = in_progress(context.instance, LAB_CYCLE_JOB)
    if running:
        run = running[0].dagster_run
        return dg.SkipReason(f"The cohort of run {run.run_id} is {run.status.value}; the next one waits for it.")
    with lab.open() as opened:
        policy = opened.policy.lab
        looked_at = datetime.fromisoformat(context.cursor) if context.cursor else None
        if looked_at is not None and 0 <= (since := (now - looked_at).total_seconds()) < policy.sensor_interval_s:
            return dg.SkipReason(f"Looked {since:.0f} s ago; the policy looks every {policy.sensor_interval_s} s.")
        cadence_s = opened.policy.stages.LAB.cadence.BACKTEST.every_s
        names = due_bots(opened, now, policy.cohort_max_bots)
    if not names:
        reason = (
            f"No LAB bot is due: each was run within the last {cadence_s} s, or has a job under way, or none exists."
        )
        return dg.SensorResult(skip_reason=reason, cursor=now.isoformat())
    # The same cohort is asked for once per cadence window, so that one that keeps failing is not retried every minute.
    window = int(now.timestamp()) // cadence_s
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{window}-{fingerprint(sorted(names))[:16]}",
                run_config={"ops": {"lab_cohort": {"config": {"bots": names}}}},
                tags={"blaid/cohort_size": str(len(names))},
            )
        ],
        cursor=now.isoformat(),
    )
