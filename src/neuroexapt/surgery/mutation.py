"""The contract of a mutation: a frozen value that says what to do, where it can be done, and what would change."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import torch

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph
from neuroexapt.surgery.plan import Plan

MAX_SEED = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutation(ABC):
    """An intended change of architecture. Fields are JSON values; equality is equality of fields.

    A mutation is the whole decision: whatever was measured to make it (which units matter least, which axis is
    narrowest) is in its fields, so that replaying it needs no data.
    """

    @classmethod
    @abstractmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """Yields every such mutation that the model admits, in the order of the model.

        Args:
            graph: The model.
            growth: New size over old size, for kinds that have a size (at least one unit is added).
        """

    @abstractmethod
    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Says what would change. Pure: touches neither the model nor any global generator.

        Raises:
            SurgeryError: It cannot be done; the message says why and what to do.
        """

    @abstractmethod
    def describe(self, graph: ModelGraph) -> str:
        """Says in a few words what it does to this model, before it is done."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it acts: the name of a channel group or the path of a module."""

    def to_json(self) -> dict[str, Any]:
        """Returns the mutation as a JSON-ready dictionary with its kind."""
        return {"kind": type(self).__name__, **asdict(self)}


def draw_seed(generator: torch.Generator) -> int:
    """Draws a seed for one tensor from the plan's generator."""
    return int(torch.randint(MAX_SEED, (1,), generator=generator))


def checked(mutation: object) -> Mutation:
    """Returns what it was given if that is a mutation.

    Raises:
        SurgeryError: It is something else.
    """
    if isinstance(mutation, Mutation):
        return mutation
    found = f"the class {mutation.__name__}" if isinstance(mutation, type) else f"a {type(mutation).__name__}"
    raise SurgeryError(
        f"mutation: found {found}, needed a mutation such as Widen(axis='conv1', to=64). One at a time; "
        "`Surgeon.candidates` makes them, and `Lineage.from_json` reads them."
    )


def parse(kinds: Mapping[str, type[Mutation]], record: Mapping[str, Any]) -> Mutation:
    """Rebuilds a mutation from its JSON form.

    Raises:
        SurgeryError: The kind is unknown or a field is missing, unknown or of the wrong type.
    """
    if not isinstance(record, Mapping):
        raise SurgeryError(f"mutation: found {record!r}, needed a dictionary with its kind, as `to_json` makes it.")
    arguments = dict(record)
    kind = arguments.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise SurgeryError(f"mutation: unknown kind {kind!r}; known are {', '.join(kinds)}.")
    known = {f.name for f in fields(kinds[kind])}
    if unknown := set(arguments) - known:
        raise SurgeryError(f"mutation {kind}: unknown fields {sorted(unknown)}; known are {sorted(known)}.")
    try:
        return kinds[kind](**arguments)
    except (TypeError, ValueError) as error:
        raise SurgeryError(f"mutation {kind}: {error}") from error
