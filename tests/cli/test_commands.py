"""What holds for every command: help, --json, exit codes, typed errors instead of stacks, a quick start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from blaid_pipelines.cli.main import COMMANDS, blaid, main
from blaid_pipelines.cli.output import print_table
from blaid_pipelines.settings import Settings


def _paths() -> list[tuple[str, ...]]:
    """Every command, and of a group every command in it."""
    found: list[tuple[str, ...]] = []
    for name in COMMANDS:
        command = blaid.get_command(click.Context(blaid), name)
        inside = command.commands if isinstance(command, click.Group) else {}
        found += [(name, inner) for inner in inside] or [(name,)]
    return found


PATHS = _paths()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run ``blaid`` in this process: exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    captured = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """Run with ``--json``; standard output must be one JSON document and nothing else."""
    status, out, err = run(capsys, *arguments, "--json")
    assert status == code, f"{arguments}: exit {status}\n{out}\n{err}"
    return json.loads(out)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_has_help_and_json(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, *path, "--help")
    assert status == 0
    assert "--json" in out
    assert len(out.splitlines()) > 4


def test_help_needs_nothing_heavy() -> None:
    heavy = "'dagster', 'pandas', 'numpy', 'pyarrow', 'numba', 'sqlalchemy', 'great_expectations', 'databento', 'rich'"
    code = (
        "import sys\nfrom blaid_pipelines.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"loaded = [name for name in ({heavy}) if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("backtest",),
        ("backtest", "a", "b"),
        ("pull",),
        ("pull", "MES.c.0", "--start", "2024-01-02"),
        ("bot", "create", "x", "--instrument", "MES", "--strategy", "ma_cross", "--capital", "-5"),
        ("bot", "create", "x", "--instrument", "MES", "--strategy", "ma_cross", "--capital", "0.001"),
        ("bot", "create", "x", "--instrument", "MES", "--strategy", "ma_cross", "--capital", "9", "--param", "fast"),
        ("ingest", "--symbol", "6EH4"),
        ("ingest", "file.csv", "--symbol", "6EH4", "--stamp", "middle"),
    ],
    ids=" ".join,
)
def test_usage_errors_exit_2_and_say_what_is_expected(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert "Error" in err
    assert "Traceback" not in err


def test_without_an_installation_every_question_says_what_to_do(
    settings: Settings, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BLAID_HOME", str(tmp_path / "nowhere"))
    monkeypatch.delenv("BLAID_DATABASE_URL", raising=False)
    for arguments in (("status",), ("bot", "list"), ("explain", "x"), ("backtest", "x")):
        answer = run_json(capsys, *arguments, code=1)
        assert answer["success"] is False
        assert "blaid init" in answer["suggested_fix"]


def test_bots_are_created_listed_and_refused_with_every_reason_at_once(
    store: object, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run_json(
        capsys, "bot", "create", "euro", "--instrument", "6EH4", "--strategy", "zscore_reversion", "--capital", "50,000"
    )
    assert (made["bot"]["instrument"], made["bot"]["symbol"], made["bot"]["capital_usd"]) == ("6E", "6EH4", 50000.0)
    assert [bot["name"] for bot in run_json(capsys, "bot", "list")["bots"]] == ["euro"]
    again = run_json(
        capsys, "bot", "create", "euro", "--instrument", "6E", "--strategy", "ma_cross", "--capital", "50000", code=2
    )
    assert again["error_code"] == "ALREADY_EXISTS"
    wrong = run_json(
        capsys,
        *("bot", "create", "../x", "--instrument", "MES", "--strategy", "ma_cross", "--capital", "5"),
        *("--symbol", "MNQ.c.0", "--contracts", "100000"),
        code=2,
    )
    codes = [reason["code"] for reason in wrong["reasons"]]
    assert codes == ["INVALID_REQUEST", "INSTRUMENT_MISMATCH", "INVALID_REQUEST", "MARGIN_EXCEEDS_CAPITAL"]


@pytest.mark.parametrize(
    ("arguments", "error_code"),
    [
        (("--instrument", "XYZ", "--strategy", "ma_cross"), "INSTRUMENT_UNKNOWN"),
        (("--instrument", "MES", "--strategy", "astrology"), "STRATEGY_UNKNOWN"),
        (("--instrument", "MES", "--strategy", "ma_cross", "--param", "fast=nan"), "PARAMETER_INVALID"),
        (("--instrument", "MES", "--strategy", "ma_cross", "--param", "moon=1"), "PARAMETER_INVALID"),
        (("--instrument", "MES", "--strategy", "ma_cross", "--param", "fast=900"), "PARAMETER_INVALID"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_bot_that_makes_no_sense_is_refused(
    store: object, arguments: tuple[str, ...], error_code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = run_json(capsys, "bot", "create", "b", *arguments, "--capital", "50000", code=2)
    assert answer["error_code"] == error_code
    assert answer["suggested_fix"]


def test_usage_errors_are_documents_too_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json(capsys, "explain", code=2)["error_code"] == "INVALID_REQUEST"
    assert "Did you mean 'status'" in run_json(capsys, "stauts", code=2)["message"]


def test_what_cannot_be_asked_starts_no_run(
    settings: Settings, store: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resources.commands", None)  # importing it would fail: nothing gets so far
    dates = ("--start", "2024-01-02", "--end", "2024-01-05")
    for arguments, code in (
        (("pull", "../../etc", *dates), "INSTRUMENT_UNKNOWN"),
        (("pull", "MES.c.0", "--start", "2024-13-02", "--end", "2024-01-05"), "INVALID_REQUEST"),
        (("ingest", "nofile.csv", "--symbol", "6EH4"), "FILE_UNREADABLE"),
        (("backtest", "nobody"), "NOT_FOUND"),
    ):
        assert run_json(capsys, *arguments, code=2)["error_code"] == code


def test_a_table_that_does_not_fit_breaks_no_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ("trend-mes", "14,730.77", "broker_for_paper (BROKER_REQUIRED_FOR_PAPER)")
    for columns in ("40", "80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        print_table("Bots", ("bot", "net PnL USD", "first failing gate"), [row], right=("net PnL USD",))
        out = capsys.readouterr().out
        assert all(cell in out for cell in row)


def test_a_table_with_a_long_text_wraps_the_text_and_nothing_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = ("files that are", "size", "what they are")
    text = "bars that nothing rests on any more, taken from files or spoilt, of 2 kinds"
    rows = [("superseded", "1,234.5 MB", text), ("orphan", "0 B", "bar files that were never recorded")]
    monkeypatch.setenv("COLUMNS", "80")
    print_table("Lake", columns, rows, right=("size",))
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert (
        out.index("files that are") < out.index("superseded") < out.index("1,234.5 MB") < out.index("bars that nothing")
    )
    assert "spoilt" in out
    assert text not in out
    monkeypatch.setenv("COLUMNS", "50")
    print_table("Lake", columns, rows, right=("size",))
    assert text in capsys.readouterr().out, "too narrow to wrap: a block of its own"


def test_a_defect_of_ours_ends_typed_and_its_stack_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("in a command")

    monkeypatch.setattr("blaid_pipelines.settings.load_settings", broken)
    answer = run_json(capsys, "status", code=1)
    assert answer["error_code"] == "JOB_FAILED"
    log = Path(answer["reasons"][0]["numbers"]["log"])
    assert "ZeroDivisionError: in a command" in log.read_text()
    log.unlink()
