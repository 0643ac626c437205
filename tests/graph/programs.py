"""Small computations as modules, and what the graph says of their parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuroexapt.graph import ChannelGroup, ModelGraph, distrusted_groups, permutation_error, trace
from neuroexapt.graph.space import Space, leaves, resolve


class Program(nn.Module):
    """Parameters ``p0, p1, ...`` of the given shapes and a function of the input and them."""

    def __init__(self, function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        for index, shape in enumerate(shapes):
            self.register_parameter(f"p{index}", nn.Parameter(torch.randn(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self._parameters.values())


def read(function: Callable[..., Tensor], *shapes: tuple[int, ...], x: tuple[int, ...] = (2, 3, 8, 8)) -> ModelGraph:
    return trace(Program(function, *shapes).double(), torch.randn(x).double())


def spaces(graph: ModelGraph, name: str, dim: int) -> list[Space]:
    return [resolve(leaf) for leaf in leaves(graph.parameters[name].dims[dim])]


def holding(graph: ModelGraph, name: str, dim: int, index: int = 0) -> ChannelGroup:
    return next(g for g in graph.groups if g.leaf is spaces(graph, name, dim)[index])


def law(graph: ModelGraph) -> int:
    """Asserts that permuting everything free leaves the output as it is; returns how many groups are free."""
    free = [group for group in graph.groups if not group.pin_reason]
    error = permutation_error(graph, torch.Generator().manual_seed(1), free)
    assert error <= 1e-10, distrusted_groups(graph, torch.Generator(), 1e-10)
    return len(free)
