"""The open LAB as a Dagster resource, and the one place where Blaid's errors become Dagster's.

Nothing is opened when the definitions load: settings are read, the policy checked and the database reached inside the
step or the tick that asks for it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg

from blaid_pipelines.reasons import BlaidError, RetryLater
from blaid_pipelines.settings import load_settings

if TYPE_CHECKING:
    from blaid_pipelines.lab.context import LabContext

TRACE_TAG = "blaid/trace_id"


class LabResource(dg.ConfigurableResource[Any]):
    """Settings, store, policy and recorder of this installation, from the environment of the process."""

    @contextmanager
    def open(self) -> Iterator[LabContext]:
        """Open the LAB for one step. Raises :class:`dagster.Failure` with typed reasons."""
        from blaid_pipelines.lab.context import open_lab

        with reasons_as_failures(), open_lab(load_settings()) as lab:
            yield lab


@contextmanager
def reasons_as_failures() -> Iterator[None]:
    """Turn a :class:`BlaidError` into a Dagster failure that keeps its reasons; only a passing condition is retried."""
    try:
        yield
    except BlaidError as error:
        raise as_failure(error) from error


def as_failure(error: BlaidError) -> dg.Failure:
    """The failure that carries ``error``: its class, every reason with its numbers, what to do next."""
    lines = [f"{reason}  Next: {reason.suggested_fix}" for reason in error.reasons]
    return dg.Failure(
        description="\n".join(lines),
        metadata={
            "error_class": type(error).__name__,
            "error_code": error.reason.code.value,
            "reasons": dg.MetadataValue.json([reason.as_dict() for reason in error.reasons]),
        },
        allow_retries=isinstance(error, RetryLater),
    )


def event_metadata(values: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
    """JSON-ready values as Dagster metadata: text, numbers that plot, JSON for the rest; None is left out.

    A value that is Dagster's already, such as a table, stays as it is.
    """
    metadata: dict[str, dg.MetadataValue] = {}
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, dg.MetadataValue):
            metadata[name] = value
        elif isinstance(value, bool):
            metadata[name] = dg.MetadataValue.bool(value)
        elif isinstance(value, int) and abs(value) < 2**53:
            metadata[name] = dg.MetadataValue.int(value)
        elif isinstance(value, float):
            metadata[name] = dg.MetadataValue.float(value)
        elif isinstance(value, list | dict):
            metadata[name] = dg.MetadataValue.json(json.loads(json.dumps(value, allow_nan=False)))
        else:
            metadata[name] = dg.MetadataValue.text(str(value))
    return metadata


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> dg.MetadataValue:
    """Rows under ``columns`` as a table that the Dagster UI renders; a cell of None is empty."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns))]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def picture(svg: str, words: str) -> dg.MetadataValue:
    """An SVG (``lab.pictures``) inside the event; ``words`` say what it is where it is not drawn."""
    encoded = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![{words}](data:image/svg+xml;base64,{encoded})")


def day_of(yyyymmdd: int) -> str:
    """A session date as people write it."""
    text = str(yyyymmdd)
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")


def reasons_table(reasons: Sequence[Mapping[str, Any]]) -> dg.MetadataValue | None:
    """Stored reasons as a table: code, what was found, what to do next; None where there are none."""
    rows = [(reason["code"], reason["message"], reason["suggested_fix"]) for reason in reasons]
    return markdown_table(("code", "what was found", "what to do"), rows) if rows else None


def run_trace_id(run: dg.DagsterRun) -> str:
    """The trace id of a run: its tag where the starter gave one, else the run id, which has the same 32 hex digits."""
    return run.tags.get(TRACE_TAG) or run.run_id.replace("-", "")
