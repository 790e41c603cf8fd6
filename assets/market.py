"""Market data in Dagster: instruments, bars of a series, and the quality verdict that gates them.

Thin shells. What a pull, an ingest and a verdict mean is in ``blaid_pipelines.market`` and ``blaid_pipelines.lab``.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from assets.market_events import bars_event, check_event, findings_table, summary_of, verdict_event
from assets.partitions import SERIES, series_check
from blaid_pipelines.market.gate.checks import QUALITY_CHECKS
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode
from resources.lab import (
    LabResource,
    event_metadata,
    reasons_as_failures,
    reasons_table,
    run_trace_id,
)

OWNERS = ["team:data"]
GROUP = "market_data"

VERDICT_CHECK = "verdict"


class BarsConfig(dg.Config):
    """Where bars come from: ``pull`` asks Databento for a range, ``file`` takes DBN, Parquet, CSV or LEAN zip files.

    ``start`` and ``end``: a day or an ISO time, UTC where it names no zone, end exclusive; a pull without them takes
    the range that bots on the series read now, so that the defaults bring a known series through the gate again, and
    for a new series the newest 90 days that the provider has.
    ``stamp``: what a bar's time marks in Parquet and CSV files, ``open`` or ``close``; ``tz``: the zone of their times
    without one; ``time_unit``: what whole numbers among them count (``s``, ``ms``, ``us``, ``ns``). ``content``: what
    the files hold, ``bars`` of ``data_schema``, or ``trades`` or ``ohlcv-1s`` to be made into such. Nothing is assumed.
    """

    source: str = "pull"
    start: str | None = None
    end: str | None = None
    data_schema: str = "ohlcv-1m"
    dataset: str = "GLBX.MDP3"
    files: list[str] = []  # noqa: RUF012 - pydantic copies defaults
    stamp: str | None = None
    tz: str | None = None
    time_unit: str | None = None
    content: str = "bars"


class VerdictConfig(dg.Config):
    """Which snapshot to judge: by id, else the one that this run's bars named, else the newest of the series."""

    snapshot_id: str | None = None
    data_schema: str = "ohlcv-1m"


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    description=(
        "One row per product root (MES, 6E, ZN): tick, point value, session calendar; costs and margins are dated rows "
        "beside it. Everything that turns ticks into dollars reads this table."
    ),
)
def instruments(lab: LabResource) -> dg.MaterializeResult[Any]:
    """Report the table as it stands; its rows come from a migration, so a run changes nothing."""
    from blaid_pipelines.ids import fingerprint
    from blaid_pipelines.market.instruments import list_instruments

    with lab.open() as opened:
        symbols = sorted(spec.symbol for spec in list_instruments(opened.store))
    if not symbols:
        raise dg.Failure("The instruments table is empty. Next: run `blaid init`.")
    return dg.MaterializeResult(
        metadata=event_metadata({"instruments": len(symbols), "symbols": symbols, "symbols_hash": fingerprint(symbols)})
    )


class DefinitionsConfig(dg.Config):
    """Which series to look up: none means every series that was pulled."""

    symbols: list[str] = []  # noqa: RUF012 - pydantic copies defaults


