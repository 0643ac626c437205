"""Writes the list of rooms and files in docs/architecture.md from the first lines of their docstrings.

``python tests/architecture/rooms.py`` after adding, removing or renaming a file; a test says when it is due.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "neuroexapt"
DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: written by tests/architecture/rooms.py -->\n", "<!-- end of rooms -->"
TOP_DOWN = (
    "cli", "train", "report", "data", "models", "morphogenesis", "surgery", "analysis", "graph", "resources", "config",
    "events", "errors.py",
)  # fmt: skip


def idea(path: Path) -> str:
    """The first paragraph of a module's docstring on one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def render() -> str:
    lines = []
    for room in TOP_DOWN:
        folder = SOURCE / room
        lines.append(f"### `{room.removesuffix('.py')}`\n")
        if folder.is_dir():
            lines.append(f"{idea(folder / '__init__.py')}\n")
        files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]
        lines += ["| file | idea |", "|---|---|"]
        lines += [f"| `{f.relative_to(SOURCE)}` | {idea(f)} |" for f in files if f != folder / "__init__.py"]
        lines.append("")
    return "\n".join(lines)


def written() -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


if __name__ == "__main__":
    before, rest = DOCUMENT.read_text(encoding="utf-8").split(BEGIN)
    DOCUMENT.write_text(before + BEGIN + render() + rest[rest.index(END) :], encoding="utf-8")
