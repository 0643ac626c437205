"""The makers of a tensor: parameters that it is proportional to, found by walking the tape backwards.

Multiplying every maker by a constant multiplies the tensor by that constant (``scaling``); giving every maker zeros at
some units of an axis gives the tensor zeros there (``vanishing``), and where nothing but proportional steps lie
between, multiplying them at some units multiplies the tensor there (``dividing``). With a fused projection only a part
of a parameter makes the tensor; *picks* say which: the queries of ``qkv`` are index 0 of its factor 3.

What cannot be followed has no makers, so that whoever asks must do without.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

from neuroexapt.graph.rules import VIEW_RULES
from neuroexapt.graph.space import Space, leaves, resolve
from neuroexapt.graph.tape import Operation, Tape
from neuroexapt.graph.values import Value

MAX_DEPTH = 300  # operations from a tensor back to its makers; longer ways are given up
MAX_CONE = 400  # tensors looked at to find out whether two factors depend on the same parameter

_PROPORTIONAL = frozenset(
    "neg relu leaky_relu _prelu_kernel abs native_dropout dropout sum mean cumsum flip roll index index_select gather "
    "repeat avg_pool2d _adaptive_avg_pool2d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d triu tril "
    "constant_pad_nd im2col col2im amax amin max min max_pool2d_with_indices".split()  # by positive constants
)
_ZERO_AT_ZERO = _PROPORTIONAL | frozenset(
    "gelu silu tanh hardswish elu celu selu mish sin sqrt square erf sign sgn atan expm1 log1p hardtanh".split()
)
_AFFINE_NORMS = frozenset(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update "
    "_batch_norm_no_update native_layer_norm native_group_norm _fused_rms_norm rms_norm".split()
)
FACTORS = {  # operands of a product of matrices, and what is added to it
    "mm": ("self", "mat2", ""),
    "bmm": ("self", "mat2", ""),
    "mv": ("self", "vec", ""),
    "_grouped_mm": ("self", "mat2", "bias"),
    "addmm": ("mat1", "mat2", "self"),
    "baddbmm": ("batch1", "batch2", "self"),
    "linear": ("input", "weight", "bias"),
    "convolution": ("input", "weight", "bias"),
}


@dataclass(frozen=True, slots=True)
class Pick:
    """The indices ``start`` to ``stop`` of a space."""

    space: Space
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Maker:
    """A parameter, or the part of it whose indices lie in every pick."""

    parameter: str
    picks: frozenset[Pick] = frozenset()


Makers = frozenset[Maker]
NOTHING: Makers = frozenset()


def scaling(tape: Tape, number: int) -> Makers:
    """Returns the parameters that the tensor is proportional to; empty where that is not understood."""
    return _Walk(tape, None).of(number, frozenset(), 0)


def vanishing(tape: Tape, number: int, leaf: Space) -> Makers:
    """Returns the parameters, all holding ``leaf``, whose zeros at units of it make the tensor zero there."""
    found = _Walk(tape, leaf).of(number, frozenset(), 0)
    return _all_holding(tape, found, leaf)


def dividing(tape: Tape, number: int, leaf: Space) -> Makers:
    """Returns the parameters, all holding ``leaf``, that the tensor is proportional to unit by unit."""
    return _all_holding(tape, _Walk(tape, leaf, is_proportional=True).of(number, frozenset(), 0), leaf)


def _all_holding(tape: Tape, found: Makers, leaf: Space) -> Makers:
    held = {value.parameter: value for value in tape.values if value.parameter}
    return found if all(_holds(held[maker.parameter], leaf) for maker in found) else NOTHING


class _Walk:
    """One walk backwards; ``leaf`` is the axis at whose units something is wanted, ``None`` when scaling all of it."""

    def __init__(self, tape: Tape, leaf: Space | None, is_proportional: bool = False) -> None:
        self.tape = tape
        self.leaf = leaf
        self.is_proportional = is_proportional or leaf is None  # else zeros are enough

    def of(self, number: int, picks: frozenset[Pick], depth: int) -> Makers:
        value = self.tape.values[number]
        operation = self.tape.maker.get(number)
        if operation is None:
            return frozenset({Maker(value.parameter, picks)}) if value.parameter else NOTHING
        if depth > MAX_DEPTH:
            return NOTHING
        name = operation.name
        if name in VIEW_RULES:
            source = operation.inputs[0]
            return self.of(source, picks | picked(self.tape, operation, number), depth + 1)
        if name in (_PROPORTIONAL if self.is_proportional else _ZERO_AT_ZERO):
            return self.of(operation.inputs[0], picks, depth + 1)
        handler = _HANDLERS.get(name)
        return handler(self, operation, picks, depth + 1) if handler else NOTHING

    def all_of(self, numbers: Iterable[int | None], picks: frozenset[Pick], depth: int) -> Makers:
        """Every one of these tensors must have makers."""
        result: set[Maker] = set()
        for number in numbers:
            if number is None:
                continue
            found = self.of(number, picks, depth)
            if not found:
                return NOTHING
            result |= found
        return frozenset(result)

    def any_of(self, numbers: Iterable[int | None], picks: frozenset[Pick], depth: int) -> Makers:
        """The first of these factors that has makers; where zeros are wanted it must hold the axis."""
        for number in numbers:
            if number is None or (self.leaf is not None and not _holds(self.tape.values[number], self.leaf)):
                continue
            found = self.of(number, picks, depth)
            if found:
                return found
        return NOTHING

    def is_bare(self, number: int) -> bool:
        """Whether a tensor is made of parameters alone."""
        return bool(self.tape.values[number].derived_from)

    def rank(self, number: int) -> int:
        """Which factor had better be changed: parameters, then activations, then buffers (a mask holds 0 and 1)."""
        return 2 if self.tape.values[number].is_buffer else int(not self.is_bare(number))


def _sum(walk: _Walk, operation: Operation, picks: frozenset[Pick], depth: int) -> Makers:
    numbers = operation.inputs
    return walk.all_of(numbers, picks, depth) if len(numbers) > 1 else NOTHING  # a number added is not proportional


def _joined(walk: _Walk, operation: Operation, picks: frozenset[Pick], depth: int) -> Makers:
    """The operands that lie in every pick along the dimension in which they are joined."""
    dims = walk.tape.values[operation.outputs[0]].dims
    dim = int(operation.arguments.get("dim") or 0) % len(dims)
    found: set[Maker] = set()
    stop = 0
    for number in operation.inputs:
        start, stop = stop, stop + (1 if operation.name == "stack" else walk.tape.values[number].dims[dim].size)
        spans = {pick: span for pick in picks if (span := _span(dims[dim], pick))}
        if start == stop or any(stop <= first or last <= start for first, last in spans.values()):
            continue
        whole = {pick for pick, (first, last) in spans.items() if first <= start and stop <= last}
        made = walk.of(number, picks - whole, depth)
        if not made:
            return NOTHING
        found |= made
    return frozenset(found)


def _span(space: Space, pick: Pick) -> tuple[int, int] | None:
    """Returns the indices of a dimension that a pick of it, or of its major factor, takes."""
    node = resolve(space)
    major = resolve(node.parts[0]) if node.form == "product" else node
    if resolve(pick.space) not in (node, major):
        return None
    block = node.size // resolve(pick.space).size
    return pick.start * block, pick.stop * block


def _product(walk: _Walk, operation: Operation, picks: frozenset[Pick], depth: int) -> Makers:
    factors = operation.inputs if operation.name == "mul" else operation.inputs[:1]
    for number in sorted(factors, key=walk.rank):
        others = [n for n in operation.inputs if n != number]
        found = walk.any_of([number], picks, depth)
        if found and (not walk.is_proportional or not _depends(walk.tape, others, {m.parameter for m in found})):
            return found
    return NOTHING


def _contraction(walk: _Walk, operation: Operation, picks: frozenset[Pick], depth: int) -> Makers:
    first, second, added = FACTORS[operation.name]
    factors = [n for n in (operation.number(first), operation.number(second)) if n is not None]
    bare = [n for n in factors if walk.is_bare(n)]
    made = walk.any_of(bare or factors, picks, depth)
    bias = operation.number(added) if added else None
    if not made or bias is None:
        return made
    shift = walk.of(bias, picks, depth)
    return made | shift if shift else NOTHING


def _norm(walk: _Walk, operation: Operation, picks: frozenset[Pick], depth: int) -> Makers:
    gain, shift = operation.number("weight"), operation.number("bias")
    return walk.all_of([gain, shift], picks, depth) if gain is not None else NOTHING


def _weight_norm(walk: _Walk, operation: Operation, picks: frozenset[Pick], depth: int) -> Makers:
    """w = g v / |v|: proportional to g; zero columns of v stay zero and leave |v| alone (Salimans & Kingma 2016)."""
    direction, size = operation.inputs[:2]
    holds = walk.leaf is None or _holds(walk.tape.values[size], walk.leaf)
    if not holds and walk.is_proportional:
        return NOTHING
    return walk.of(size if holds else direction, picks, depth)


def _attention(walk: _Walk, operation: Operation, picks: frozenset[Pick], depth: int) -> Makers:
    return walk.any_of([operation.number("value")], picks, depth)


def _table(walk: _Walk, operation: Operation, picks: frozenset[Pick], depth: int) -> Makers:
    return walk.any_of([operation.number("weight")], picks, depth)


_Handler = Callable[[_Walk, Operation, frozenset[Pick], int], Makers]
_HANDLERS: dict[str, _Handler] = {
    **dict.fromkeys(("add", "sub", "maximum", "minimum"), _sum),
    **dict.fromkeys(("cat", "stack"), _joined),
    **dict.fromkeys(("mul", "div"), _product),
    **dict.fromkeys(FACTORS, _contraction),
    **dict.fromkeys(_AFFINE_NORMS, _norm),
    "_weight_norm_interface": _weight_norm,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "embedding": _table,
}


def picked(tape: Tape, operation: Operation, number: int) -> frozenset[Pick]:
    """Returns which indices of its input a view took, where it did not take all."""
    name, source = operation.name, operation.inputs[0]
    dims = tape.values[source].dims
    if name not in ("select", "unbind", "slice", "narrow", "split", "split_with_sizes", "chunk", "tensor_split"):
        return frozenset()
    dim = int(operation.arguments.get("dim") or 0) % len(dims)
    if name == "select":
        index = int(operation.arguments["index"]) % dims[dim].size
        return frozenset({Pick(dims[dim], index, index + 1)})
    position = operation.outputs.index(number)
    if name == "unbind":
        return frozenset({Pick(dims[dim], position, position + 1)})
    if name in ("slice", "narrow"):
        return _range(operation, dims[dim], tape.values[number].dims[dim].size)
    sizes = [tape.values[n].dims[dim].size for n in operation.outputs]
    starts = [0, *accumulate(sizes)]
    return frozenset({Pick(dims[dim], starts[position], starts[position + 1])})


def _range(operation: Operation, space: Space, kept: int) -> frozenset[Pick]:
    step = operation.arguments.get("step")
    if kept == space.size or (step is not None and step != 1):
        return frozenset()
    start = int(operation.arguments.get("start") or 0)
    start = max(start + space.size, 0) if start < 0 else min(start, space.size)
    return frozenset({Pick(space, start, start + kept)})


def _holds(value: Value, leaf: Space) -> bool:
    return any(leaf in leaves(space) for space in value.dims)


def _depends(tape: Tape, numbers: list[int], parameters: set[str]) -> bool:
    """Whether one of these parameters is among the nearest ``MAX_CONE`` tensors that these are computed from."""
    seen: set[int] = set()
    waiting = deque(numbers)
    while waiting and len(seen) < MAX_CONE:
        number = waiting.popleft()
        if number in seen:
            continue
        seen.add(number)
        if tape.values[number].parameter in parameters:
            return True
        operation = tape.maker.get(number)
        waiting += operation.inputs if operation else ()
    return False
