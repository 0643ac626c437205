"""Reductions and softmax: the result reads across an axis."""

from __future__ import annotations

from neuroexapt.graph.rules.registry import Dims, RuleResult, rule
from neuroexapt.graph.space import Space
from neuroexapt.graph.values import Call


@rule("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax")
def softmax(call: Call) -> Dims:
    """exp(x_i) / sum_j exp(x_j)."""
    dims = call.dims(call["self"])
    call.reads_across([dims[call["dim"]]])
    return dims


@rule(
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "any", "all", "prod", "norm",
    "linalg_vector_norm", "logsumexp", "argmax", "argmin", "count_nonzero", "nansum",
)  # fmt: skip
def reduction(call: Call) -> RuleResult:
    """One number for all indices of the reduced dimensions."""
    tensor = call["self"]
    other = call.get("other")
    if other is not None:  # the binary form of max and min
        return call.broadcast([tensor, other], call.out)
    reduced = _reduced_dims(call)
    dims = call.dims(tensor)
    call.reads_across([dims[d] for d in reduced])
    kept: list[Space] = [space for d, space in enumerate(dims) if d not in reduced]
    same_rank: list[Space] = [Space(1) if d in reduced else space for d, space in enumerate(dims)]
    return [same_rank if output.dim() == tensor.dim() else kept for output in call.outputs]


def _reduced_dims(call: Call) -> set[int]:
    rank = call["self"].dim()
    wanted = call.get("dim")
    if wanted is None or wanted == []:
        return set(range(rank))
    return {d % rank for d in ([wanted] if isinstance(wanted, int) else wanted)}
