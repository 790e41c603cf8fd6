"""Running a job of the code location in this process, on the installation's own Dagster instance.

What the daemon does in a run process, the commands and the demo do here: same jobs, same assets, same events in the
same database. Failures come back as Blaid's errors with their reasons, so that a command ends with the right exit code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from blaid_pipelines import reasons as reasons_module
from blaid_pipelines.reasons import BlaidError, DependencyDown, Reason, ReasonCode, Refused, StopAndFix
from blaid_pipelines.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

    from blaid_pipelines.store.database import Store

# Which partition set a job's key belongs to; commands name a key, the registry of keys is Dagster's.
_PARTITION_SET = {"market_data": "instruments", "reconcile": "instruments", "lab_cycle": "bots"}


@dataclass(frozen=True)
class Materialized:
    """One materialization of the run: its metadata as plain values."""

    asset: str
    partition: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class JobResult:
    """How a job ended: ``failures`` one error per failed step, ``failed_checks`` by name, ``materialized`` in order."""

    success: bool
    run_id: str
    failures: tuple[BlaidError, ...]
    failed_checks: tuple[str, ...]
    materialized: tuple[Materialized, ...] = ()

    def raise_for_failure(self) -> None:
        """Raise the first failure; a run that failed on a blocking check alone is :class:`Refused`."""
        if self.failures:
            raise self.failures[0]


def run_job_in_process(
    settings: Settings,
    job_name: str,
    run_config: Mapping[str, Any] | None = None,
    *,
    partition_key: str | None = None,
    tags: Mapping[str, str] | None = None,
    log_level: str = "ERROR",
) -> JobResult:
    """Run ``job_name`` here and wait for it.

    ``partition_key`` is registered first where it is new. Raises what :func:`open_store` raises when the database
    cannot be had; a failing job raises nothing (see :meth:`JobResult.raise_for_failure`).
    """
    from dagster import DagsterInstance

    from blaid_pipelines.jobs.liveness import claim
    from blaid_pipelines.store.database import dagster_environment, open_store
    from resources.runs import CLAIM_TAG, end_dead_runs

    with (
        open_store(settings) as store,
        _environment({**settings_environment(settings), **dagster_environment(settings)}),
        lost_database(),
        claim(store) as key,
    ):
        from blaid_pipelines.definitions import defs

        with DagsterInstance.get() as instance:
            end_dead_runs(instance, store, datetime.now(UTC))
            _register(instance, job_name, partition_key)
            _report_instruments(instance, store)
            result = defs.resolve_job_def(job_name).execute_in_process(
                run_config={**(run_config or {}), "loggers": {"console": {"config": {"log_level": log_level}}}},
                instance=instance,
                partition_key=partition_key,
                tags={**(tags or {}), CLAIM_TAG: str(key)},
                raise_on_error=False,
            )
    failed_checks = tuple(
        f"{evaluation.asset_key.to_user_string()}:{evaluation.check_name}"
        for evaluation in result.get_asset_check_evaluations()
        if not evaluation.passed
    )
    failures = tuple(_failure(event, failed_checks) for event in result.all_events if event.is_step_failure)
    if not result.success and not failures:
        failures = (_run_failure(result.run_id),)
    return JobResult(result.success, result.run_id, failures, failed_checks, _materialized(result.all_events))


@contextmanager
def lost_database() -> Iterator[None]:
    """Turn what Dagster's own storage raises when the server is gone into :class:`DependencyDown`."""
    from dagster_postgres.utils import DagsterPostgresException

    from blaid_pipelines.store.database import database_errors, unavailable

    try:
        with database_errors():
            yield
    except DagsterPostgresException as error:
        raise DependencyDown(unavailable({"said": str(error).strip().splitlines()[0]})) from error


def _materialized(events: Sequence[dg.DagsterEvent]) -> tuple[Materialized, ...]:
    found = []
    for event in events:
        if event.is_step_materialization:
            made = event.step_materialization_data.materialization
            metadata = {name: value.value for name, value in made.metadata.items()}
            found.append(Materialized(made.asset_key.to_user_string(), made.partition, metadata))
    return tuple(found)


def settings_environment(settings: Settings) -> dict[str, str | None]:
    """The environment that makes another reader of it arrive at ``settings``; None means unset."""
    environment: dict[str, str | None] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if hasattr(value, "get_secret_value"):
            value = value.get_secret_value()
        if isinstance(value, bool):
            value = str(value).lower()
        environment[str(field.alias)] = None if value is None else str(getattr(value, "value", value))
    return environment


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    _apply(values)
    try:
        yield
    finally:
        _apply(before)


def _apply(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _register(instance: dg.DagsterInstance, job_name: str, partition_key: str | None) -> None:
    if partition_key is not None and not instance.has_dynamic_partition(_PARTITION_SET[job_name], partition_key):
        instance.add_dynamic_partitions(_PARTITION_SET[job_name], [partition_key])


def _report_instruments(instance: dg.DagsterInstance, store: Store) -> None:
    """Say once that the instruments table is there: a migration filled it, and what reads it would seem out of date."""
    import dagster as dg

    from blaid_pipelines.market.instruments import list_instruments

    if instance.get_latest_materialization_event(dg.AssetKey("instruments")) is None:
        symbols = [spec.symbol for spec in list_instruments(store)]
        metadata: dict[str, Any] = {"instruments": len(symbols), "symbols": dg.MetadataValue.json(symbols)}
        instance.report_runless_asset_event(dg.AssetMaterialization("instruments", metadata=metadata))


def _failure(event: dg.DagsterEvent, failed_checks: tuple[str, ...]) -> BlaidError:
    """The error behind a failed step: Blaid's own from the failure's metadata, else what the exception says."""
    data = event.step_failure_data
    if data.user_failure_data is not None and "reasons" in data.user_failure_data.metadata:
        metadata = data.user_failure_data.metadata
        raw: Any = metadata["reasons"].value
        reasons = [
            Reason(ReasonCode(item["code"]), item["message"], item["suggested_fix"], item["numbers"]) for item in raw
        ]
        error_class = getattr(reasons_module, str(metadata["error_class"].value))
        error: BlaidError = error_class(*reasons)
        return error
    cause = data.error
    while cause is not None and cause.cause is not None:
        cause = cause.cause
    class_name = cause.cls_name if cause is not None else None
    if class_name == "DagsterExecutionInterruptedError":
        raise KeyboardInterrupt
    if class_name == "DagsterAssetCheckFailedError":
        quality = any(name.startswith("quality_verdict:") for name in failed_checks)
        return Refused(
            Reason(
                ReasonCode.DATA_QUALITY_FAILED if quality else ReasonCode.EVIDENCE_MISSING,
                f"blocking checks failed: {', '.join(failed_checks)}",
                "Read the checks' metadata in the Dagster UI; each carries its reasons and numbers.",
                {"checks": list(failed_checks)},
            )
        )
    text = "no message" if cause is None else cause.message.strip()
    return StopAndFix(
        Reason(
            ReasonCode.JOB_FAILED,
            f"step {event.step_key} failed: {text}",
            "Read the run in the Dagster UI; its log has the whole stack.",
            {"step": event.step_key, "exception": class_name},
        )
    )


def _run_failure(run_id: str) -> BlaidError:
    return StopAndFix(
        Reason(
            ReasonCode.JOB_FAILED,
            f"run {run_id} failed outside its steps",
            "Read the run in the Dagster UI; its log has the whole stack.",
            {"run_id": run_id},
        )
    )
