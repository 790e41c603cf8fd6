"""The analysts' warehouse in Dagster: every dbt model an asset, every dbt test its check, and the file swapped in last.

One op builds all of it, because a warehouse is published whole or not at all: export, dbt build, swap. A failing test
leaves the old file in place. dbt is imported and started here, when the op runs, never when the definitions load.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from blaid_pipelines.lab.dbt_project import DbtModel, read_project
from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix
from resources.dbt import DbtOutcome, dbt_build
from resources.lab import LabResource, event_metadata

GROUP = "warehouse"
OWNERS = ["team:data"]
WRITER_POOL = "duckdb_writer"


def _model_spec(model: DbtModel) -> dg.AssetSpec:
    columns = [dg.TableColumn(name, kind, description) for name, kind, description in model.columns]
    return dg.AssetSpec(
        model.name,
        deps=list(model.deps),
        group_name=GROUP,
        owners=OWNERS,
        kinds={"dbt", "duckdb"},
        description=model.description,
        metadata={
            "dagster/column_schema": dg.TableSchema(columns=columns),
            "dagster/table_name": f"{model.folder}.{model.name}",
        },
    )


def _specs() -> list[dg.AssetSpec]:
    models = read_project().models
    return [
        *(_model_spec(model) for model in models),
        dg.AssetSpec(
            "warehouse",
            deps=[model.name for model in models],
            group_name=GROUP,
            owners=OWNERS,
            kinds={"duckdb"},
            description=(
                "One DuckDB file per build, swapped in atomically when every test passed; query it with `blaid sql`. A "
                "reader keeps the version that it opened."
            ),
        ),
    ]


def _checks() -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(test.name, asset=test.model, blocking=True, description=test.description)
        for test in read_project().tests
    ]


@dg.multi_asset(name="build_warehouse", specs=_specs(), check_specs=_checks(), pool=WRITER_POOL)
def build_warehouse(
    context: dg.AssetExecutionContext, lab: LabResource
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Export, build, test and document in a folder of its own, then publish."""
    from blaid_pipelines.lab.warehouse import coverage_cache, dbt_cache, export_tables, open_build, publish

    with lab.open() as opened, open_build(opened.settings, datetime.now(UTC), context.run.run_id) as build:
        exported = export_tables(opened.store, opened.lake, build, coverage_cache(opened.settings))
        context.log.info(f"exported {exported}")
        outcome = dbt_build(build.folder, dbt_cache(opened.settings))
        yield from _checks_of(outcome)
        _require_success(outcome)
        rows = _row_counts(build.database)
        size = build.database.stat().st_size
        published = publish(opened.settings, build, outcome.docs)
    # Reported once it is published, in the order in which dbt built: dependencies first.
    folders = {model.name: model.folder for model in read_project().models}
    for name, result in outcome.results.items():
        if name in folders:
            values = {"dagster/row_count": rows[f"{folders[name]}.{name}"], "seconds": result["seconds"]}
            yield dg.MaterializeResult(asset_key=name, metadata=event_metadata(values))
    summary = {"version": build.version, "bytes": size, "file": published.name, "exported_rows": exported}
    yield dg.MaterializeResult(
        asset_key="warehouse", metadata=event_metadata({**summary, "policy_hash": opened.policy.hash})
    )


def _checks_of(outcome: DbtOutcome) -> Iterator[dg.AssetCheckResult]:
    for test in read_project().tests:
        yield dg.AssetCheckResult(
            asset_key=test.model,
            check_name=test.name,
            passed=outcome.status(test.name) == "pass",
            severity=dg.AssetCheckSeverity.ERROR,
            metadata=event_metadata(dict(outcome.results.get(test.name, {"status": "unknown"}))),
        )


def _require_success(outcome: DbtOutcome) -> None:
    project = read_project()
    bad = {
        model.name: outcome.status(model.name) for model in project.models if outcome.status(model.name) != "success"
    }
    bad |= {test.name: outcome.status(test.name) for test in project.tests if outcome.status(test.name) != "pass"}
    if outcome.returncode == 0 and outcome.docs is None:
        bad["docs"] = "missing"
    if outcome.returncode != 0 or bad:
        raise StopAndFix(
            Reason(
                ReasonCode.JOB_FAILED,
                f"dbt build ended with exit code {outcome.returncode}; nothing was swapped in\n{outcome.log_tail}",
                "Read the failing checks; the earlier warehouse stays in place until a build passes.",
                {"exit_code": outcome.returncode, "not_successful": bad},
            )
        )


def _row_counts(database: Any) -> dict[str, int]:
    import duckdb

    with duckdb.connect(str(database), read_only=True) as connection:
        return {
            f"{model.folder}.{model.name}": connection.sql(
                f"select count(*) from {model.folder}.{model.name}"
            ).fetchall()[0][0]
            for model in read_project().models
        }
