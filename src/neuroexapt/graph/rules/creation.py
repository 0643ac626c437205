"""Tensors that the code creates with sizes of its own."""

from __future__ import annotations

from neuroexapt.graph.rules.registry import RuleResult, rule
from neuroexapt.graph.values import Call, fresh_dims


@rule(
    "zeros", "ones", "full", "empty", "scalar_tensor", "new_zeros", "new_ones", "new_full", "new_empty",
    "empty_strided", "new_empty_strided", "empty_permuted",
)  # fmt: skip
def constant(call: Call) -> RuleResult:
    """The same value everywhere, so any order of its indices will do; the rehearsal finds a size that must follow."""
    return [fresh_dims(output) for output in call.outputs]


@rule(
    "arange", "linspace", "logspace", "eye", "rand", "randn", "randint", "randperm", "tril_indices", "triu_indices",
)  # fmt: skip
def numbered(call: Call) -> RuleResult:
    """Every index has a value of its own, which the code states."""
    return [fresh_dims(output, f"size written in the code ({call.operator})") for output in call.outputs]
