"""The project's own house rules, as far as a machine can see them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIMIT_LINES = 620


def _tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not listed:
        pytest.skip("not a git checkout: nothing to list")
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def _pins(lock: str) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for line in (ROOT / lock).read_text().splitlines():
        match = re.match(r"([A-Za-z0-9_.-]+)==([^ ;\\]+)", line)
        if match:
            pins.setdefault(match[1], set()).add(match[2])
    return pins


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_is_exact_and_hashed_and_names_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--index" not in text
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text[text.index("\n", text.rindex("#    make lock")) + 1 :])
    assert len(blocks) > 100
    assert all("==" in block and "--hash=sha256:" in block for block in blocks)


def test_what_is_tested_is_what_is_installed() -> None:
    runtime, dev = _pins("requirements.lock"), _pins("requirements-dev.lock")
    assert {name: pins for name, pins in runtime.items() if dev.get(name) != pins} == {}


def test_oracles_are_not_installed_with_the_product() -> None:
    assert "backtesting" not in _pins("requirements.lock")
    offenders = [path for path in _tracked("blaid_pipelines", "assets", "sensors", "resources") if path.suffix == ".py"]
    assert not [path for path in offenders if re.search(r"^\s*(import|from) backtesting\b", path.read_text(), re.M)]


def test_files_stay_readable_in_a_sitting() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in _tracked("*.py")}
    assert {name: lines for name, lines in long.items() if lines > LIMIT_LINES} == {}


def test_every_module_of_the_product_begins_with_a_paragraph() -> None:
    files = [path for path in _tracked("blaid_pipelines", "assets", "sensors", "resources") if path.suffix == ".py"]
    silent = [str(path.relative_to(ROOT)) for path in files if not path.read_text().startswith('"""')]
    assert silent == []


def test_links_in_the_documents_lead_somewhere() -> None:
    broken = []
    for document in _tracked("*.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert broken == []
