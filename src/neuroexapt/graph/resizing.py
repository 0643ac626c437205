"""Resizing axes together with everything that the user's code ties to them.

Provenance proposes and the rehearsal decides: the equations of the code say which attributes and which other axes
follow, and a run on fakes at these sizes says whether the model still does the same thing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from neuroexapt.graph.attributes import AttributeEdit
from neuroexapt.graph.equations import Equation
from neuroexapt.graph.expressions import Variable
from neuroexapt.graph.rehearsal import Rehearsal
from neuroexapt.graph.scalars import ScaleChange
from neuroexapt.graph.space import Space
from neuroexapt.graph.ties import Closure, Ties


@dataclass(frozen=True, slots=True)
class Resizing:
    """Other sizes for some axes, with all that they entail.

    Attributes:
        sizes: New sizes of the asked leaves and of every leaf that the user's code ties to them.
        attributes: Module attributes that must follow.
        refusal: Why the forward does not run, or does something else, at these sizes; ``""`` when it is possible.
        scales: Operators that multiply by another number at these sizes.
    """

    sizes: Mapping[Space, int]
    attributes: tuple[AttributeEdit, ...]
    refusal: str
    scales: tuple[ScaleChange, ...]


@dataclass(frozen=True, slots=True)
class Resizability:
    """Which leaves can be larger.

    Attributes:
        refused: Why a leaf cannot, for those that cannot.
        followers: For the others the leaves that the code ties to them, themselves included.
    """

    refused: Mapping[Space, str]
    followers: Mapping[Space, tuple[Space, ...]]


_NEAR = 16  # sizes that are tried before a multiple is taken
_Asked = tuple[Space, Closure]  # a leaf that shall grow, and what that entails


class Resizer:
    """Answers what resizing entails, for one traced model."""

    def __init__(self, rehearsal: Rehearsal, equations: Sequence[Equation], is_copied: Callable[[Space], bool]) -> None:
        """Takes a traced model, its equations, and whether a leaf can only grow by an integer factor."""
        self._rehearsal = rehearsal
        self._equations = equations
        self._is_copied = is_copied

    def at(self, sizes: Mapping[Space, int]) -> Resizing:
        """Resizes leaves and what is tied to them, on fakes."""
        return self._rehearsed(self._ties.closure(sizes))

    def size_from(self, leaf: Space, wanted: int) -> int:
        """Returns the first size from ``wanted`` on that fits, else the next multiple of the leaf's size."""
        factor = math.ceil(wanted / leaf.size)
        near = range(wanted, wanted + _NEAR) if not self._is_copied(leaf) else ()
        sizes = [*near, *(leaf.size * k for k in range(factor, factor + _NEAR))]
        return next((size for size in sizes if not self._ties.closure({leaf: size}).is_hopeless), factor * leaf.size)

    def shrunk(self, leaf: Space, wanted: int) -> dict[Space, int]:
        """Returns the sizes of a leaf and of all that follows it, at the first size that fits.

        Tried from ``wanted`` downwards, then upwards; empty where there is none. Nothing is run.
        """
        below = range(wanted, max(wanted - _NEAR, 0), -1)
        for size in [*below, *range(wanted + 1, leaf.size)]:
            closure = self._ties.closure({leaf: size})
            if not closure.is_hopeless:
                return closure.sizes
        return {}

    def resizability(self, leaves: Sequence[Space]) -> Resizability:
        """Finds the leaves that can be larger: more by an odd prime, else twice as many.

        An axis that follows another one counts with it. Leaves that do not concern each other are tried in one run,
        each with a prime of its own so that ties that the equations do not know (equal, a multiple, a sum) show.
        """
        refused: dict[Space, str] = {}
        resizable: set[Space] = set()
        followers: dict[Space, tuple[Space, ...]] = {}
        primes = [leaf.size + prime for leaf, prime in zip(leaves, _odd_primes(len(leaves)), strict=True)]
        for sizes in (primes, [2 * leaf.size for leaf in leaves]):
            asked = []
            for leaf, size in zip(leaves, sizes, strict=True):
                if leaf in resizable or (self._is_copied(leaf) and size % leaf.size):
                    continue
                closure = self._ties.closure({leaf: size})
                if closure.is_hopeless:
                    refused.setdefault(leaf, closure.broken)
                else:
                    followers[leaf] = tuple(closure.sizes)
                    asked.append((leaf, closure))
            asked.sort(key=lambda pair: len(pair[1].values))
            while asked:
                batch, together = self._batch(asked)
                passed = self._search(batch, together, refused)
                resizable.update(leaf for leaf, _ in asked if leaf in passed)
                asked = [pair for pair in asked if pair not in batch and pair[0] not in resizable]
        return Resizability({leaf: why for leaf, why in refused.items() if leaf not in resizable}, followers)

    @cached_property
    def _ties(self) -> Ties:
        return Ties(self._equations, self._is_copied)

    def _rehearsed(self, closure: Closure) -> Resizing:
        if closure.is_hopeless:
            return Resizing(closure.sizes, (), closure.broken, ())
        outcome = self._rehearsal.at(closure.sizes, closure.attributes)
        refusal = (closure.broken or outcome.refusal) if outcome.refusal else ""
        return Resizing(closure.sizes, outcome.attributes, refusal, outcome.scales)

    def _batch(self, asked: Sequence[_Asked]) -> tuple[list[_Asked], Closure]:
        """Takes the first question and all that can be answered in the same run."""
        batch, together = [asked[0]], asked[0][1]
        wanted = {asked[0][0]: asked[0][1].sizes[asked[0][0]]}
        for leaf, closure in asked[1:]:
            if leaf in together.sizes or together.broken:
                continue
            both = {**wanted, leaf: closure.sizes[leaf]}
            joined = _joined([together, closure])
            if joined is None or not self._ties.hold(joined.values):
                joined = self._ties.closure(both)
            if not joined.broken:
                batch.append((leaf, closure))
                together, wanted = joined, both
        return batch, together

    def _search(self, batch: Sequence[_Asked], together: Closure, refused: dict[Space, str]) -> set[Space]:
        """Returns every leaf that grew in a run that passed; notes in ``refused`` why the others did not."""
        refusal = together.broken if together.is_hopeless else self._rehearsed(together).refusal
        if not refusal:
            return set(together.sizes)
        if len(batch) == 1:
            refused.setdefault(batch[0][0], refusal)
            return set()
        passed = set()
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            sizes = {leaf: closure.sizes[leaf] for leaf, closure in half}
            passed |= self._search(half, half[0][1] if len(half) == 1 else self._ties.closure(sizes), refused)
        return passed


def _joined(closures: Sequence[Closure]) -> Closure | None:
    """All changes together; ``None`` where they contradict each other."""
    if len(closures) == 1:
        return closures[0]
    values: dict[Variable, int] = {}
    for closure in closures:
        if closure.broken or any(values.get(key, value) != value for key, value in closure.values.items()):
            return None
        values.update(closure.values)
    return Closure(values)


def _odd_primes(count: int) -> list[int]:
    primes: list[int] = []
    candidate = 3
    while len(primes) < count:
        if all(candidate % prime for prime in primes if prime * prime <= candidate):
            primes.append(candidate)
        candidate += 2
    return primes
