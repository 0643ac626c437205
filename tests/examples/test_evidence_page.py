"""docs/evidence.md lists every value with its meaning, and its example runs."""

from __future__ import annotations

import re

import pytest

from examples.evidence_values import PAGE, with_values

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_table_names_every_value_as_the_estimators_do() -> None:
    assert with_values(TEXT) == TEXT, "run: python tests/examples/evidence_values.py"


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(block, "evidence.md", "exec"), {})
    assert " 256 " in capsys.readouterr().out
