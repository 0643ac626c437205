"""What a resized axis means for shapes and for the integers that torch's own modules keep about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from neuroexapt.graph.fakes import canonical_names
from neuroexapt.graph.recorder import ModuleCall
from neuroexapt.graph.space import Space, resolve, split_major
from neuroexapt.graph.values import Value


@dataclass(frozen=True, slots=True)
class AttributeEdit:
    """An integer (or tuple of integers) that a module keeps about its shape."""

    module: str
    name: str
    value: int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScaleChange:
    """A scalar that the code computes from sizes."""

    index: int
    ratio: float


@dataclass(frozen=True, slots=True)
class Resizing:
    """New sizes of leaves and what follows from them."""

    sizes: Mapping[Space, int]
    attributes: tuple[AttributeEdit, ...]
    refusal: str
    scales: tuple[ScaleChange, ...]


def resized(space: Space, sizes: Mapping[Space, int]) -> int:
    """Returns the size of a space when some leaves have other sizes."""
    node = resolve(space)
    if node in sizes:
        return sizes[node]
    if node.form == "leaf":
        return node.size
    inner = [resized(part, sizes) for part in node.parts]
    return sum(inner) if node.form == "sum" else math.prod(inner)


def new_shapes(parameters: Mapping[str, Value], sizes: Mapping[Space, int]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter and buffer whose shape changes."""
    result = {}
    for name, value in parameters.items():
        shape = tuple(resized(space, sizes) for space in value.dims)
        if shape != tuple(space.size for space in value.dims):
            result[name] = shape
    return result


def new_attributes(
    model: nn.Module, parameters: Mapping[str, Value], calls: Sequence[ModuleCall], sizes: Mapping[Space, int]
) -> tuple[AttributeEdit, ...]:
    """Returns the attributes of torch's own modules that must follow the new sizes.

    Norms without parameters of their own are found by the channels of the output that they gave in ``calls``.
    """
    names = canonical_names(model)
    outputs = {call.path: call.output for call in calls}
    edits = []
    for path, module in model.named_modules():
        weight = module._parameters.get("weight")
        output = outputs.get(path)
        if weight is not None and id(weight) in names:
            found = _shape_attributes(module, parameters[names[id(weight)]], sizes)
        elif isinstance(module, nn.modules.batchnorm._NormBase) and output is not None and len(output.dims) > 1:
            found = {"num_features": resized(output.dims[1], sizes)}
        else:
            continue
        edits += [AttributeEdit(path, name, value) for name, value in found.items() if getattr(module, name) != value]
    return tuple(edits)


def _shape_attributes(module: nn.Module, weight: Value, sizes: Mapping[Space, int]) -> dict[str, int | tuple[int, ...]]:
    shape = [resized(space, sizes) for space in weight.dims]
    if isinstance(module, nn.Linear):
        return {"out_features": shape[0], "in_features": shape[1]}
    if isinstance(module, nn.modules.conv._ConvNd):
        return _convolution_attributes(module, weight, sizes, shape)
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return {"num_features": shape[0]}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": shape[0]}
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return {"normalized_shape": tuple(shape)}
    if isinstance(module, nn.Embedding):
        return {"num_embeddings": shape[0], "embedding_dim": shape[1]}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": shape[0]}
    return {}


def _convolution_attributes(
    module: nn.modules.conv._ConvNd, weight: Value, sizes: Mapping[Space, int], shape: list[int]
) -> dict[str, int | tuple[int, ...]]:
    groups = module.groups
    if groups > 1:
        halves = split_major([weight.dims[0]], groups)
        groups = math.prod(resized(space, sizes) for space in halves[0]) if halves else groups
    if module.transposed:
        return {"in_channels": shape[0], "out_channels": shape[1] * groups, "groups": groups}
    return {"out_channels": shape[0], "in_channels": shape[1] * groups, "groups": groups}
