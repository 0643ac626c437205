"""Matrix products: an axis is summed away, others pass."""

from __future__ import annotations

from torch import Tensor

from neuroexapt.graph.rules.registry import Dims, rule
from neuroexapt.graph.space import Space, unify
from neuroexapt.graph.values import Call, NotUnderstood, Role


@rule("mm", "addmm", "_addmm_activation", "bmm", "baddbmm", "addbmm")
def matrix_product(call: Call) -> Dims:
    """out[..., i, j] = sum_k a[..., i, k] b[..., k, j] (+ bias); ``addbmm`` sums over the batch too."""
    a, b = _operands(call)
    call.contract(a, a.dim() - 1, b, b.dim() - 2)
    call.role(b, b.dim() - 1, Role.PRODUCE)
    call.role(a, a.dim() - 2, Role.PRODUCE)
    dims = [call.dims(a)[-2], call.dims(b)[-1]]
    name = call.operator.removeprefix("aten.")
    if name == "addbmm":
        call.contract(a, 0, b, 0)
    elif a.dim() == 3:
        if a.shape[0] != 1:
            unify(call.dims(a)[0], call.dims(b)[0])
        dims.insert(0, call.dims(a)[0])
    if name not in ("mm", "bmm"):
        _add_bias(call, call["self"], dims)
    return dims


def _operands(call: Call) -> tuple[Tensor, Tensor]:
    if "batch1" in call.arguments:
        return call["batch1"], call["batch2"]
    if "mat1" in call.arguments:
        return call["mat1"], call["mat2"]
    return call["self"], call["mat2"]


@rule("linear")
def linear(call: Call) -> Dims:
    """y = x W^T + b."""
    x, weight = call["input"], call["weight"]
    call.contract(x, x.dim() - 1, weight, 1)
    call.role(weight, 0, Role.PRODUCE)
    dims = [*call.dims(x)[:-1], call.dims(weight)[0]]
    if call.get("bias") is not None:
        _add_bias(call, call["bias"], dims)
    return dims


@rule("mv", "addmv")
def matrix_vector_product(call: Call) -> Dims:
    """out[i] = sum_k a[i, k] v[k] (+ bias)."""
    matrix = call["mat"] if "mat" in call.arguments else call["self"]
    call.contract(matrix, 1, call["vec"], 0)
    call.role(matrix, 0, Role.PRODUCE)
    dims = [call.dims(matrix)[0]]
    if "mat" in call.arguments:
        _add_bias(call, call["self"], dims)
    return dims


@rule("dot", "vdot")
def dot_product(call: Call) -> Dims:
    """sum_k a[k] b[k]."""
    a, b = call.tensors()
    call.contract(a, 0, b, 0)
    return []


@rule("addr")
def outer_product(call: Call) -> Dims:
    """out[i, j] = a[i] b[j] + bias."""
    dims = [call.dims(call["vec1"])[0], call.dims(call["vec2"])[0]]
    _add_bias(call, call["self"], dims)
    return dims


def _add_bias(call: Call, bias: Tensor, dims: list[Space]) -> None:
    shift = len(dims) - bias.dim()
    for index, space in enumerate(call.dims(bias)):
        if bias.shape[index] != 1:
            unify(dims[index + shift], space)
            call.role(bias, index, Role.SHIFT)


@rule("_trilinear")
def trilinear(call: Call) -> Dims:
    """Three tensors, given dimensions of size 1 where they lack them, are multiplied and summed (``nn.Bilinear``)."""
    aligned = []
    for name, gaps in (("i1", "expand1"), ("i2", "expand2"), ("i3", "expand3")):
        places: list[int | None] = list(range(call[name].dim()))
        for gap in sorted(call[gaps]):
            places.insert(gap, None)
        aligned.append((call[name], places))
    result: list[Space] = [Space(1) for _ in aligned[0][1]]
    for tensor, places in aligned:
        for at, place in enumerate(places):
            if place is None or tensor.shape[place] == 1:
                continue
            if result[at].size == 1:
                result[at] = call.dims(tensor)[place]
            unify(result[at], call.dims(tensor)[place])
            if at in call["sumdim"]:
                _consume_if_parameter(call, tensor, place)
            else:
                call.role(tensor, place, Role.PRODUCE)
    for at in call["sumdim"]:
        if not any(places[at] is not None and call.value(t).parameter is not None for t, places in aligned):
            call.reads_across([result[at]], " of activations")
    return [space for at, space in enumerate(result) if at not in call["sumdim"]]


def _consume_if_parameter(call: Call, tensor: Tensor, dim: int) -> None:
    if call.value(tensor).parameter is not None:
        call.role(tensor, dim, Role.CONSUME)


@rule("_grouped_mm")
def grouped_product(call: Call) -> Dims:
    """Rows of a, sorted by expert, times that expert's matrix: [tokens, in], [experts, in, out] -> [tokens, out]."""
    a, b = call["self"], call["mat2"]
    if (a.dim(), b.dim()) != (2, 3):
        raise NotUnderstood("a grouped product of this form has no rule")
    call.contract(a, 1, b, 1)
    call.role(b, 2, Role.PRODUCE)
    call.pins([call.dims(b)[0], call.dims(a)[0]], "experts are addressed by number")
    if call.get("offs") is not None:
        call.pins(call.dims(call["offs"]), "experts are addressed by number")
    if call.get("bias") is not None:
        raise NotUnderstood("a grouped product with a bias has no rule")
    return [call.dims(a)[0], call.dims(b)[2]]
