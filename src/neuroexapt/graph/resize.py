"""What a resized axis means for shapes and for the integers that torch's own modules keep about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import nn

from neuroexapt.graph.attributes import AttributeEdit
from neuroexapt.graph.expressions import Attribute
from neuroexapt.graph.fakes import canonical_names
from neuroexapt.graph.recorder import ModuleCall
from neuroexapt.graph.sizes import resized
from neuroexapt.graph.space import Space, split_major
from neuroexapt.graph.values import Value


def new_shapes(parameters: Mapping[str, Value], sizes: Mapping[Space, int]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter and buffer whose shape changes."""
    result = {}
    for name, value in parameters.items():
        shape = tuple(resized(space, sizes) for space in value.dims)
        if shape != tuple(space.size for space in value.dims):
            result[name] = shape
    return result


def attribute_edits(
    model: nn.Module,
    parameters: Mapping[str, Value],
    calls: Sequence[ModuleCall],
    sizes: Mapping[Space, int],
    found: Mapping[Attribute, int],
) -> tuple[AttributeEdit, ...]:
    """Returns all attributes that must follow the new sizes.

    Those in ``found`` are read by the forward. To them come the integers that torch's own modules keep about their
    parameters. Norms without parameters of their own are found by the channels of the output that they gave in
    ``calls``.
    """
    edits = [AttributeEdit(a.module, a.name, value, a.keys) for a, value in found.items() if a.value != value]
    followed = {(edit.module, edit.name) for edit in edits}
    names = canonical_names(model)
    outputs = {call.path: call.output for call in calls}
    for path, module in model.named_modules():
        weight = module._parameters.get("weight")
        output = outputs.get(path)
        if isinstance(module, nn.MultiheadAttention):
            kept = _attention_attributes(module, path, parameters, names, sizes, found)
        elif weight is not None and id(weight) in names:
            kept = _shape_attributes(module, parameters[names[id(weight)]], sizes)
        elif isinstance(module, nn.modules.batchnorm._NormBase) and output is not None and len(output.dims) > 1:
            kept = {"num_features": resized(output.dims[1], sizes)}
        elif (computed := outputs.get(f"{path}.parametrizations.weight".removeprefix("."))) is not None:
            kept = _shape_attributes(module, computed, sizes)
        else:
            continue
        edits += [
            AttributeEdit(path, name, value)
            for name, value in kept.items()
            if (path, name) not in followed and getattr(module, name) != value
        ]
    return tuple(edits)


def _attention_attributes(
    module: nn.MultiheadAttention,
    path: str,
    parameters: Mapping[str, Value],
    names: Mapping[int, str],
    sizes: Mapping[Space, int],
    found: Mapping[Attribute, int],
) -> dict[str, int | tuple[int, ...]]:
    weights = [
        module._parameters[name] for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    ]
    widths = [resized(parameters[names[id(w)]].dims[1], sizes) for w in weights if w is not None]
    attended = resized(parameters[names[id(module.out_proj.weight)]].dims[1], sizes)
    heads = found.get(Attribute(path, "num_heads", (), module.num_heads), module.num_heads)
    return {
        "embed_dim": widths[0],
        "head_dim": attended // heads,
        "kdim": widths[len(widths) // 2],
        "vdim": widths[-1],
    }


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
