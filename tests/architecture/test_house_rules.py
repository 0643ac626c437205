"""The rules of the house that a parser can check."""

import ast
import dataclasses
import inspect

import pytest

import neuroexapt
from architecture.source_files import Source, classes_of, fail_on, functions_of, parse, sources
from neuroexapt import config

MAX_LINES_OF_A_FILE = 400
MAX_LINES_OF_A_FUNCTION = 50  # without its docstring
MAX_METHODS_OF_A_CLASS = 14

CONFIGS = [getattr(config, name) for name in config.__all__ if name.endswith("Config")]


def stray_statements(source: Source) -> list[str]:
    """Returns what an ``__init__.py`` does besides re-exporting."""
    return [
        f"{source.name}, line {node.lineno}: {ast.unparse(node).splitlines()[0]}"
        for node in source.tree.body
        if not _re_exports(node)
    ]


def _re_exports(node: ast.stmt) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return all(isinstance(inner, ast.Import | ast.ImportFrom) for inner in node.body)
        case ast.FunctionDef(name="__getattr__" | "__dir__"):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name in ("__all__", "__version__") or (name.isupper() and _is_literal(node.value))
    return False


def _is_literal(node: ast.expr | None) -> bool:
    if node is None:
        return False
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def broad_handlers(source: Source) -> list[tuple[int, bool]]:
    """Returns line of every handler that catches everything, and whether a comment there says why."""
    comments = source.comments()
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type):
            lines = (node.lineno - 1, node.lineno, *range(node.lineno + 1, node.body[0].lineno))
            found.append((node.lineno, any(len(comments.get(line, "")) > 10 for line in lines)))
    return found


def _is_broad(kind: ast.expr | None) -> bool:
    if isinstance(kind, ast.Tuple):
        return any(_is_broad(element) for element in kind.elts)
    return kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))


def num_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Counts the lines of a function from its ``def``, without its docstring."""
    total = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        total -= (first.end_lineno or 0) - first.lineno + 1
    return total


def test_an_init_file_only_re_exports():
    fail_on([problem for source in sources() if source.is_package for problem in stray_statements(source)])


def test_an_init_file_that_does_more_is_found():
    text = '"""Doc."""\nimport os\n__all__ = ["a"]\nos.environ["X"] = "1"\nclass Late: ...\n'
    assert len(stray_statements(parse("neuroexapt.x", text, is_package=True))) == 2


def test_nothing_prints_outside_the_command_line():
    fail_on(
        [
            f"{source.name}, line {node.lineno}: print"
            for source in sources()
            if source.room != "cli"
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Name) and node.id == "print"
        ]
    )


def test_a_handler_that_catches_everything_says_why():
    fail_on(
        [
            f"{source.name}, line {line}: catches everything without a comment that says why"
            for source in sources()
            for line, is_explained in broad_handlers(source)
            if not is_explained
        ]
    )


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        ("except Exception:", [(3, False)]),
        ("except:", [(3, False)]),
        ("except (ValueError, BaseException) as e:", [(3, False)]),
        ("except Exception:  # the edge to the user's code", [(3, True)]),
        ("except ValueError:", []),
    ],
)
def test_broad_handlers_are_told_from_narrow_ones(handler, expected):
    assert broad_handlers(parse("neuroexapt.x", f"try:\n    f()\n{handler}\n    pass\n")) == expected


def test_a_file_fits_on_a_few_screens():
    fail_on(
        [
            f"{source.name}: {count} lines, at most {MAX_LINES_OF_A_FILE}"
            for source in sources()
            if (count := len(source.text.splitlines())) > MAX_LINES_OF_A_FILE
        ]
    )


def test_a_function_fits_on_a_screen():
    fail_on(
        [
            f"{source.name}, line {function.lineno}: {function.name}() has {num_lines(function)} lines "
            f"without its docstring, at most {MAX_LINES_OF_A_FUNCTION}"
            for source in sources()
            for function in functions_of(source)
            if num_lines(function) > MAX_LINES_OF_A_FUNCTION
        ]
    )


def test_a_class_has_few_methods():
    fail_on(
        [
            f"{source.name}: {node.name} has {count} methods, at most {MAX_METHODS_OF_A_CLASS}"
            for source in sources()
            for node in classes_of(source)
            if (count := sum(isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) for n in node.body))
            > MAX_METHODS_OF_A_CLASS
        ]
    )


def test_every_module_opens_with_its_idea():
    fail_on([f"{source.name}: no docstring" for source in sources() if not ast.get_docstring(source.tree)])


@pytest.mark.parametrize("name", [name for name in neuroexapt.__all__ if not name.startswith("__")])
def test_every_public_name_says_what_it_is(name):
    public = getattr(neuroexapt, name)
    if not (inspect.isclass(public) or inspect.isfunction(public)):
        return
    assert public.__doc__
    assert not public.__doc__.startswith(f"{name}("), "that is the signature a dataclass writes by itself"
    undocumented = [
        method
        for method, value in (vars(public).items() if inspect.isclass(public) else ())
        if not method.startswith("_")
        and inspect.isfunction(inspect.unwrap(value) if callable(value) else value)
        and not value.__doc__
    ]
    assert undocumented == []


def test_every_setting_is_read_by_something():
    read = {
        node.attr
        for source in sources()
        if source.room != "config"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    settings = [(cls.__name__, field.name) for cls in CONFIGS for field in dataclasses.fields(cls)]
    assert len(settings) > 30
    fail_on([f"{cls}.{name} is read by nothing: remove it or use it" for cls, name in settings if name not in read])
