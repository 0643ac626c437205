"""Reshapes: row-major indices are regrouped."""

from __future__ import annotations

from collections.abc import Sequence

from neuroexapt.graph.rules.registry import DimensionMap, view_rule
from neuroexapt.graph.space import Space, factors, product, split_major
from neuroexapt.graph.values import Call, NotUnderstood, fresh


@view_rule("view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy", "flatten", "unflatten", "view_copy")
def view(call: Call) -> DimensionMap:
    """Factors are split and merged, and refined where a boundary falls inside one.

    Where old and new boundaries interleave, the factors between the nearest boundaries that both have are pinned.
    """
    tensor, shape = call["self"], [int(size) for size in call.out.shape]
    if tensor.numel() != call.out.numel():
        raise NotUnderstood("a view as another type")
    rest, dims = list(call.dims(tensor)), list[Space]()
    while len(dims) < len(shape):
        halves = split_major(rest, shape[len(dims)])
        if halves is not None:
            dims.append(product(halves[0]))
            rest = halves[1]
            continue
        count, run, rest = _interleaved(rest, shape[len(dims) :])
        why = f"view of {tuple(tensor.shape)} as {tuple(shape)} cuts across an axis"
        call.pins(run, why)
        dims += [fresh(size, why) for size in shape[len(dims) : len(dims) + count]]
    return DimensionMap(tuple(dims), tuple(_overlaps(list(tensor.shape), shape)))


def _interleaved(spaces: Sequence[Space], sizes: Sequence[int]) -> tuple[int, list[Space], list[Space]]:
    """Finds the next common boundary: how many sizes and which factors lie before it, and the factors behind it."""
    rest, run = factors(spaces), list[Space]()
    old, new, count = 1, sizes[0], 1
    while old != new:
        if old < new:
            run.append(rest.pop(0))
            before, old = old, old * run[-1].size
            if old > new and new % before == 0 and old % new == 0:
                halves = split_major(run[-1:], new // before)
                if halves is not None:
                    return count, [*run[:-1], *halves[0]], [*halves[1], *rest]
        else:
            new *= sizes[count]
            count += 1
    return count, run, rest


def _overlaps(old: list[int], new: list[int]) -> list[frozenset[int]]:
    """For each new dimension the old ones that share its range of row-major strides."""
    spans, stride = [], 1
    for size in reversed(old):
        spans.append((stride, stride * size))
        stride *= size
    spans.reverse()
    result, stride = [], 1
    for size in reversed(new):
        low, high = stride, stride * size
        result.append(frozenset(i for i, (a, b) in enumerate(spans) if a < high and low < b and b > a and high > low))
        stride = high
    return result[::-1]
