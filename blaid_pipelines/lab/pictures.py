"""Small pictures for event pages: a line over sessions, as SVG text of less than a kilobyte.

What is drawn is decided by the caller; how Dagster shows it is ``resources.lab``'s business. Events are kept for ever
and the UI draws only short ones without a click, so a picture holds at most :data:`MOST_POINTS` points; the extremes
of each stretch survive the thinning.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import pairwise

WIDTH, HEIGHT = 600, 120
MOST_POINTS = 48
MOST_BYTES = 680
"""What fits, encoded, into the thousand characters that the UI shows without a click."""
_TOP, _FLOOR, _RIGHT = 18, 104, 530


def line_chart(title: str, labels: Sequence[str], values: Sequence[float], *, level: float | None = None) -> str:
    """``values`` as a line over ``labels`` (same length, at least one); ``level`` adds a dashed line of comparison.

    The highest and the lowest value stand at the right, the first and the last label below.
    """
    if not values or len(labels) != len(values):
        raise ValueError(f"{len(labels)} labels for {len(values)} values")
    kept = thinned(values)
    shown = [values[row] for row in kept]
    marks = [*shown, *([] if level is None else [level])]
    low, high = min(marks), max(marks)
    span = high - low or 1.0

    def y(value: float) -> int:
        return round(_TOP + (_FLOOR - _TOP) * (high - value) / span)

    places = [(round(_RIGHT * place / max(len(shown) - 1, 1)), y(value)) for place, value in enumerate(shown)]
    steps = "".join(f"l{b[0] - a[0]}{_signed(b[1] - a[1])}" for a, b in pairwise(places))
    dashed = "" if level is None else f'<path d="M0 {y(level)}h{_RIGHT}" stroke="#aaa" stroke-dasharray="4"/>'
    right = _RIGHT + 6
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" font-size="11">'
        f'<g fill="none">{dashed}<path d="M{places[0][0]} {places[0][1]}{steps}" stroke="#35d"/></g>'
        f'<g fill="#555"><text y="10">{html.escape(title)}</text>'
        f'<text x="{right}" y="{_TOP + 8}">{_number(high)}</text>'
        f'<text x="{right}" y="{_FLOOR}">{_number(low)}</text>'
        f'<text y="{HEIGHT - 3}">{html.escape(labels[kept[0]])} - {html.escape(labels[kept[-1]])}</text></g></svg>'
    )


def thinned(values: Sequence[float], most: int = MOST_POINTS) -> list[int]:
    """Rows to draw: all, or of each of ``most / 2`` stretches the lowest and the highest; first and last stay."""
    count = len(values)
    if count <= most:
        return list(range(count))
    stretches = most // 2 - 1
    kept = {0, count - 1}
    for stretch in range(stretches):
        rows = range(stretch * count // stretches, (stretch + 1) * count // stretches)
        kept |= {min(rows, key=lambda row: values[row]), max(rows, key=lambda row: values[row])}
    return sorted(kept)


def _signed(step: int) -> str:
    """A step after another number: its sign parts them, or a space where it has none."""
    return str(step) if step < 0 else f" {step}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
