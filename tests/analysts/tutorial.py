"""Runs a tutorial page: its code blocks in order, against a data folder, and compares what they print with the page.

A ```text block after a code block is what that block prints, to the letter. Blocks of Python share one session, as a
reader's do. ``python -m tests.analysts.tutorial PAGE HOME`` writes what was printed into the page instead.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DONE_BEFORE = "blaid demo\n"
"""The block that makes the data folder: the test's world has done it."""


@dataclass(frozen=True)
class Step:
    """A block of code, where it is, and what the page says that it prints; None where it says nothing."""

    language: str
    code: str
    line: int
    shown: str | None
    shown_at: tuple[int, int] | None


def steps_of(page: str) -> list[Step]:
    """The code blocks of a page with the outputs shown. ``ValueError`` for an output without code before it."""
    found = list(BLOCK.finditer(page))
    steps = []
    for number, block in enumerate(found):
        if block.group(1) == "text":
            if number == 0 or found[number - 1].group(1) == "text":
                raise ValueError(f"line {_line(page, block)}: an output without a block that prints it")
            continue
        after = found[number + 1] if number + 1 < len(found) and found[number + 1].group(1) == "text" else None
        steps.append(
            Step(
                block.group(1),
                block.group(2),
                _line(page, block),
                None if after is None else after.group(2),
                None if after is None else after.span(2),
            )
        )
    return steps


def _line(page: str, block: re.Match[str]) -> int:
    return page.count("\n", 0, block.start()) + 1


class Reader:
    """Somebody who follows the page: one Python session, one shell, one folder (``cwd``)."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.session: dict[str, Any] = {"__name__": "tutorial"}

    def do(self, step: Step) -> str:
        """What the block prints. Raises whatever it raises, ``AssertionError`` for a command that fails."""
        if step.language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.chdir(self.cwd):
                exec(compile(step.code, f"line {step.line}", "exec"), self.session)
            return _clean(out.getvalue())
        if step.language == "sql":
            return self._run(step, sys.executable, "-m", "blaid_pipelines.cli.main", "sql", "--no-check", step.code)
        assert step.language == "sh", f"line {step.line}: what is {step.language}?"
        return "" if step.code == DONE_BEFORE else self._run(step, "bash", "-euc", step.code)

    def _run(self, step: Step, *command: str) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # Without a width of its own: whoever runs this may have a narrow terminal.
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        done = subprocess.run(
            command, cwd=self.cwd, env={**environment, "PATH": path},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"line {step.line}: {done.stderr}"
        return _clean(done.stdout)


def _clean(text: str) -> str:
    """Without the blanks at the ends of lines, which no editor keeps, and empty lines around."""
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(lines).strip("\n") + "\n"


def rewrite(page: str, cwd: Path) -> str:
    """The page with what its blocks print now."""
    reader, pieces, at = Reader(cwd), [], 0
    for step in steps_of(page):
        printed = reader.do(step)
        if step.shown_at is not None:
            pieces += [page[at : step.shown_at[0]], printed]
            at = step.shown_at[1]
    return "".join([*pieces, page[at:]])


if __name__ == "__main__":
    target, home = Path(sys.argv[1]), Path(sys.argv[2]).absolute()
    os.environ["BLAID_HOME"] = str(home)
    target.write_text(rewrite(target.read_text(), home.parent))
