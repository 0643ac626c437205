"""Integers that remember where they came from.

During a trace the integers of modules, and the sizes that code reads from tensors, are ``TracedInt``s: an ``int`` with
an expression over module attributes and extents of index spaces. Arithmetic gives expressions of expressions; what is
lost on the way (``int(x)``, floats) is a plain number again, so a followed integer is never wrong, only sometimes
missing. Expressions are evaluated again at other sizes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from neuroexapt.graph.sizes import resized
from neuroexapt.graph.space import Space, leaves

Key = str | int


@dataclass(frozen=True, slots=True)
class Attribute:
    """An integer that a module keeps: its place and its value in the trace.

    Attributes:
        module: Path of the module.
        name: The module's attribute.
        keys: The way on from there: indices, dictionary keys, attribute names of a plain object.
        value: The integer.
    """

    module: str
    name: str
    keys: tuple[Key, ...]
    value: int

    def __str__(self) -> str:
        inner = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys)
        return f"{self.module}.{self.name}{inner}".lstrip(".")


@dataclass(frozen=True, slots=True)
class Extent:
    """The size of a tensor's dimension."""

    space: Space


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Arithmetic on two expressions."""

    symbol: str
    left: Expression
    right: Expression


Expression = int | Attribute | Extent | Arithmetic
Variable = Attribute | Space  # what a solver may change: an attribute, or a leaf space

_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}


def evaluate(expression: Expression, values: Mapping[Variable, int]) -> int | None:
    """Returns the value with other attributes and leaf sizes; ``None`` where it divides by zero."""
    if isinstance(expression, int):
        return expression
    if isinstance(expression, Attribute):
        return values.get(expression, expression.value)
    if isinstance(expression, Extent):
        return resized(expression.space, values)
    left, right = evaluate(expression.left, values), evaluate(expression.right, values)
    if left is None or right is None or (right == 0 and expression.symbol in ("//", "%")):
        return None
    return _ARITHMETIC[expression.symbol](left, right)


def divides_evenly(expression: Expression, values: Mapping[Variable, int]) -> bool:
    """Whether no division in an expression leaves a remainder."""
    if not isinstance(expression, Arithmetic):
        return True
    left, right = evaluate(expression.left, values), evaluate(expression.right, values)
    is_even = expression.symbol != "//" or (left is not None and bool(right) and left % right == 0)  # type: ignore[operator]
    return is_even and divides_evenly(expression.left, values) and divides_evenly(expression.right, values)


def variables(expression: Expression) -> list[Variable]:
    """Returns the attributes and leaves of an expression, in the order in which it names them."""
    if isinstance(expression, int):
        return []
    if isinstance(expression, Attribute):
        return [expression]
    if isinstance(expression, Extent):
        return list(dict.fromkeys(leaves(expression.space)))
    return list(dict.fromkeys([*variables(expression.left), *variables(expression.right)]))


def in_words(expression: Expression) -> str:
    """Returns an expression as a reader of the code would write it."""
    if isinstance(expression, Extent):
        return f"a dimension of {resized(expression.space, {})}"
    if isinstance(expression, Arithmetic):
        return f"({in_words(expression.left)} {expression.symbol} {in_words(expression.right)})"
    return str(expression)


class Session:
    """One trace: integers that outlive it (in a cache of the user's) are plain numbers from then on."""

    def __init__(self) -> None:
        self.is_open = True


class TracedInt(int):
    """An integer with an expression; for everybody else it is its value."""

    expression: Expression
    session: Session

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)

    def __copy__(self) -> int:
        return int(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)

    def __pos__(self) -> int:
        return self

    def __neg__(self) -> int:
        return 0 - self


def traced(value: int, expression: Expression, session: Session) -> TracedInt:
    """Returns an integer that remembers its expression."""
    result = TracedInt(value)
    result.expression, result.session = expression, session
    return result


def expression_of(value: int, session: Session) -> Expression:
    """Returns the expression of an integer; a plain one, or one of another trace, is a constant."""
    if isinstance(value, TracedInt) and value.session is session:
        return value.expression
    return int(value)


def product_of(numbers: Iterable[Expression]) -> Expression:
    """Returns the product of expressions."""
    result: Expression = 1
    for number in numbers:
        result = number if result == 1 else Arithmetic("*", result, number)
    return result


def _result(symbol: str, left: Any, right: Any, value: Any) -> Any:
    source = left if isinstance(left, TracedInt) else right
    if value is NotImplemented or not source.session.is_open:
        return value
    session = source.session
    expression = Arithmetic(symbol, expression_of(left, session), expression_of(right, session))
    return traced(value, expression, session)


def _forward(symbol: str, method: Callable[[int, Any], Any]) -> Callable[[TracedInt, Any], Any]:
    return lambda self, other: _result(symbol, self, other, method(self, other))


def _reflected(symbol: str, method: Callable[[int, Any], Any]) -> Callable[[TracedInt, Any], Any]:
    return lambda self, other: _result(symbol, other, self, method(self, other))


for _symbol, _name in (("+", "add"), ("-", "sub"), ("*", "mul"), ("//", "floordiv"), ("%", "mod")):
    setattr(TracedInt, f"__{_name}__", _forward(_symbol, getattr(int, f"__{_name}__")))
    setattr(TracedInt, f"__r{_name}__", _reflected(_symbol, getattr(int, f"__r{_name}__")))