@dg.asset_check(
    asset=instruments,
    name="matches_definitions",
    blocking=True,
    description=(
        "Tick size, point value, currency and exchange of each instrument agree with the provider's own definitions of "
        "the contracts behind the pulled series, on the last day of their bars. Billed calls, within the budget. It "
        "gates its own job, `reference_data`, and nothing else: no pull and no backtest reads its result. Mend the row "
        "before you trust a backtest of that product."
    ),
)
def matches_definitions(
    context: dg.AssetCheckExecutionContext, config: DefinitionsConfig, lab: LabResource
) -> dg.AssetCheckResult:
    """Ask Databento what the contracts are and compare; a series without a definition refuses."""
    from blaid_pipelines.lab.series import check_instruments

    with lab.open() as opened:
        found = check_instruments(opened, config.symbols, dagster_run_id=context.run.run_id)
    numbers = {
        "trace_id": found.trace_id,
        "contracts": found.contracts,
        "request_ids": [str(request_id) for request_id in found.request_ids],
    }
    return check_result("matches_definitions", found.reasons, numbers)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"databento", "parquet"},
    partitions_def=SERIES,
    deps=[instruments],
    check_specs=[
        series_check(
            "proof_both_ways",
            asset="bars",
            description=(
                "Every provider request that this materialization cites succeeded in the request log, and the log "
                "holds no request of its trace that it does not cite."
            ),
        )
    ],
    description=(
        "One snapshot per series and materialization: an immutable list of bar files with content hash and provenance. "
        "A repeated pull of a range that the lake holds makes no billed call and names the same snapshot."
    ),
)
def bars(
    context: dg.AssetExecutionContext, config: BarsConfig, lab: LabResource
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Pull or ingest one series, then compare the proof with the request log."""
    from blaid_pipelines.lab.evidence import check_proof
    from blaid_pipelines.lab.portrait import portrait_of
    from blaid_pipelines.lab.series import ingest_series, pull_series

    with lab.open() as opened:
        if config.source == "pull":
            outcome = pull_series(
                opened,
                _pull_request(opened, context.partition_key, config),
                dagster_run_id=context.run.run_id,
                progress=context.log.info,
            )
        elif config.source == "file":
            outcome = ingest_series(
                opened, _ingest_request(context.partition_key, config), dagster_run_id=context.run.run_id
            )
        else:
            raise InvalidRequest(_bad_config("source", config.source, "Use `pull` or `file`."))
        reasons = check_proof(opened.store, [outcome.trace_id], outcome.request_ids)
        shown = bars_event(outcome, portrait_of(opened, outcome.snapshot))
    yield dg.MaterializeResult(
        metadata=event_metadata({**shown, "dagster_run_id": context.run.run_id}),
        data_version=dg.DataVersion(outcome.snapshot.snapshot_id),
    )
    yield check_result("proof_both_ways", reasons, {"requests_cited": len(outcome.request_ids)})


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"greatexpectations", "postgres"},
    partitions_def=SERIES,
    deps=[bars],
    check_specs=[
        series_check(name, asset="quality_verdict", description=f"Refuses {text}.")
        for name, text in QUALITY_CHECKS.items()
    ]
    + [
        series_check(
            VERDICT_CHECK,
            asset="quality_verdict",
            description="The gate as a whole: PASS, bound to the snapshot's content hash. FAIL and UNKNOWN refuse.",
        )
    ],
    description=(
        "One row per evaluation of the quality gate on one snapshot: PASS or FAIL with the reasons and their numbers. "
        "A backtest refuses a snapshot without a PASS, in this run and in any other."
    ),
)
def quality_verdict(
    context: dg.AssetExecutionContext, config: VerdictConfig, lab: LabResource
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Judge one snapshot. A FAIL is materialized too; a judge that raises leaves every check UNKNOWN."""
    from blaid_pipelines.lab.portrait import portrait_of
    from blaid_pipelines.lab.series import judge_series
    from blaid_pipelines.market.lake.snapshots import get_snapshot

    trace_id = run_trace_id(context.run)
    try:
        with reasons_as_failures(), lab.open() as opened:
            snapshot_id = config.snapshot_id or _snapshot_to_judge(context, opened, config.data_schema)
            verdict = judge_series(opened, snapshot_id, trace_id=trace_id)
            drawn = portrait_of(opened, get_snapshot(opened.store, snapshot_id))
    except Exception as error:
        yield from _unknown(error)
        raise
    shown = {**verdict_event(verdict, drawn), "dagster_run_id": context.run.run_id}
    yield dg.MaterializeResult(metadata=event_metadata(shown))
    yield from verdict_checks(verdict.status, verdict.checks, verdict.reasons)


# Unpartitioned on purpose: a run over an arbitrary subset of bots has no partition of its own, and Dagster cannot map
# such a run onto the series partitions upstream.
judged_snapshots = dg.AssetSpec(
    "judged_snapshots",
    deps=[quality_verdict, "reconciliation"],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    description=(
        "One row per snapshot whose newest verdict, under the policy in force, is PASS, and which no reconciliation "
        "contradicts: the only bars that a backtest may read. Never materialized: each backtest asks Postgres."
    ),
)


def verdict_checks(
    status: str, checks: Sequence[Mapping[str, Any]], reasons: Sequence[Mapping[str, Any]]
) -> Iterator[dg.AssetCheckResult]:
    """One result per check of the gate. A check that the verdict does not report is UNKNOWN and refuses."""
    by_name: dict[str, Mapping[str, Any]] = {name: {"name": name, "status": "UNKNOWN"} for name in QUALITY_CHECKS}
    by_name |= {str(check["name"]): check for check in checks}
    for name in QUALITY_CHECKS:
        check = by_name[name]
        yield dg.AssetCheckResult(
            check_name=name,
            asset_key="quality_verdict",
            passed=check["status"] == "PASS",
            severity=dg.AssetCheckSeverity.ERROR,
            description=summary_of(check),
            metadata=event_metadata(check_event(check)),
        )
    yield dg.AssetCheckResult(
        check_name=VERDICT_CHECK,
        asset_key="quality_verdict",
        passed=status == "PASS" and not reasons and all(check["status"] == "PASS" for check in by_name.values()),
        severity=dg.AssetCheckSeverity.ERROR,
        metadata=event_metadata({"status": status, "reasons": findings_table(list(by_name.values()))}),
    )


def check_result(name: str, reasons: list[Reason], numbers: dict[str, Any]) -> dg.AssetCheckResult:
    """A blocking check's result from typed reasons: none passes, any refuses."""
    return dg.AssetCheckResult(
        check_name=name,
        passed=not reasons,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata=event_metadata({**numbers, "reasons": reasons_table([reason.as_dict() for reason in reasons])}),
    )


def _unknown(error: Exception) -> Iterator[dg.AssetCheckResult]:
    # A check without a result does not block: every one gets a failing result that says UNKNOWN before the step fails.
    text = error.description if isinstance(error, dg.Failure) else f"{type(error).__name__}: {error}"
    for name in [*QUALITY_CHECKS, VERDICT_CHECK]:
        yield dg.AssetCheckResult(
            check_name=name,
            asset_key="quality_verdict",
            passed=False,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata=event_metadata(
                {"status": "UNKNOWN", "error_code": ReasonCode.DATA_QUALITY_UNKNOWN.value, "error": text}
            ),
        )


def _snapshot_to_judge(context: dg.AssetExecutionContext, lab: Any, data_schema: str) -> str:
    from blaid_pipelines.market.instruments import instrument_root
    from blaid_pipelines.market.lake.snapshots import resolve_snapshot

    symbol = context.partition_key
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey("bars"), asset_partitions=[symbol]), limit=1
    ).records
    if records and records[0].run_id == context.run.run_id:
        materialization = records[0].asset_materialization
        if materialization is not None:
            return str(materialization.metadata["snapshot_id"].value)
    return str(resolve_snapshot(lab.store, instrument_root(symbol), symbol, data_schema).snapshot_id)


