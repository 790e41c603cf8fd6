"""The house rules cover the whole house: no room and no module is outside the import contract or the floor plan."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("assets", "sensors", "resources")


def layers() -> list[str]:
    """Every module that the contract of layers names."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [name.strip() for line in named for name in line.split("|")]


def modules(folder: Path) -> set[str]:
    """Names of the modules and packages directly in a package, private ones and ``__init__`` left out."""
    files = {path.stem for path in folder.glob("*.py")}
    packages = {path.name for path in folder.iterdir() if any(path.glob("*.py"))}
    return {f"{folder.name}.{name}" for name in files | packages if not name.startswith("_")}


def test_every_room_and_module_has_its_layer() -> None:
    named = set(layers())
    wanted = modules(ROOT / "blaid_pipelines")
    for room in ROOMS:
        wanted |= {room} if room in named else modules(ROOT / room)
    assert wanted == named


def test_the_floor_plan_shows_every_room() -> None:
    plan = (ROOT / "ARCHITECTURE.md").read_text()
    for name in layers():
        place, _, module = name.partition(".")
        is_file = (ROOT / place / f"{module}.py").exists()
        shown = f"{module or place}{'.py' if is_file else '/'}"
        assert shown in plan, name
