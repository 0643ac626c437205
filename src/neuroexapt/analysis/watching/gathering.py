"""The rows of all processes: the same on each of them, in the order of the samples' numbers."""

from __future__ import annotations

from dataclasses import fields

import torch
import torch.distributed as dist
from torch import Tensor

from neuroexapt.analysis.watching.sample import LayerSample


def num_processes() -> int:
    """Returns how many processes take part."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def everybodys(sample: LayerSample, limit: int) -> LayerSample:
    """Returns the sample of all processes together, the same on each; waits for all of them.

    Args:
        sample: This process's own; every process has as many rows.
        limit: At most so many rows are returned.
    """
    if num_processes() == 1:
        return sample
    held = {f.name: getattr(sample, f.name) for f in fields(sample)}
    for name, tensor in held.items():
        if not isinstance(tensor, Tensor):
            continue
        if name in ("low", "high"):
            dist.all_reduce(tensor, dist.ReduceOp.MIN if name == "low" else dist.ReduceOp.MAX)
        else:
            parts = [torch.empty_like(tensor) for _ in range(num_processes())]
            dist.all_gather(parts, tensor.contiguous())
            held[name] = torch.stack(parts, 1).flatten(0, 1)[:limit]
    return LayerSample(**held)
