"""Whether the user's code writes into what a module returned: found by running it, by version counters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from neuroexapt.graph import ModelGraph, undisturbed


def is_written_to(graph: ModelGraph, path: str) -> bool:
    """Whether the forward writes into the output of a module in place, as ``relu_`` and ``+=`` do.

    Runs the model once on the example inputs in eval mode and leaves nothing changed.

    Args:
        graph: The model.
        path: Of the module.
    """
    model, seen = graph.model, list[tuple[Tensor, int]]()

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        seen.append((output, _version(output)))

    with (
        undisturbed(model, training=False),
        torch.no_grad(),
        model.get_submodule(path).register_forward_hook(keep),
    ):
        graph.inputs.call(model)
    return any(_version(tensor) != version for tensor, version in seen)


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
