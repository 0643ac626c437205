"""Every kind of edit has a page that is true: its fields, an example that runs, its measured effect."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from neuroexapt.surgery import MUTATIONS

PAGES = Path(__file__).parents[2] / "docs" / "mutations"


def page_of(kind: str) -> str:
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", MUTATIONS)
def test_the_page_names_every_field_and_the_exactness(kind: str) -> None:
    page = page_of(kind)
    assert page.startswith(f"# {kind}\n")
    assert "**Exactness" in page
    for field in dataclasses.fields(MUTATIONS[kind]):
        assert f"| `{field.name}` |" in page, field.name


@pytest.mark.parametrize("kind", MUTATIONS)
@pytest.mark.filterwarnings("default::UserWarning")  # an example may show a warning
def test_the_examples_of_the_page_run(kind: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page_of(kind), re.DOTALL)
    assert blocks
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, f"{kind}.md", "exec"), namespace)


@pytest.mark.parametrize("kind", MUTATIONS)
def test_the_page_shows_a_measured_effect_with_its_command(kind: str) -> None:
    found = re.search(rf"<!-- effect: {kind} -->\n(.*?)<!-- end -->", page_of(kind), re.DOTALL)
    assert found
    assert f"--kinds {kind}" in found[1]
    assert "| difference in accuracy (points), in loss; mean and 95 % interval |" in found[1]


def test_the_index_lists_every_kind() -> None:
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    for kind in MUTATIONS:
        assert f"[`{kind}`]" in index
