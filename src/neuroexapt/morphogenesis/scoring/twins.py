"""Joint twins: copies of the model on which many candidate edits are made at once, to look at all in one pass.

Contributions that begin at exactly zero disturb neither the function nor each other. So edits that touch different
tensors share a copy; neighbouring axes, which touch one weight along different dimensions, go to different copies, and
so do longer axes and new pieces, whose sizes were planned without each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neuroexapt.graph import ModelGraph
from neuroexapt.surgery import Plan
from neuroexapt.surgery.pieces import PositionAttention

FACTOR, ATTENTION_FACTOR = 3, 4  # of a forward, for it and the way back; fused attention goes through 2.5 times
MAX_ADDED = 2.0  # FLOPs that one twin adds, over those of the model; bounds its activations too


@dataclass(frozen=True, slots=True)
class Twin:
    """What is made on one copy.

    Attributes:
        members: Which of the plans.
        plan: Of all of them together.
        flops: Forward FLOPs of one sample.
    """

    members: tuple[int, ...]
    plan: Plan
    flops: int


def packed(plans: Sequence[Plan], added_flops: Sequence[int], flops: int) -> tuple[Twin, ...]:
    """Packs plans greedily into as few twins as it finds.

    Args:
        plans: Of one stage, made from one graph; all silent.
        added_flops: Forward FLOPs of one sample that each adds.
        flops: Of the model.
    """
    boxes: list[list[int]] = []
    for index, plan in enumerate(plans):
        for box in boxes:
            is_light = sum(added_flops[i] for i in (*box, index)) <= MAX_ADDED * flops
            if is_light and all(_get_along(plans[other], plan) for other in box):
                box.append(index)
                break
        else:
            boxes.append([index])
    return tuple(
        Twin(tuple(box), joined([plans[i] for i in box]), flops + sum(added_flops[i] for i in box)) for box in boxes
    )


def there_and_back(graph: ModelGraph, twin: Twin) -> int:
    """Returns the most FLOPs that one sample's forward and backward to the junctions takes; no weight gets a gradient.

    Going back through a product of an activation and a weight takes as much as going there, through one of two
    activations twice as much.
    """
    has_attention = any("scaled_dot_product" in operation.operator for operation in graph.tape)
    has_attention |= any(graft.piece == PositionAttention.__name__ for graft in twin.plan.grafts)
    return twin.flops * (ATTENTION_FACTOR if has_attention else FACTOR)


def joined(plans: Sequence[Plan]) -> Plan:
    """Returns one plan that does what all do."""
    return Plan(
        tensors=tuple(edit for plan in plans for edit in plan.tensors),
        attributes=tuple(edit for plan in plans for edit in plan.attributes),
        freed=tuple(path for plan in plans for path in plan.freed),
        grafts=tuple(graft for plan in plans for graft in plan.grafts),
    )


def _get_along(one: Plan, other: Plan) -> bool:
    if bool(one.grafts) != bool(other.grafts):
        return False
    return not _touched(one) & _touched(other)


def _touched(plan: Plan) -> set[str]:
    modules = {edit.path.rpartition(".")[0] for edit in plan.tensors}
    return modules | {*plan.freed} | {f"{edit.module}:{edit.name}" for edit in plan.attributes}
