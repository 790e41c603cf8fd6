"""Reconciliation in Dagster: the bars of a series held against a second account of them.

A thin shell. What counts as a difference is in ``blaid_pipelines.market.reconcile``, where the second account comes
from in ``blaid_pipelines.lab.reconciliation``.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from assets.market import GROUP, OWNERS, bars, check_result
from assets.partitions import SERIES, series_check
from resources.lab import LabResource, event_metadata, reasons_table

DAYS = 5


class ReconciliationConfig(dg.Config):
    """What to hold the bars that bots read now against.

    ``kind``: ``backup`` (the backup provider, from ``start`` to ``end``, by default the last five days of the bars),
    ``daily`` (daily bars of ``daily_file``, or of the series' own ohlcv-1d in the lake) or ``overlap`` (every other
    copy of the same bars in the lake). ``days``: what a daily bar covers, ``auto``, ``session``, ``utc_day`` or
    ``regular``; ``stamp`` and ``tz`` as for an ingest of that file.
    """

    kind: str = "backup"
    data_schema: str = "ohlcv-1m"
    start: str | None = None
    end: str | None = None
    daily_file: str | None = None
    days: str = "auto"
    stamp: str | None = None
    tz: str | None = None


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    partitions_def=SERIES,
    deps=[bars],
    check_specs=[
        series_check(
            "confirmed",
            asset="reconciliation",
            description="The second account of the bars agrees with them. A difference refuses: no backtest reads "
            "bars that were looked at and not confirmed.",
        )
    ],
    description=(
        "One row per comparison of a snapshot with another account of the same bars: daily bars, other copies in the "
        "lake, or the backup provider. Where there was nothing to compare with, the answer is UNKNOWN."
    ),
)
def reconciliation(
    context: dg.AssetExecutionContext, config: ReconciliationConfig, lab: LabResource
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Hold the current snapshot of one series against one other account of its bars."""
    from blaid_pipelines.lab.reconciliation import DailyBars, ReconcileRequest, head_snapshot, reconcile_series
    from blaid_pipelines.lab.series import parse_instant

    with lab.open() as opened:
        snapshot = head_snapshot(opened, context.partition_key, config.data_schema)
        start = None if config.start is None else parse_instant("start", config.start)
        if config.kind == "backup" and start is None:
            start = max(snapshot.range_start, snapshot.range_end - timedelta(days=DAYS))
        outcome = reconcile_series(
            opened,
            ReconcileRequest(
                snapshot.snapshot_id,
                config.kind,
                DailyBars(
                    None if config.daily_file is None else Path(config.daily_file), config.days, config.stamp, config.tz
                ),
                start,
                None if config.end is None else parse_instant("end", config.end),
            ),
            dagster_run_id=context.run.run_id,
        )
    values = outcome.metadata
    findings = reasons_table(values.pop("reasons"))
    proof = {name: values.pop(name) for name in ("trace_id", "request_ids", "snapshot_id", "content_hash")}
    shown = {"status": values.pop("status"), "findings": findings, **values, **proof}
    yield dg.MaterializeResult(metadata=event_metadata({**shown, "dagster_run_id": context.run.run_id}))
    yield check_result("confirmed", list(outcome.reasons), {"status": outcome.status, "kind": outcome.kind})
