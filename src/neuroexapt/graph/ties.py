"""Which other sizes follow when some axes get other sizes: the solver of the equations in the user's code.

Starting from the asked sizes, every equation that no longer holds is repaired by one more change: an attribute that it
names, else another axis that the code ties to it. Each attribute and axis changes at most once, so one that stands in
several equations must satisfy them all; a choice that leads nowhere is taken back. Deterministic; at most
``REPAIRS`` repairs are tried for one question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from neuroexapt.graph.equations import Equation
from neuroexapt.graph.expressions import Attribute, Variable, divides_evenly, evaluate, in_words, variables
from neuroexapt.graph.space import Space, resolve

REPAIRS = 400
_FACTOR = 256  # how much larger than before a size is looked for


@dataclass(frozen=True, slots=True)
class Closure:
    """A set of changes after which the code's equations hold again.

    Attributes:
        values: New sizes of the asked axes and of all that follow, and new values of module attributes.
        broken: Why not all equations hold, or ``""``.
        is_doubtful: The equations that are broken are numbers whose origin may have been lost, so only a run can tell.
    """

    values: Mapping[Variable, int]
    broken: str = ""
    is_doubtful: bool = False

    @property
    def is_hopeless(self) -> bool:
        """Whether no run is needed to know that the forward fails or does something else."""
        return bool(self.broken) and not self.is_doubtful

    @property
    def sizes(self) -> dict[Space, int]:
        """The new sizes."""
        return {key: value for key, value in self.values.items() if isinstance(key, Space)}

    @property
    def attributes(self) -> dict[Attribute, int]:
        """The new attributes."""
        return {key: value for key, value in self.values.items() if isinstance(key, Attribute)}


Values = dict[Variable, int]
_Node = tuple[Values, list[int]]  # what has been changed, and the equations that do not hold


class Ties:
    """The equations of a trace, by the attributes and axes that they are about."""

    def __init__(self, equations: Sequence[Equation], is_copied: Callable[[Space], bool]) -> None:
        """Takes the equations, and whether a leaf can only grow by an integer factor."""
        self._is_copied = is_copied
        self._equations: list[Equation] = []
        self._variables: list[list[Variable]] = []
        self._about: dict[Variable, list[int]] = {}
        for equation in dict.fromkeys(equations):
            found = list(dict.fromkeys([*variables(equation.written), *variables(equation.needed)]))
            if not any(_is_free(variable) for variable in found) or not _holds(equation, {}):
                continue
            for variable in found:
                self._about.setdefault(variable, []).append(len(self._equations))
            self._equations.append(equation)
            self._variables.append(found)

    def closure(self, sizes: Mapping[Space, int]) -> Closure:
        """Returns what changes with these leaf sizes."""
        asked = cast(Values, dict(sizes))
        broken = self._broken(asked, asked)
        found, blamed = self._search((asked, broken), skip=frozenset())
        if found is not None:
            return Closure(found)
        constants = frozenset(i for i, e in enumerate(self._equations) if isinstance(e.written, int))
        without, also_blamed = self._search((asked, [i for i in broken if i not in constants]), skip=constants)
        if without is not None:
            violated = [i for i in self._broken(without, without) if i in constants]
            return Closure(without, self._reason(violated[0] if violated else blamed), is_doubtful=True)
        return Closure(asked, self._reason(also_blamed))

    def hold(self, values: Mapping[Variable, int]) -> bool:
        """Whether all equations hold after these changes."""
        return not self._broken(values, values)

    def _broken(self, changed: Mapping[Variable, int], values: Mapping[Variable, int]) -> list[int]:
        touched = sorted({index for variable in changed for index in self._about.get(variable, ())})
        return [index for index in touched if not _holds(self._equations[index], values)]

    def _search(self, start: _Node, skip: frozenset[int]) -> tuple[Values | None, int]:
        """Depth first over the repairs; returns the changes, or ``None`` and an equation that cannot be repaired."""
        directions = _directions(start[0])
        stack: list[Iterator[_Node]] = [iter([start])]
        blamed, repairs = -1, 0
        while stack and repairs < REPAIRS:
            node = next(stack[-1], None)
            if node is None:
                stack.pop()
                continue
            values, broken = node
            if not broken:
                return values, -1
            repairs += 1
            index = min(broken, key=lambda i: (len(self._open(i, values)), i))
            if not self._open(index, values) and blamed < 0:
                blamed = index
            stack.append(self._repaired(index, values, broken, directions, skip))
            last = index
        return None, blamed if blamed >= 0 else last

    def _open(self, index: int, values: Values) -> list[Variable]:
        return [v for v in self._variables[index] if v not in values and _is_free(v)]

    def _repaired(
        self, index: int, values: Values, broken: list[int], directions: tuple[int, ...], skip: frozenset[int]
    ) -> Iterator[_Node]:
        equation = self._equations[index]
        repairs = []
        for order, variable in enumerate(self._open(index, values)):
            for direction in directions:
                roots = _roots(equation, values, variable, direction)
                shares = _shares(equation, values, variable, direction)
                for value in [*roots, *(share for share in shares if share not in roots)]:
                    if self._can_become(variable, value):
                        changed = {**values, variable: value}
                        key = (*_preference(equation, variable, changed, shares), order, value)
                        repairs.append((key, variable, changed))
        for _, variable, changed in sorted(repairs, key=lambda repair: repair[0]):
            others = [i for i in self._about[variable] if i not in broken and i not in skip]
            yield changed, [i for i in sorted([*broken, *others]) if not _holds(self._equations[i], changed)]

    def _can_become(self, variable: Variable, value: int) -> bool:
        grows_unevenly = isinstance(variable, Space) and value > variable.size and value % variable.size != 0
        return not (grows_unevenly and isinstance(variable, Space) and self._is_copied(variable))

    def _reason(self, index: int) -> str:
        equation = self._equations[index]
        if isinstance(equation.written, int):
            return f"a size is written as {equation.written} at {equation.where}"
        pins = [v.pin_reason for v in self._variables[index] if isinstance(v, Space) and v.pin_reason is not None]
        fixed = f", where an axis cannot change: {pins[0]}" if pins else ""
        return f"{in_words(equation.written)} at {equation.where} would no longer be {in_words(equation.needed)}{fixed}"


def _holds(equation: Equation, values: Mapping[Variable, int]) -> bool:
    written = evaluate(equation.written, values)
    return written is not None and written == evaluate(equation.needed, values)


def _is_free(variable: Variable) -> bool:
    return isinstance(variable, Attribute) or resolve(variable).pin_reason is None


def _before(variable: Variable) -> int:
    return variable.value if isinstance(variable, Attribute) else variable.size


def _preference(equation: Equation, variable: Variable, changed: Values, shares: Sequence[int]) -> tuple[bool, ...]:
    """Attributes first, fair shares, divisions without a remainder, integer factors, axes that nothing reads across.

    The last makes head counts grow before head sizes.
    """
    is_unfair = changed[variable] not in shares
    is_uneven = not (divides_evenly(equation.written, changed) and divides_evenly(equation.needed, changed))
    if isinstance(variable, Attribute):
        return False, is_unfair, is_uneven, False, False
    large, small = max(changed[variable], variable.size), min(changed[variable], variable.size)
    return True, is_unfair, is_uneven, large % small != 0, bool(variable.readers)


def _directions(asked: Values) -> tuple[int, ...]:
    """What follows growth grows, what follows pruning shrinks."""
    grows = any(value > _before(variable) for variable, value in asked.items())
    shrinks = any(value < _before(variable) for variable, value in asked.items())
    return (*([1] if grows else []), *([-1] if shrinks else []))


def _roots(equation: Equation, values: Values, variable: Variable, direction: int) -> list[int]:
    """Returns values of a variable, in one direction from its old one, for which an equation holds.

    Both sides are monotone in it (products, sums, quotients), so that these lie side by side: the smallest and the
    largest of them are found by bisection.
    """
    trial, before = dict(values), _before(variable)

    def error(value: int) -> int:
        trial[variable] = value
        written, needed = evaluate(equation.written, trial), evaluate(equation.needed, trial)
        return 0 if written is None or needed is None else written - needed

    sign = -direction if error(before) > 0 else direction  # sign * error rises with the value
    low, high = (before + 1, before + 1) if direction > 0 else (1, before - 1)
    while direction > 0 and sign * error(high) <= 0 and high < before * _FACTOR:
        high = before + 2 * (high - before)
    first = _first(lambda value: sign * error(value) >= 0, low, high)
    last = _first(lambda value: sign * error(value) > 0, first, high + 1) - 1
    found = []
    for value in (first, last):
        trial[variable] = value
        if low <= value <= high and value not in found and _holds(equation, trial):
            found.append(value)
    return found


def _shares(equation: Equation, values: Values, variable: Variable, direction: int) -> list[int]:
    """Returns the value that grows or shrinks as the whole side must: its share where several change together."""
    written, needed = evaluate(equation.written, values) or 0, evaluate(equation.needed, values) or 0
    large, small = max(written, needed), min(written, needed)
    if small < 1 or large % small:
        return []
    before, factor = _before(variable), large // small
    return [before * factor] if direction > 0 else [before // factor] if before % factor == 0 else []


def _first(is_true: Callable[[int], bool], low: int, high: int) -> int:
    """Returns the smallest value from ``low`` to ``high`` for which a monotone condition is true, else ``high``."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_true(middle) else (middle + 1, high)
    return low
