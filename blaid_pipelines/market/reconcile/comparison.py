"""What a comparison of two accounts of the same bars says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from blaid_pipelines.reasons import Reason, ReasonCode

KINDS = ("daily", "overlap", "backup")
Kind = Literal["daily", "overlap", "backup"]
Status = Literal["PASS", "FAIL", "UNKNOWN"]

SHOWN = 20
"""How many of the worst or first differences the numbers name; an exact comparison names up to :data:`NAMED`."""
NAMED = 1000


@dataclass(frozen=True)
class Comparison:
    """PASS, FAIL or UNKNOWN with its reasons; ``numbers`` holds JSON values: counts, and the worst and first of all."""

    kind: Kind
    status: Status
    reasons: tuple[Reason, ...]
    numbers: dict[str, Any]


def concluded(kind: Kind, reasons: list[Reason], enough: bool, numbers: dict[str, Any], what: str) -> Comparison:
    """FAIL for any reason; else UNKNOWN where too little was compared; else PASS."""
    if reasons:
        return Comparison(kind, "FAIL", tuple(reasons), numbers)
    if enough:
        return Comparison(kind, "PASS", (), numbers)
    return Comparison(kind, "UNKNOWN", (nothing_compared(what, numbers),), numbers)


def nothing_compared(what: str, numbers: dict[str, Any]) -> Reason:
    """The reason of a comparison that had too little to compare."""
    return Reason(
        ReasonCode.RECONCILIATION_UNKNOWN,
        f"too little to compare: {what}",
        "Give the second account of the same range: daily bars, another pull, or the backup provider.",
        {name: value for name, value in numbers.items() if isinstance(value, int | float | str)},
    )
