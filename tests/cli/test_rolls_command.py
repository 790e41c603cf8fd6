"""``blaid rolls``: the calendar of a root, the rolls of a series in the lake, typed refusals."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from blaid_pipelines.market.bars import Bars, to_ns
from blaid_pipelines.market.lake.files import write_segment
from blaid_pipelines.market.lake.snapshots import FilePart, Series, create_snapshot
from blaid_pipelines.market.rolls import RollStep
from blaid_pipelines.settings import Settings
from blaid_pipelines.store.database import Store
from tests.cli.test_commands import run, run_json
from tests.market.helpers import TICK, clean_bars

PROVENANCE = {"source": "file", "source_key": "file", "request_ids": []}
START, END = datetime(2024, 3, 13, 22, tzinfo=UTC), datetime(2024, 3, 15, 21, tzinfo=UTC)
ROLL = datetime(2024, 3, 14, 22, tzinfo=UTC)


@pytest.fixture
def series(store: Store, settings: Settings) -> str:
    """MES.c.0 in the lake, rolling before the session of 2024-03-15, with a step seen at the same time."""
    old = clean_bars(START, ROLL, "MESH4")
    new = clean_bars(ROLL, END, "MESM4")
    step = RollStep(int(new.ts_open[0]), "MESH4", "MESM4", 210 * TICK, "same_time")
    span = to_ns(START), to_ns(END)
    files = write_segment(settings.lake, "FILE", "ohlcv-1m", "MES.c.0", Bars.concat([old, new]), *span, PROVENANCE)
    parts = [FilePart(file.path, file.sha256, file.start_ns, file.end_ns) for file in files]
    made_of = Series("FILE", "ohlcv-1m", "MES.c.0", "MES")
    provenance = {**PROVENANCE, "rolls": [step.as_json()]}
    create_snapshot(store, settings.lake, made_of, *span, parts, provenance, False, "1" * 32)
    return "MES.c.0"


def test_the_rolls_of_a_series_and_the_calendar_around_it(series: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json(capsys, "rolls", series)
    [roll] = answer["rolls"]
    assert roll == {
        "first_bar": "2024-03-14 22:00",
        "from": "MESH4",
        "to": "MESM4",
        "step_ticks": 210,
        "step": "52.5",
        "basis": "same_time",
    }
    assert [row["contract"] for row in answer["calendar"]] == ["MESH4", "MESM4", "MESU4", "MESZ4"]
    assert answer["calendar"][0] == {
        "contract": "MESH4",
        "last_trade": "2024-03-15 13:30",
        "source": "rule",
        "next_contract": "MESM4",
        "roll_session": "2024-03-15",
    }
    status, out, _ = run(capsys, "rolls", series)
    assert status == 0
    assert "same time" in out
    assert "52.5" in out


def test_the_calendar_of_a_root_needs_no_series(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json(capsys, "rolls", "CL", "--year", "2020")
    assert len(answer["calendar"]) == 12
    assert answer["calendar"][4]["last_trade"] == "2020-04-21 18:30"
    assert "rolls" not in answer
    both = run_json(capsys, "rolls", "ES", "--year", "2026", "--year", "2024")
    assert len(both["calendar"]) == 12


@pytest.mark.parametrize(
    ("arguments", "code", "error_code"),
    [
        (("XYZ",), 2, "INSTRUMENT_UNKNOWN"),
        (("MES.C.0",), 2, "INVALID_REQUEST"),
        (("MES.c.0",), 3, "SNAPSHOT_MISSING"),
        (("ES", "--year", "1980"), 2, "INVALID_REQUEST"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    store: Store, arguments: tuple[str, ...], code: int, error_code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = run_json(capsys, "rolls", *arguments, code=code)
    assert answer["error_code"] == error_code
    assert answer["suggested_fix"]
