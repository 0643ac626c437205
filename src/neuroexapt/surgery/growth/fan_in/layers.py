"""Linear layers and convolutions as products of matrices: rows of positions, columns of inputs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ChannelGroup, ModelGraph, Role, division, resolve
from neuroexapt.surgery.checking.measure import Measured
from neuroexapt.surgery.places.neighbours import runs_once

MAX_COLUMNS_BYTES = 64 << 20  # of the unfolded inputs of one layer

Layer = nn.Linear | nn.Conv2d


def layer_at(graph: ModelGraph, path: str) -> Layer:
    """Returns a module that is a plain linear layer or convolution and runs once.

    Raises:
        SurgeryError: It is something else.
    """
    module = graph.model.get_submodule(path)
    is_plain = isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )
    if not is_plain or f"{path}.weight" not in graph.parameters:
        raise SurgeryError(f"{path} is no linear layer or convolution with one group, zero padding and its own weight")
    if sum(other._parameters.get("weight") is module._parameters["weight"] for other in graph.model.modules()) > 1:
        raise SurgeryError(f"{path} shares its weight with another module")
    if not runs_once(graph, path):
        raise SurgeryError(f"{path} runs more than once per forward")
    assert isinstance(module, (nn.Linear, nn.Conv2d))
    return module


def readers_of(graph: ModelGraph, group: ChannelGroup) -> tuple[str, ...]:
    """Returns the layers that read an axis, where nothing else does.

    Raises:
        SurgeryError: Something else reads it.
    """
    found = division(graph.tape, group.leaf)
    if isinstance(found, str):
        raise SurgeryError(found)
    paths = tuple(sorted({path.rpartition(".")[0] for path, _ in found.readers}))
    if found.makers or found.readers != {(f"{path}.weight", 1) for path in paths}:
        raise SurgeryError("something other than the weights of linear layers and convolutions reads the axis")
    for path in paths:
        layer_at(graph, path)
    return paths


def maker_of(graph: ModelGraph, group: ChannelGroup) -> str | None:
    """Returns the one layer whose rows are the units, or ``None`` where that is not so."""
    makers = [m for m in group.members if Role.PRODUCE in m.roles]
    if len(makers) != 1 or makers[0].dim or resolve(graph.parameters[makers[0].path].dims[0]) is not group.leaf:
        return None
    try:
        layer_at(graph, makers[0].module)
    except SurgeryError:
        return None
    return makers[0].module


def check_reached(seen: Measured, paths: Iterable[str]) -> None:
    """Checks that these modules ran and that the objective's gradient came back to what they returned.

    Raises:
        SurgeryError: It did not.
    """
    for path in paths:
        if path not in seen.inputs or path not in seen.output_gradients:
            raise SurgeryError(f"the gradient of the objective does not reach {path}")


def columns(layer: Layer, inputs: Tensor) -> Tensor:
    """Returns what the rows of the layer's weight are multiplied with.

    Args:
        layer: Linear or convolution.
        inputs: ``[N, ..., in_features]`` or ``[N, in_channels, H, W]``.

    Returns:
        ``[N, positions, in_features]`` or ``[N, positions, in_channels * kernel]``.
    """
    if isinstance(layer, nn.Linear):
        return inputs.reshape(len(inputs), -1, inputs.shape[-1])
    height, width = layer.kernel_size
    unfolded = F.unfold(inputs, (height, width), layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    return unfolded.transpose(1, 2)


def positions_of(layer: Layer, outputs: Tensor) -> Tensor:
    """Returns the outputs of a layer, or a gradient with respect to them, as ``[N, positions, out]``."""
    if isinstance(layer, nn.Linear):
        return outputs.reshape(len(outputs), -1, outputs.shape[-1])
    return outputs.flatten(2).transpose(1, 2)


def taps(layer: Layer) -> int:
    """Number of weights with which one input channel enters one output."""
    return 1 if isinstance(layer, nn.Linear) else layer.kernel_size[0] * layer.kernel_size[1]


def num_affordable(layer: Layer, outputs: Tensor) -> int:
    """Returns how many samples can be unfolded within ``MAX_COLUMNS_BYTES``."""
    per_sample = outputs[:1].numel() // max(layer.weight.shape[0], 1) * layer.weight[0].numel()
    return max(1, MAX_COLUMNS_BYTES // max(per_sample * 8, 1))


def placed_in_reader(layer: Layer, gradient: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns for every position of a reader's input the gradients of the outputs that it enters, by tap.

    The gradient at a unit's position is this vector times the unit's outgoing weights, whatever stride, padding and
    dilation are.

    Args:
        layer: A convolution.
        gradient: ``[N, out_channels, H, W]`` with respect to its output.
        size: Height and width of its input.

    Returns:
        ``[N, height * width, out_channels * kernel]``.
    """
    assert isinstance(layer, nn.Conv2d)
    count, (rows, cols) = layer.out_channels, layer.kernel_size
    each = torch.eye(rows * cols, dtype=gradient.dtype, device=gradient.device).view(1, rows * cols, rows, cols)
    dims = range(2)
    padding, stride, dilation = ([int(v) for v in p] for p in (layer.padding, layer.stride, layer.dilation))
    reached = [
        (gradient.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (layer.kernel_size[i] - 1) + 1
        for i in dims
    ]
    placed = F.conv_transpose2d(
        gradient, each.expand(count, -1, -1, -1), None, stride, padding, [0, 0], count, dilation
    )
    placed = F.pad(placed, (0, size[1] - reached[1], 0, size[0] - reached[0]))
    return placed.flatten(2).transpose(1, 2)
