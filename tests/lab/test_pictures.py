"""What event pages show of a series: short enough to be drawn without a click, and true to its extremes."""

from __future__ import annotations

import base64
import random
import xml.etree.ElementTree as ElementTree

import pytest

from blaid_pipelines.lab.pictures import MOST_BYTES, MOST_POINTS, line_chart, thinned
from blaid_pipelines.lab.portrait import portrait
from blaid_pipelines.market.bars import MINUTE_NS, Bars, to_ns
from resources.lab import picture
from tests.market.helpers import END, MES, START, clean_bars

LIMIT_OF_THE_UI = 1000


@pytest.mark.parametrize("seed", range(20))
def test_a_picture_of_any_length_is_drawn_without_a_click(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.choice([1, 2, 63, 64, 65, 1000, 5000])
    values = [chance.gauss(0, 10 ** chance.randint(0, 7)) for _ in range(count)]
    svg = line_chart("Equity at each session's end, USD", ["2024-01-02"] * count, values, level=25_000.0)
    ElementTree.fromstring(svg)
    assert len(svg) <= MOST_BYTES
    shown = str(picture(svg, "equity from -1,234,567.89 to 1,234,567.89 USD").value)
    assert len(shown) < LIMIT_OF_THE_UI
    encoded = shown.split("base64,")[1].rstrip(")")
    assert base64.b64decode(encoded).decode() == svg


def test_thinning_keeps_the_extremes_and_the_ends() -> None:
    values = [0.0] * 10_000
    values[1234], values[7777] = 9.0, -9.0
    kept = thinned(values)
    assert len(kept) <= MOST_POINTS
    assert {0, 1234, 7777, 9999} <= set(kept)
    assert kept == sorted(set(kept))


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="0 labels for 0 values"):
        line_chart("nothing", [], [])


def test_a_portrait_counts_what_is_missing_in_each_session() -> None:
    whole = clean_bars()
    hole = whole.take([row for row in range(len(whole)) if not 100 <= row < 145])
    found = portrait(hole, MES, MINUTE_NS, to_ns(START), to_ns(END))
    assert found.session_dates == [20240205, 20240206, 20240207]
    assert found.missing_minutes == [45.0, 0.0, 0.0]
    assert found.expected_minutes == len(whole)
    assert found.missing_pct == pytest.approx(100 * 45 / len(whole))
    assert found.closes[-1] == whole.close[-1] / 1e9
    assert len(found.bars) == 6
    assert found.bars[0][:2] == ("2024-02-04\u00a023:00", "MESH4")


def test_no_bars_make_an_empty_portrait() -> None:
    found = portrait(Bars.empty(), MES, MINUTE_NS, to_ns(START), to_ns(END))
    assert (found.session_dates, found.closes, found.bars) == ([], [], [])
    assert found.missing_pct == 100.0
