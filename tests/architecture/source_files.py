"""The package's own source, parsed: what the tests of this folder look at."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "neuroexapt"


@dataclass(frozen=True)
class Source:
    """One module: its dotted name, whether it is an ``__init__.py``, its text and its tree."""

    name: str
    is_package: bool
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The folder or file right below the package; empty for the package itself."""
        return self.name.split(".")[1] if "." in self.name else ""

    @property
    def package(self) -> str:
        """What a relative import of one dot starts from."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    def comments(self) -> dict[int, str]:
        """Line number -> comment on that line."""
        tokens = tokenize.generate_tokens(StringIO(self.text).readline)
        return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def parse(name: str, text: str, *, is_package: bool = False) -> Source:
    """Returns a module from its text."""
    return Source(name, is_package, text, ast.parse(text))


@cache
def sources() -> tuple[Source, ...]:
    """Returns every module of the package, in the order of their names."""
    return tuple(_read(path) for path in sorted(ROOT.rglob("*.py")))


def _read(path: Path) -> Source:
    parts = ["neuroexapt", *path.relative_to(ROOT).with_suffix("").parts]
    is_package = parts[-1] == "__init__"
    return parse(".".join(parts[:-1] if is_package else parts), path.read_text("utf-8"), is_package=is_package)


def functions_of(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yields every function and method, nested ones too."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def classes_of(source: Source) -> Iterator[ast.ClassDef]:
    """Yields every class, nested ones too."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef):
            yield node


def fail_on(problems: list[str]) -> None:
    """Fails with one line for each problem."""
    if problems:
        pytest.fail("\n".join(["", *problems]), pytrace=False)
