"""What a comparison of two accounts of the same bars says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from blaid_pipelines.market.bars import from_ns
from blaid_pipelines.market.spans import Span
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


def looked_at(spans: Iterable[Span], part: int, whole: int) -> dict[str, Any]:
    """How far a comparison reaches, as numbers: the spans that it covers, and its part of the whole in per cent."""
    return {
        "compared": [[from_ns(left).isoformat(), from_ns(right).isoformat()] for left, right in sorted(set(spans))],
        "compared_share_pct": 10_000 * part // whole / 100 if whole else 0.0,  # never rounded up to a limit
    }


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