def _pull_request(lab: Any, symbol: str, config: BarsConfig) -> Any:
    from blaid_pipelines.lab.series import parse_instant, usual_range
    from blaid_pipelines.market.purchase.pull import PullRequest

    if config.start is None and config.end is None:
        start, end = usual_range(lab, symbol, config.data_schema, config.dataset)
    else:
        start, end = parse_instant("start", config.start), parse_instant("end", config.end)
    return PullRequest(symbol=symbol, start=start, end=end, schema=config.data_schema, dataset=config.dataset)


def _ingest_request(symbol: str, config: BarsConfig) -> Any:
    from blaid_pipelines.lab.series import parse_instant
    from blaid_pipelines.market.intake.ingest import IngestRequest

    if not config.files:
        raise InvalidRequest(_bad_config("files", config.files, "Name at least one file."))
    return IngestRequest(
        files=[Path(file) for file in config.files],
        symbol=symbol,
        stamp=config.stamp,
        tz=config.tz,
        time_unit=config.time_unit,
        content=config.content,
        schema=config.data_schema,
        start=None if config.start is None else parse_instant("start", config.start),
        end=None if config.end is None else parse_instant("end", config.end),
    )


def _bad_config(name: str, value: object, fix: str) -> Reason:
    return Reason(
        ReasonCode.INVALID_REQUEST,
        f"the bars asset cannot use {name}={value!r}",
        fix,
        {"setting": name, "value": value},
    )
