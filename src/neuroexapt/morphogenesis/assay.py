"""What one candidate edit would cost: planned and counted on fake tensors, so that nothing is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from neuroexapt.analysis import Evidence
from neuroexapt.surgery import Mutation, Plan, Surgeon

Batches = Callable[[int], Iterable[tuple[Any, Tensor]]]  # epoch -> batches of (inputs, targets)
LossFunction = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Assay:
    """A candidate with its cost and, where it has a growth score, its evidence."""

    mutation: Mutation
    description: str
    parameter_delta: int
    flop_delta: int  # forward FLOPs per sample
    evidence: Evidence | None
    order: int = 0  # its place among all candidates of the model
    plan: Plan = field(default=Plan(), repr=False, compare=False)

    @property
    def place(self) -> str:
        """``kind@where``, for bans and counts."""
        return f"{type(self.mutation).__name__}@{self.mutation.place}"


def assay(surgeon: Surgeon, mutation: Mutation) -> Assay:
    """Plans a mutation and counts what the model would cost with it; changes nothing.

    Raises:
        BudgetError: It would cost more than the surgeon's budget admits.
        SurgeryError: It cannot be done.
    """
    graph = surgeon.graph
    description, plan = mutation.describe(graph), surgeon.plan(mutation)
    size = surgeon.budget.batch_size if surgeon.budget is not None else None
    prospect = surgeon.prospect(plan, size)
    if surgeon.budget is not None:
        surgeon.budget.check(partial(surgeon.prospect, Plan(), size), prospect, description)
    return Assay(
        mutation,
        description,
        prospect.num_parameters - graph.cost.num_parameters,
        prospect.flops_per_sample - graph.cost.flops_per_sample,
        None,
        plan=plan,
    )
