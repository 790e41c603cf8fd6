"""Where the counts that are no rows lie, for those who need the path and not the database."""

from __future__ import annotations

from pathlib import Path

from blaid_pipelines.settings import Settings


def wire_log_path(settings: Settings) -> Path:
    """The wire log of an installation: one line per call that left."""
    return settings.home / "proof" / "wire.jsonl"


def request_log_path(settings: Settings) -> Path:
    """The log in which the sandbox gateway of an installation counts what it received."""
    return settings.home / "sandbox" / "requests.jsonl"
