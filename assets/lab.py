"""The LAB cycle in Dagster: backtest, diagnostics, autonomy score and promotion decision of a cohort in one run.

A bot is a partition key. One op serves any subset of bots and reports a materialization per bot and asset, so that a
cohort costs one run; the verdicts themselves are rows of Postgres, written in one transaction by ``lab.cycle``.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import dagster as dg

from assets.lab_events import SHOWN
from assets.market import check_result, judged_snapshots
from assets.partitions import BOTS, BOTS_NAME
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode
from resources.lab import LabResource, event_metadata

GROUP = "lab"
STAGES = ("backtest", "diagnostics", "autonomy_score", "promotion_decision")

bots = dg.AssetSpec(
    "bots",
    group_name=GROUP,
    owners=["team:research"],
    kinds={"postgres"},
    description=(
        "One row per bot: strategy family, parameters, instrument, capital, stage. Made by `blaid bot create`; the "
        "names are the partition keys of the LAB's assets."
    ),
)
provider_requests = dg.AssetSpec(
    "provider_requests",
    group_name="proof",
    owners=["team:risk"],
    kinds={"postgres"},
    description=(
        "One row per attempt at an external call, committed before the call is made; success stays empty while the "
        "outcome is unknown. The record that proof of use is checked against."
    ),
)


class CohortConfig(dg.Config):
    """The bots of a run that is started without partitions; ``snapshot_id`` fixes the snapshot they read."""

    bots: list[str] = []  # noqa: RUF012 - pydantic copies defaults
    snapshot_id: str | None = None


def _spec(name: str, deps: list[Any], kinds: set[str], owner: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        name,
        deps=deps,
        group_name=GROUP,
        owners=[owner],
        kinds=kinds,
        description=description,
        partitions_def=BOTS,
        skippable=True,
    )


SPECS = [
    _spec(
        "backtest",
        [bots, judged_snapshots, "instruments"],
        {"numba", "parquet", "postgres"},
        "team:research",
        "One row per bot and session: metrics or a reason, with snapshot, strategy, parameter and policy hashes; "
        "trades and daily equity are Parquet files beside it. Reads only a snapshot whose verdict is PASS.",
    ),
    _spec(
        "diagnostics",
        ["backtest"],
        {"python", "postgres"},
        "team:research",
        "One row per completed session: the trade-level breakdown, each bucket with its count and interval.",
    ),
    _spec(
        "autonomy_score",
        ["backtest", "diagnostics"],
        {"python", "postgres"},
        "team:risk",
        "One row per scored session: 0 to 100 from five sub-scores, the tier, and what blocks autonomy. A sub-score "
        "without evidence is UNKNOWN and counts nothing.",
    ),
    _spec(
        "promotion_decision",
        ["backtest", "autonomy_score", provider_requests],
        {"python", "postgres"},
        "team:risk",
        "One row per session: PROMOTE or REFUSE to the next stage, with every gate's input, threshold and result and "
        "the ids of all evidence. A gate that cannot be evaluated is UNKNOWN and refuses.",
    ),
]
CHECKS = [
    dg.AssetCheckSpec(
        "proof_both_ways",
        asset="backtest",
        blocking=True,
        description=(
            "Every provider request that the cohort cites succeeded in the request log, and the log holds no request "
            "of its traces that it does not cite."
        ),
    ),
    dg.AssetCheckSpec(
        "evidence_complete",
        asset="promotion_decision",
        blocking=True,
        description="Every decision of the cohort has its row, its gates and its evidence, and metadata and row agree.",
    ),
]


@dg.multi_asset(
    name="lab_cohort",
    specs=SPECS,
    check_specs=CHECKS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def lab_cohort(
    context: dg.AssetExecutionContext, config: CohortConfig, lab: LabResource
) -> Iterator[dg.AssetCheckResult]:
    """Run one cycle for a cohort: the run's partitions, or the bots named in the config."""
    from blaid_pipelines.lab.cycle import run_cohort
    from blaid_pipelines.lab.evidence import check_evidence, check_proof

    with lab.open() as opened:
        names = _cohort(context, config)
        outcomes = run_cohort(
            opened, names, dagster_run_id=context.run.run_id, snapshot_id=config.snapshot_id, progress=context.log.info
        )
        metadata = [outcome.metadata for outcome in outcomes]
        cited = [UUID(value) for stages in metadata for value in stages.get("backtest", {}).get("request_ids", [])]
        unproven = check_proof(opened.store, [outcome.trace_id for outcome in outcomes], cited)
        incomplete = check_evidence(opened.store, metadata)
    # Here and not at the start: only a bot that exists becomes a partition.
    context.instance.add_dynamic_partitions(BOTS_NAME, [outcome.bot.name for outcome in outcomes])
    for outcome in outcomes:
        _report(context, outcome.bot.name, outcome.metadata)
    counts = {"bots": len(outcomes), "completed": sum(outcome.status == "COMPLETED" for outcome in outcomes)}
    yield _on("backtest", check_result("proof_both_ways", unproven, {**counts, "requests_cited": len(set(cited))}))
    yield _on("promotion_decision", check_result("evidence_complete", incomplete, counts))


def _cohort(context: dg.AssetExecutionContext, config: CohortConfig) -> list[str]:
    partitioned = context.has_partition_key or context.has_partition_key_range
    names = list(context.partition_keys) if partitioned else list(config.bots)
    if not names:
        raise InvalidRequest(
            Reason(
                ReasonCode.INVALID_REQUEST,
                "a cohort run needs at least one bot",
                "Pick partitions (bots), or name them in the run config: ops.lab_cohort.config.bots.",
            )
        )
    return names


def _report(context: dg.AssetExecutionContext, bot: str, stages: dict[str, dict[str, Any]]) -> None:
    """One event per asset. A refused or failed session is observed, not materialized: its partition stays open."""
    completed = stages["backtest"].get("status") == "COMPLETED"
    for asset in STAGES:
        if asset not in stages:
            continue
        shown = {"bot": bot, **SHOWN[asset](stages[asset]), "dagster_run_id": context.run.run_id}
        event = dg.AssetMaterialization if completed or asset == "promotion_decision" else dg.AssetObservation
        context.log_event(event(asset, partition=bot, metadata=event_metadata(shown)))


def _on(asset: str, result: dg.AssetCheckResult) -> dg.AssetCheckResult:
    return result._replace(asset_key=dg.AssetKey(asset))
