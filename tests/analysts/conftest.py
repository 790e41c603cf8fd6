"""What dbt has parsed once serves all builds of the session: its start and its parsing cost more than its work."""

from __future__ import annotations

from pathlib import Path

import pytest

from blaid_pipelines.lab.warehouse import dbt_cache
from blaid_pipelines.settings import Settings


@pytest.fixture(scope="session")
def parsed_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all worlds of the session keep dbt's parsed project in."""
    return tmp_path_factory.mktemp("dbt-cache")


@pytest.fixture
def warehouse_settings(settings: Settings, parsed_project: Path) -> Settings:
    """Settings of a fresh world that builds warehouses with the session's parsed project."""
    link = dbt_cache(settings)
    link.parent.mkdir(parents=True)
    link.symlink_to(parsed_project)
    return settings
