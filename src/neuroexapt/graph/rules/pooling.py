"""Pooling, resampling and padding of positions: batch and channels pass through, positions change."""

from __future__ import annotations

import re

from neuroexapt.graph.rules.registry import Dims, RuleResult, rule
from neuroexapt.graph.space import unify
from neuroexapt.graph.values import Call, fresh

_FAMILIES = (
    "max_pool{}d max_pool{}d_with_indices avg_pool{}d adaptive_avg_pool{}d _adaptive_avg_pool{}d adaptive_max_pool{}d "
    "fractional_max_pool{}d max_unpool{}d mkldnn_max_pool{}d mkldnn_adaptive_avg_pool{}d upsample_nearest{}d "
    "_upsample_nearest_exact{}d upsample_linear{}d upsample_bilinear{}d upsample_bicubic{}d upsample_trilinear{}d "
    "_upsample_bilinear{}d_aa _upsample_bicubic{}d_aa _upsample_lanczos{}d_aa reflection_pad{}d replication_pad{}d"
).split()
_OPERATORS = [family.format(rank) for family in _FAMILIES for rank in (1, 2, 3)]


@rule(*_OPERATORS)
def pooling(call: Call) -> RuleResult:
    """[..., C, positions] -> [..., C, new positions]; the digit in the name says how many dimensions are positions."""
    digit = re.search(r"(\d)d", call.operator)
    rank = int(digit.group(1)) if digit else 2
    dims = call.dims(call.get("self", call.get("input")))
    for other in call.tensors()[1:]:  # where to unpool to, or where to sample
        for space, match in zip(call.dims(other), dims[:-rank], strict=False):
            unify(space, match)
        call.pins(call.dims(other)[len(dims) - rank :], "spatial extent")
    call.pins(dims[-rank:], "spatial extent")
    return [
        [*dims[:-rank], *(fresh(int(size), "spatial extent") for size in output.shape[-rank:])]
        for output in call.outputs
    ]


@rule("grid_sampler_2d", "grid_sampler_3d", "grid_sampler")
def grid_sampler(call: Call) -> Dims:
    """Values at positions that a grid names: x [N, C, positions], grid [N, new positions, coordinates]."""
    dims, grid = call.dims(call["input"]), call.dims(call["grid"])
    unify(dims[0], grid[0])
    call.pins([*dims[2:], *grid[1:]], "spatial extent")
    return [*dims[:2], *(fresh(int(size), "spatial extent") for size in call.out.shape[2:])]


@rule("affine_grid_generator")
def affine_grid(call: Call) -> Dims:
    """A grid for every matrix of a batch."""
    dims = call.dims(call["theta"])
    call.pins(dims[1:], "coordinates")
    return [dims[0], *(fresh(int(size), "spatial extent") for size in call.out.shape[1:])]
