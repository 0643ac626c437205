"""Measuring one candidate edit: made, read and taken back, so that nothing of it remains."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from neuroexapt.analysis import Evidence, gradient_evidence
from neuroexapt.errors import InputError, NonFiniteLossError
from neuroexapt.surgery import Mutation, Surgeon

logger = logging.getLogger(__name__)

Batches = Callable[[int], Iterable[tuple[Any, Tensor]]]  # epoch -> batches of (inputs, targets)
LossFunction = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Assay:
    """A candidate with its cost and, where a policy asked for it, its evidence."""

    mutation: Mutation
    description: str
    parameter_delta: int
    flop_delta: int
    evidence: Evidence | None
    order: int = 0  # its place among all candidates of the model

    @property
    def place(self) -> str:
        """``kind@where``, for bans and counts."""
        return f"{type(self.mutation).__name__}@{self.mutation.place}"


def assay(
    surgeon: Surgeon, mutation: Mutation, batches: Iterable[tuple[Any, Tensor]] | None, loss_function: LossFunction
) -> Assay:
    """Applies a mutation, reads the gradient at its new entries if it makes any, and reverts it to the bit.

    Where the gradient cannot be read, because it is too large to hold or not finite, the assay has no evidence and a
    warning says why.

    Raises:
        SurgeryError: The mutation was refused; nothing is changed.
    """
    patch = surgeon.apply(mutation)
    try:
        evidence = None
        entries = patch.new_entries(surgeon.model)
        has_new = any(mask is None or bool(mask.any()) for mask in entries.values())
        if batches is not None and has_new:
            evidence = gradient_evidence(surgeon.model, batches, loss_function, entries)
    except (InputError, NonFiniteLossError) as error:
        logger.warning("%s: not measured: %s", patch.description, error)
    finally:
        surgeon.revert(patch)
    return Assay(mutation, patch.description, patch.parameter_delta, patch.flop_delta, evidence)
