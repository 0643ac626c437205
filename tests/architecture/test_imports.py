"""An import goes down: from a room to a lower floor, never up and never to a neighbour."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import pytest

from architecture.source_files import Source, fail_on, parse, sources

FLOORS = (
    {"cli"},
    {"integrations"},
    {"train", "report", "data", "models"},
    {"morphogenesis", "search"},
    {"surgery", "analysis"},
    {"graph", "resources"},
    {"config", "events"},
    {"errors"},
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
TOP = "neuroexapt"


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Yields line and dotted name of everything of this package that a module imports, wherever it does.

    ``from a import b`` yields ``a.b``. A string that is a dotted name of the package counts: that is how lazy imports
    are written.
    """
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(source, node)
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if re.fullmatch(rf"{TOP}(\.\w+)+", node.value) else []
        else:
            continue
        yield from ((node.lineno, name) for name in names if name == TOP or name.startswith(f"{TOP}."))


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    base = source.package.split(".")[: len(source.package.split(".")) - node.level + 1]
    return ".".join([*base, *filter(None, [node.module])])


def violations(source: Source) -> list[str]:
    """Returns what a module imports and must not, one sentence each; the package's own ``__init__`` is free."""
    if source.name == TOP:
        return []
    found = []
    for line, name in imports(source):
        room = name.split(".")[1] if "." in name else ""
        if room == "__version__" and source.room == "cli":
            continue
        if room not in FLOOR_OF:
            why = "the top-level package is for users; import from the room that defines it"
        elif room == source.room or FLOOR_OF[room] > FLOOR_OF[source.room]:
            continue
        elif FLOOR_OF[room] == FLOOR_OF[source.room]:
            why = f"{source.room} and {room} stand on one floor and do not know each other"
        else:
            why = f"{room} stands above {source.room}"
        found.append(f"{source.name}, line {line}: imports {name}: {why}")
    return found


def test_every_room_has_its_floor():
    fail_on([f"{s.name}: room {s.room!r} is on no floor" for s in sources() if s.room and s.room not in FLOOR_OF])


def test_every_import_goes_down():
    fail_on([problem for source in sources() for problem in violations(source)])


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("graph.a", "from neuroexapt.surgery.writing import apply", "surgery stands above graph"),
        ("graph.a", "def f():\n    import neuroexapt.train.step", "line 2: imports neuroexapt.train.step"),
        ("graph.a", "if TYPE_CHECKING:\n    from neuroexapt.cli import main", "cli stands above graph"),
        ("train.a", "from neuroexapt.report import headline", "train and report stand on one floor"),
        ("config.a", "from ..events import Event", "config and events stand on one floor"),
        ("report.a", "lazy = 'neuroexapt.cli.main'", "cli stands above report"),
        ("train.a", "from neuroexapt import Surgeon", "the top-level package is for users"),
        ("train.a", "import neuroexapt", "the top-level package is for users"),
        ("cli.a", "import neuroexapt as nx", "the top-level package is for users"),
    ],
)
def test_an_arrow_that_points_the_wrong_way_is_found(name, text, found):
    (problem,) = violations(parse(f"{TOP}.{name}", text))
    assert found in problem


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cli.a", "from neuroexapt import __version__"),
        ("cli.a", "from neuroexapt.integrations.lightning import Callback"),
        ("train.a", "from neuroexapt.errors import InputError"),
        ("train.a", "from .step import GuardedStep\nfrom neuroexapt.train.run import Run"),
        ("graph.a", "import torch\nfrom collections import abc\nwhere = 'neuroexapt'"),
    ],
)
def test_an_arrow_down_or_inside_a_room_is_free(name, text):
    assert violations(parse(f"{TOP}.{name}", text)) == []


def test_no_modules_import_each_other_in_a_circle():
    names = {source.name for source in sources()}
    graph: dict[str, set[str]] = {}
    for source in sources():
        if source.is_package:
            continue
        found = graph.setdefault(source.name, set())
        for _, name in imports(source):
            module = name if name in names else name.rpartition(".")[0]
            found |= {module} & names
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        fail_on([" -> ".join(error.args[1])])


def test_imports_inside_functions_are_for_optional_dependencies_only():
    always_there = sys.stdlib_module_names | {"torch", "numpy", "safetensors", "psutil", "pydantic", "yaml", TOP}
    problems = []
    for source in sources():
        for function in (n for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [_absolute(source, node)]
                problems += [
                    f"{source.name}, line {node.lineno}: imports {name} inside {function.name}()"
                    for name in names
                    if name.split(".")[0] in always_there
                ]
    fail_on(problems)
