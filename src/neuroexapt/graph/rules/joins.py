"""Concatenation and stacking."""

from __future__ import annotations

from neuroexapt.graph.rules.registry import Dims, rule
from neuroexapt.graph.space import Space, concatenation, unify
from neuroexapt.graph.values import Call, NotUnderstood, fresh


@rule("cat", "concat")
def cat(call: Call) -> Dims:
    """Segments end to end along one dimension; all other dimensions are shared."""
    tensors = [t for t in call["tensors"] if t.numel() > 0]
    if not tensors:
        raise NotUnderstood("nothing to concatenate")
    dim = call.get("dim", 0) % call.out.dim()
    result: list[Space] = []
    for index in range(call.out.dim()):
        spaces = [call.dims(t)[index] for t in tensors]
        if index == dim:
            result.append(concatenation([s if s.size != 1 else Space(1, "a single index") for s in spaces]))
            continue
        for space in spaces[1:]:
            if space.size != 1:
                unify(spaces[0], space)
        result.append(spaces[0])
    return result


@rule("stack")
def stack(call: Call) -> Dims:
    """A new dimension that counts the tensors."""
    tensors = call["tensors"]
    dims = list(call.dims(tensors[0]))
    for tensor in tensors[1:]:
        for space, other in zip(dims, call.dims(tensor), strict=True):
            if space.size != 1:
                unify(space, other)
    dims.insert(call.get("dim", 0) % call.out.dim(), fresh(len(tensors), "number of stacked tensors"))
    return dims
