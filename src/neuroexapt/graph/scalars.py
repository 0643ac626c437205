"""The Python numbers that operators compute with, and how they change with sizes.

A forward may compute numbers from sizes: ``q * d ** -0.5``, ``x.sum(1) / n``, the default scale of attention. At other
sizes they are others, and an edit that preserves the function must know by which factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

_KINDS = ("Tensor", "number", "float", "Optional[number]", "Optional[float]")  # of arguments that numbers go through
_SIZES = ("aten.arange",)  # their numbers are sizes
_ATTENTION = "scaled_dot_product"


@dataclass(frozen=True, slots=True)
class ScaleChange:
    """An operator that multiplies by another number at the new sizes.

    Attributes:
        index: Its position in the eval-mode footprints of the trace.
        ratio: The new factor over the old one.
    """

    index: int
    ratio: float


def scalars(function: torch._ops.OpOverload, arguments: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers among an operator's arguments; attention's default scale is 1 / sqrt(head size)."""
    found = {name: float(arguments[name]) for name in _numeric(function) if type(arguments[name]) in (int, float)}
    if _ATTENTION in function._schema.name and arguments.get("scale") is None:
        found["scale"] = float(arguments["query"].shape[-1]) ** -0.5
    return found


@cache  # as many as there are operators
def _numeric(function: torch._ops.OpOverload) -> tuple[str, ...]:
    """Returns the arguments of an operator that numbers go through."""
    return tuple(argument.name for argument in function._schema.arguments if str(argument.type) in _KINDS)


def scale_ratio(operator: str, before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    """Returns by which factor an operator multiplies more than before; ``None`` where the change is no factor."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if not changed or operator in _SIZES:
        return 1.0
    name = changed[0]
    old, new = before.get(name, 0.0), after.get(name, 0.0)
    if len(changed) > 1 or old == 0.0 or new == 0.0:
        return None
    if (name == "other" and operator == "aten.mul") or (name == "scale" and _ATTENTION in operator):
        return new / old
    return old / new if name == "other" and operator == "aten.div" else None
