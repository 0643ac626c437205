"""The ordered list of mutations that led from the seed model to this one, as JSON: no pickled code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuroexapt.errors import SurgeryError
from neuroexapt.surgery.mutation import Mutation, parse
from neuroexapt.surgery.mutations import MUTATIONS

VERSION = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One applied mutation and the seed of its random entries."""

    mutation: Mutation
    seed: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """All mutations that were applied and not reverted, first to last."""

    steps: tuple[Step, ...] = ()

    def __len__(self) -> int:
        return len(self.steps)

    def then(self, mutation: Mutation, seed: int) -> Lineage:
        """Returns the lineage with one step more."""
        return Lineage((*self.steps, Step(mutation, seed)))

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON-ready dictionary."""
        return {"version": VERSION, "steps": [{"mutation": s.mutation.to_json(), "seed": s.seed} for s in self.steps]}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Lineage:
        """Rebuilds a lineage.

        Raises:
            SurgeryError: The record is of another version or names an unknown mutation.
        """
        if not isinstance(record, Mapping):
            raise SurgeryError(
                f"lineage: found a {type(record).__name__}, needed a dictionary. Take it from `Lineage.to_json`."
            )
        if record.get("version") != VERSION:
            raise SurgeryError(
                f"lineage: found version {record.get('version')!r}, needed {VERSION}. "
                "Read it with the release of neuroexapt that wrote it."
            )
        try:
            steps = tuple(Step(parse(MUTATIONS, item["mutation"]), int(item["seed"])) for item in record["steps"])
        except (KeyError, TypeError, ValueError) as error:
            raise SurgeryError(
                f"lineage: a step is malformed: {error!r}; needed {{'mutation': {{'kind': ...}}, 'seed': int}}. "
                "Take the record from `Lineage.to_json`."
            ) from error
        return Lineage(steps)
