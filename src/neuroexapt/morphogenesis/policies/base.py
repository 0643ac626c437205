"""The contract of a policy: from candidates and what is known to an order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from neuroexapt.config import MorphogenesisConfig
from neuroexapt.morphogenesis.assay import Assay
from neuroexapt.morphogenesis.experience import Experience
from neuroexapt.morphogenesis.history import History


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a policy may know besides the candidates; it changes none of it but the state of the generator.

    Attributes:
        config: What was asked for.
        history: What happened in this run.
        experience: What edits of each kind have been worth.
        generator: All randomness of the policy.
        num_events: Events ended so far: kept, rolled back, or without a candidate.
    """

    config: MorphogenesisConfig
    history: History
    experience: Experience
    generator: torch.Generator
    num_events: int


Policy = Callable[[Sequence[Assay], Context], list[Assay]]
"""Orders candidates, best first; may leave out whole kinds whose turn it is not, and must not depend on the order in
which it is given them."""


def kind_of(assay: Assay) -> str:
    """Returns the class name of a candidate's mutation."""
    return type(assay.mutation).__name__
