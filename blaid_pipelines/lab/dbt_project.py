"""The dbt project read from its own YAML and SQL, without importing dbt, which takes seconds.

Only what lineage needs is read: model names, descriptions, columns, tests, and ``ref()`` and ``source()`` in the SQL. A
test runs ``dbt parse`` and compares the manifest with this reading, so that the two cannot drift apart. Every test in
the project carries a name, which is the name of its asset check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[2] / "dbt_like_sql"
_REF = re.compile(r"""\{\{\s*ref\(\s*['"](\w+)['"]\s*\)\s*\}\}""")
_SOURCE = re.compile(r"""\{\{\s*source\(\s*['"](\w+)['"]\s*,\s*['"](\w+)['"]\s*\)\s*\}\}""")


@dataclass(frozen=True)
class DbtTest:
    """One test of the project: its name, the model whose check it is, and what it means."""

    name: str
    model: str
    description: str


@dataclass(frozen=True)
class DbtModel:
    """One model: the asset keys it reads, what it says of itself, its columns (name, type, description)."""

    name: str
    folder: str
    description: str
    deps: tuple[str, ...]
    columns: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class DbtProjectReading:
    """The whole project, in name order."""

    models: tuple[DbtModel, ...]
    tests: tuple[DbtTest, ...]


@cache
def read_project(root: Path = PROJECT) -> DbtProjectReading:
    """Read the project. Raises ``KeyError`` or ``ValueError`` for a model without YAML and a test without a name."""
    sources: dict[tuple[str, str], str] = {}
    declared: dict[str, Mapping[str, Any]] = {}
    singular: list[Mapping[str, Any]] = []
    for path in sorted([*root.glob("models/**/*.yml"), *root.glob("tests/**/*.yml")]):
        document = yaml.safe_load(path.read_text()) or {}
        for source in document.get("sources", []):
            for table in source["tables"]:
                key = table["config"]["meta"]["dagster"]["asset_key"]
                sources[source["name"], table["name"]] = "/".join(key)
        declared.update({model["name"]: model for model in document.get("models", [])})
        singular += document.get("data_tests", [])
    models, tests = [], []
    for path in sorted(root.glob("models/**/*.sql")):
        model = declared[path.stem]
        sql = path.read_text()
        deps = {*_REF.findall(sql), *(sources[pair] for pair in _SOURCE.findall(sql))}
        columns = tuple(
            (column["name"], column["data_type"], " ".join(column["description"].split()))
            for column in model["columns"]
        )
        models.append(
            DbtModel(path.stem, path.parent.name, " ".join(model["description"].split()), tuple(sorted(deps)), columns)
        )
        tests += [DbtTest(name, path.stem, text) for name, text in _named_tests(model)]
    tests += [
        DbtTest(test["name"], test["config"]["meta"]["dagster"]["ref"]["name"], " ".join(test["description"].split()))
        for test in singular
    ]
    return DbtProjectReading(tuple(models), tuple(sorted(tests, key=lambda test: (test.model, test.name))))


def _named_tests(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for owner in (model, *model["columns"]):
        for test in owner.get("data_tests", []):
            # `- not_null: {name: ...}`: one key, the kind of test, and under it the name
            kind, body = next(iter(test.items())) if isinstance(test, dict) else (test, None)
            if not isinstance(body, dict) or "name" not in body:
                raise ValueError(f"{model['name']}: the test {kind} needs a name, which is that of its asset check")
            yield body["name"], f"dbt test {kind} on {owner['name']}."
