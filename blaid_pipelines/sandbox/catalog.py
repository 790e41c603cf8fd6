"""The series that the sandbox serves when it is given no files: what the demo and ``blaid up`` trade on.

MES has a planted edge for trend followers, M2K has planted defects that the quality gate must catch, the rest is noise.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

from blaid_pipelines.sandbox.series import Series
from blaid_pipelines.sandbox.synthetic import Defect, Edge, Recipe, synthesise

START, END = date(2024, 1, 2), date(2024, 6, 29)


def _at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


RECIPES: tuple[Recipe, ...] = (
    Recipe("MES.c.0", START, END, edge=Edge(drift=200, shortest=240, longest=420, calm_pct=100)),
    Recipe("MNQ.c.0", START, END),
    Recipe(
        "M2K.c.0",
        START,
        END,
        defects=(
            Defect("gap", _at("2024-03-05T15:00"), 240),
            Defect("off_tick", _at("2024-02-14T16:10"), 3),
            Defect("off_tick", _at("2024-04-10T14:31"), 2),
            Defect("off_tick", _at("2024-05-21T19:05"), 1),
        ),
    ),
    Recipe("MYM.c.0", START, END),
    Recipe("MGC.c.0", START, END),
    Recipe("6E.c.0", START, END),
    Recipe("ZN.c.0", START, END),
)


def default_series() -> list[Series]:
    """Every series of the default catalog, one-minute bars of the first half of 2024."""
    return [synthesise(recipe) for recipe in RECIPES]
