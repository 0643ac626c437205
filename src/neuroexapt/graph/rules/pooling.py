"""Pooling and resampling: channels pass through, positions change."""

from __future__ import annotations

from neuroexapt.graph.rules.registry import RuleResult, rule
from neuroexapt.graph.values import Call, fresh


@rule(
    "max_pool1d", "max_pool2d", "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "adaptive_avg_pool1d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool2d",
    "adaptive_max_pool2d", "upsample_nearest1d", "upsample_nearest2d", "upsample_linear1d", "upsample_bilinear2d",
    "upsample_bicubic2d", "reflection_pad2d", "replication_pad2d",
)  # fmt: skip
def pooling(call: Call) -> RuleResult:
    """[N, C, positions...] -> [N, C, new positions...]."""
    tensor = call.get("self", call.get("input"))
    dims = call.dims(tensor)
    call.pins(dims[2:], "spatial extent")
    return [[*dims[:2], *(fresh(int(size), "spatial extent") for size in output.shape[2:])] for output in call.outputs]
