"""Bytes of one training step as they are measured: all allocations that the profiler records, or CUDA's allocator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves


def step(model: nn.Module, inputs: Tensor, optimizer: Optimizer) -> None:
    """One training step with a gradient of ones at the output."""
    optimizer.zero_grad()
    output = model(inputs)
    output.backward(torch.ones_like(output))
    del output
    optimizer.step()


def measured(model: nn.Module, inputs: Tensor, optimizer: Optimizer) -> int:
    """The peak of bytes in a second step."""
    model.train()
    step(model, inputs, optimizer)
    optimizer.zero_grad()
    state = [leaf for leaf in tree_leaves(list(optimizer.state.values())) if isinstance(leaf, Tensor)]
    fixed = sum(t.nbytes for t in [*model.parameters(), *model.buffers(), *state, inputs])
    if inputs.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(model, inputs, optimizer)
        torch.cuda.synchronize()
        return fixed + torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step(model, inputs, optimizer)
    allocations: list[tuple[int, int]] = []

    def collect(nodes: Sequence[Any]) -> None:
        for node in nodes:
            if node.tag.name == "Allocation":
                allocations.append((node.start_time_ns, node.extra_fields.alloc_size))
            collect(node.children)

    collect(record.profiler.kineto_results.experimental_event_tree())
    now = peak = 0
    for _, size in sorted(allocations, key=lambda allocation: allocation[0]):
        now += size
        peak = max(peak, now)
    return fixed + peak
