"""Reductions and softmax: the result reads across an axis."""

from __future__ import annotations

from neuroexapt.graph.rules.elementwise import elementwise
from neuroexapt.graph.rules.ordering import acted_on, picked
from neuroexapt.graph.rules.registry import Dims, RuleResult, rule
from neuroexapt.graph.space import Space, unify
from neuroexapt.graph.values import Call, fresh_dims


@rule("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax")
def softmax(call: Call) -> Dims:
    """exp(x_i) / sum_j exp(x_j)."""
    dims = call.dims(call["self"])
    if dims:
        call.reads_across([dims[call["dim"]]])
    return dims


@rule(
    "mean", "sum", "amax", "amin", "aminmax", "var", "std", "var_mean", "std_mean", "any", "all", "prod", "norm",
    "linalg_vector_norm", "logsumexp", "count_nonzero", "nansum", "nanmean",
)  # fmt: skip
def reduction(call: Call) -> RuleResult:
    """One number for all indices of the reduced dimensions."""
    tensor = call["self"]
    reduced = acted_on(call, tensor)
    dims = call.dims(tensor)
    call.reads_across([dims[d] for d in reduced])
    kept: list[Space] = [space for d, space in enumerate(dims) if d not in reduced]
    same_rank: list[Space] = [Space(1) if d in reduced else space for d, space in enumerate(dims)]
    return [same_rank if output.dim() == tensor.dim() else kept for output in call.outputs]


@rule("max", "min")
def extreme(call: Call) -> RuleResult:
    """Three operators in one: of two tensors, of everything, or of one dimension together with its index."""
    if call.get("other") is not None:
        return elementwise(call)
    if call.get("dim") is None:
        return reduction(call)
    return picked(call, call["self"], acted_on(call, call["self"]))


@rule(
    "mse_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits",
    "soft_margin_loss",
)  # fmt: skip
def elementwise_loss(call: Call) -> RuleResult:
    """A loss for each element, or the sum or mean of them."""
    tensors = [t for t in call.tensors() if t.dim() > 0]
    if call.out.shape == call["self"].shape:
        return elementwise(call)
    dims = call.broadcast(tensors, call["self"])
    call.reads_across(dims)
    return [fresh_dims(output) for output in call.outputs]


@rule("nll_loss_forward", "nll_loss2d_forward", "nll_loss_nd")
def likelihood_loss(call: Call) -> RuleResult:
    """The entry that the target names, of each sample; [N, C, ...] or [C]."""
    dims, target = call.dims(call["self"]), call.dims(call["target"])
    classes = 1 if len(dims) > 1 else 0
    call.pins([dims[classes], *(call.dims(call["weight"]) if call.get("weight") is not None else ())], "classes")
    kept = [space for d, space in enumerate(dims) if d != classes]
    for space, other in zip(kept, target, strict=False):
        unify(space, other)
    if call.out.dim():
        return [kept, *(fresh_dims(o, "weight of a loss") for o in call.outputs[1:])]
    call.reads_across(kept)
    return [fresh_dims(output) for output in call.outputs]
