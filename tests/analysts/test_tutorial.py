"""The tutorial page itself: well-formed, complete, and its runner sees what differs. The demo's test runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from blaid_pipelines.lab.dbt_project import PROJECT, read_project
from tests.analysts.tutorial import DONE_BEFORE, Reader, rewrite, steps_of

PAGE = PROJECT.parent / "docs" / "tutorial" / "analysts.md"


def test_the_page_shows_what_its_blocks_print() -> None:
    steps = steps_of(PAGE.read_text())
    assert steps[0].code == DONE_BEFORE
    assert {step.language for step in steps} == {"python", "sql", "sh"}
    for step in steps:
        if step.language == "python":
            compile(step.code, f"line {step.line}", "exec")
            assert ("print(" in step.code) == (step.shown is not None), f"line {step.line}"
    assert all(step.shown.strip() for step in steps if step.shown is not None)


def test_every_mart_is_on_the_page() -> None:
    page = PAGE.read_text()
    assert [model.name for model in read_project().models if model.folder == "marts" and model.name not in page] == []


def test_links_lead_somewhere() -> None:
    import re

    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target


SMALL = """```python
a = 1
```

```python
print(a + 1)
```

```text
3
```

```sh
echo hello > told
cat told
```

```text
hello
```
"""


def test_a_difference_is_seen_and_can_be_written_down(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    printed = [(step.shown, reader.do(step)) for step in steps_of(SMALL)]
    assert printed == [(None, "\n"), ("3\n", "2\n"), ("hello\n", "hello\n")]
    assert rewrite(SMALL, tmp_path) == SMALL.replace("3\n", "2\n")


def test_a_command_that_fails_names_its_line(tmp_path: Path) -> None:
    step = steps_of("text\n\n```sh\nfalse\n```\n")[0]
    with pytest.raises(AssertionError, match="line 3"):
        Reader(tmp_path).do(step)


def test_an_output_without_code_is_refused() -> None:
    with pytest.raises(ValueError, match="line 1"):
        steps_of("```text\nx\n```\n")
