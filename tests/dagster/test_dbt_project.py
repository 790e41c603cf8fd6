"""The assets' own reading of the dbt project agrees with dbt's: names, lineage, columns, tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blaid_pipelines.lab.dbt_project import PROJECT, read_project
from blaid_pipelines.lab.warehouse import exported_names
from resources.dbt import TARGET, run_dbt


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``dbt parse`` makes of the project."""
    folder = tmp_path_factory.mktemp("dbt")
    outcome = run_dbt(["parse"], folder)
    assert outcome.returncode == 0, outcome.log_tail
    parsed: dict[str, Any] = json.loads((folder / TARGET / "manifest.json").read_text())
    return parsed


def _asset_key(manifest: dict[str, Any], unique_id: str) -> str:
    if unique_id.startswith("source."):
        key = manifest["sources"][unique_id]["config"]["meta"]["dagster"]["asset_key"]
        return "/".join(key)
    return str(manifest["nodes"][unique_id]["name"])


def _models(manifest: dict[str, Any]) -> dict[str, Any]:
    return {node["name"]: node for node in manifest["nodes"].values() if node["resource_type"] == "model"}


def test_models_lineage_texts_and_columns_agree(manifest: dict[str, Any]) -> None:
    ours = {
        model.name: (set(model.deps), model.folder, model.description, [column[:2] for column in model.columns])
        for model in read_project().models
    }
    theirs = {
        name: (
            {_asset_key(manifest, parent) for parent in node["depends_on"]["nodes"]},
            node["schema"],
            " ".join(node["description"].split()),
            [(column["name"], column["data_type"]) for column in node["columns"].values()],
        )
        for name, node in _models(manifest).items()
    }
    assert ours == theirs


def test_checks_are_the_tests(manifest: dict[str, Any]) -> None:
    theirs = {}
    for node in manifest["nodes"].values():
        if node["resource_type"] == "test":
            attached = node.get("attached_node")
            model = (
                manifest["nodes"][attached]["name"] if attached else node["config"]["meta"]["dagster"]["ref"]["name"]
            )
            theirs[node["name"]] = model
            assert node["config"]["severity"].lower() == "error", node["name"]
    assert {test.name: test.model for test in read_project().tests} == theirs


def test_every_exported_table_is_a_source_and_the_other_way_round(manifest: dict[str, Any]) -> None:
    sources = {source["name"] for source in manifest["sources"].values() if source["source_name"] != "lake"}
    assert sources == set(exported_names())


def test_parsing_leaves_nothing_in_the_project(manifest: dict[str, Any]) -> None:
    assert manifest["nodes"]
    written = [path.name for path in PROJECT.iterdir() if path.name in {"target", "logs", "dbt_packages", ".user.yml"}]
    assert written == []


def test_a_test_without_a_name_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "marts"
    folder.mkdir(parents=True)
    (folder / "m.sql").write_text("select 1 as a")
    (folder / "_m.yml").write_text(
        "models: [{name: m, description: d, columns: [{name: a, data_type: integer, description: d, "
        "data_tests: [unique]}]}]"
    )
    with pytest.raises(ValueError, match="needs a name"):
        read_project(tmp_path)
