"""Spans of time and what they leave out of one another."""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[int, int]
"""``[start, end)`` in nanoseconds UTC."""


def overlap(left: Span, right: Span) -> bool:
    """Whether two spans share time."""
    return left[0] < right[1] and right[0] < left[1]


def uncovered(wanted: Span, covered: Sequence[Span]) -> list[Span]:
    """The parts of ``wanted`` that no span of ``covered`` holds, in order."""
    missing = []
    cursor = wanted[0]
    for left, right in sorted(span for span in covered if overlap(span, wanted)):
        if left > cursor:
            missing.append((cursor, left))
        cursor = max(cursor, right)
    if cursor < wanted[1]:
        missing.append((cursor, wanted[1]))
    return missing
