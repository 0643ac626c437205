"""Table look-ups and tensors made in the forward pass."""

from __future__ import annotations

from neuroexapt.graph.rules.registry import Dims, RuleResult, rule
from neuroexapt.graph.values import Call, Role, fresh_dims


@rule("embedding")
def embedding(call: Call) -> Dims:
    """Rows of a table: the row axis is addressed by the data, the other one is produced."""
    weight = call["weight"]
    call.pins([call.dims(weight)[0]], "rows are addressed by the input")
    call.role(weight, 1, Role.PRODUCE)
    return [*call.dims(call["indices"]), call.dims(weight)[1]]


@rule(
    "arange", "zeros", "ones", "full", "empty", "scalar_tensor", "linspace", "eye", "rand", "randn", "randint",
    "randperm", "new_zeros", "new_ones", "new_empty", "new_full", "empty_strided", "new_empty_strided",
)  # fmt: skip
def creation(call: Call) -> RuleResult:
    """A tensor whose sizes the code states."""
    return [fresh_dims(output, f"size written in the code ({call.operator})") for output in call.outputs]
