"""What README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

from neuroexapt.morphogenesis.policies import POLICIES
from neuroexapt.morphogenesis.triggers import TRIGGERS

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_blocks_run_one_after_another(capsys) -> None:  # type: ignore[no-untyped-def]
    namespace: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert len(BLOCKS) == 4
    assert "Widen(axis='0', to=12" in printed
    assert '"InsertLayer"' in printed or "'InsertLayer'" in printed


def test_the_page_on_growing_runs_and_names_every_trigger_and_policy() -> None:
    page = (Path(__file__).parents[2] / "docs" / "growing.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "growing.md", "exec"), {})
    assert all(f"| `{name}` |" in page for name in [*TRIGGERS, *POLICIES])


def test_every_command_and_flag_that_is_shown_exists() -> None:
    from neuroexapt.cli.main import build_parser

    shown = [line.split("#")[0].split() for line in README.splitlines() if line.startswith("neuroexapt ")]
    assert len(shown) >= 7
    for words in shown:
        build_parser().parse_args(words[1:])


def test_every_file_that_is_linked_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (Path(__file__).parents[2] / target).is_file(), target
