"""Which layer folds into which neighbour, and the plan that does it; the maths is in ``folding``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from neuroexapt.graph import NEW, AttributeEdit, ModelGraph
from neuroexapt.surgery.places.neighbours import (
    drops_out_between,
    layer_after,
    layer_before,
    own_tensor,
    runs_as_in_torch,
)
from neuroexapt.surgery.plan import EXACT, IN_TRAIN, Contents, Fill, ParameterEdit, Plan, SlotEdit, TensorEdit
from neuroexapt.surgery.replacement.folding import matrix_before, matrix_behind, scale_and_shift, scaled_outputs
from neuroexapt.surgery.replacement.taps import Convolution, is_pointwise, padding_of
from neuroexapt.surgery.writing.graft import Grafted

Layer = nn.Linear | Convolution
_LAYERS = (nn.Linear, Convolution)
_BatchNorm = nn.modules.batchnorm._BatchNorm


class NotFoldable(Exception):
    """A layer does not fold into a neighbour, for the reason in the message."""


@dataclass(frozen=True, slots=True)
class Fold:
    """A layer that folds into another.

    Attributes:
        into: Path of the layer that stays.
        plan: What changes.
    """

    into: str
    plan: Plan


def fold(graph: ModelGraph, path: str) -> Fold:
    """Returns how a layer folds into the one before it, or else into the one behind it.

    Raises:
        NotFoldable: It does not; the message says why.
    """
    module = graph.model.get_submodule(path)
    if isinstance(module, Grafted):
        raise NotFoldable("pieces hang on it; remove them first")
    if isinstance(module, (_BatchNorm, *_LAYERS)) and not _is_known(module):
        raise NotFoldable(
            f"the {type(module).__name__} has a forward or hooks of its own, so what it does is not known"
        )
    if isinstance(module, _BatchNorm):
        return _norm(graph, path, module)
    if not isinstance(module, _LAYERS) or not _is_plain(graph, path):
        raise NotFoldable("needed a batch norm, a linear layer or a convolution with weights of its own")
    if not _is_matrix(module):
        raise NotFoldable("needed a linear layer or a 1x1 convolution without stride, padding and groups")
    before, after = layer_before(graph, path), layer_after(graph, path)
    if _takes(graph, before, module):
        return _behind(graph, path, module, before)
    if _takes(graph, after, module):
        return _in_front(graph, path, module, after)
    raise NotFoldable("no linear layer or dense convolution hands to it, or takes from it, alone")


def _norm(graph: ModelGraph, path: str, norm: _BatchNorm) -> Fold:
    first = layer_before(graph, path)
    layer = graph.model.get_submodule(first) if first else None
    if norm.running_mean is None or norm.running_var is None:
        raise NotFoldable("it keeps no running statistics, so it is no fixed map in eval mode")
    if not isinstance(layer, _LAYERS) or not _is_plain(graph, first):
        raise NotFoldable("no linear layer or convolution with weights of its own hands its output to it alone")
    rank = 2 if isinstance(layer, nn.Linear) else len(layer.kernel_size) + 2
    if any(len(call.shape) != rank for call in graph.calls if call.path == path):
        raise NotFoldable("it normalises another dimension than the layer before makes")
    groups, transposed = (1, False) if isinstance(layer, nn.Linear) else (layer.groups, layer.transposed)
    eps, weight, bias = norm.eps, f"{first}.weight", f"{first}.bias"
    is_affine, has_bias = norm.weight is not None, layer.bias is not None

    def affine(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        gain, shift = (tensors[f"{path}.weight"], tensors[f"{path}.bias"]) if is_affine else (None, None)
        return scale_and_shift(tensors[f"{path}.running_mean"], tensors[f"{path}.running_var"], gain, shift, eps)

    def new_weight(tensors: Mapping[str, Tensor]) -> Tensor:
        return scaled_outputs(tensors[weight], affine(tensors)[0], groups, transposed)

    def new_bias(tensors: Mapping[str, Tensor]) -> Tensor:
        scale, shift = affine(tensors)
        return shift + tensors[bias] * scale if has_bias else shift

    edit = TensorEdit(weight, (None,) * layer.weight.dim(), Fill("zeros"), rewrite=new_weight)
    plan = _with_bias(Plan(tensors=(edit,), slots=(SlotEdit(path),), changes=IN_TRAIN), layer, first, None, new_bias)
    return Fold(first, plan)


def _behind(graph: ModelGraph, path: str, matrix: Layer, first: str) -> Fold:
    """The matrix is multiplied into the layer before it, whose rows become the matrix's."""
    layer: Layer = graph.model.get_submodule(first)  # type: ignore[assignment]
    rows = matrix.weight.shape[0]
    names = [f"{first}.weight", f"{first}.bias", f"{path}.weight", f"{path}.bias"]
    has_bias, has_own = layer.bias is not None, matrix.bias is not None

    def new_weight(tensors: Mapping[str, Tensor]) -> Tensor:
        return matrix_behind(tensors[names[0]], tensors[names[2]])

    def new_bias(tensors: Mapping[str, Tensor]) -> Tensor:
        through = tensors[names[2]].flatten(1) @ tensors[names[1]] if has_bias else 0
        return through + tensors[names[3]] if has_own else torch.as_tensor(through)

    fresh = torch.full((rows,), NEW)
    edit = TensorEdit(names[0], (fresh, *(None,) * (layer.weight.dim() - 1)), Fill("zeros"), rewrite=new_weight)
    size = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
    changes = IN_TRAIN if drops_out_between(graph, first, path) else EXACT
    plan = Plan(
        tensors=(edit,), attributes=(AttributeEdit(first, size, rows),), slots=(SlotEdit(path),), changes=changes
    )
    if not has_bias and not has_own:
        return Fold(first, plan)
    return Fold(first, _with_bias(plan, layer, first, fresh, new_bias))


def _in_front(graph: ModelGraph, path: str, matrix: Layer, second: str) -> Fold:
    """The matrix is multiplied into the layer behind it, whose columns become the matrix's."""
    layer: Layer = graph.model.get_submodule(second)  # type: ignore[assignment]
    names = [f"{second}.weight", f"{second}.bias", f"{path}.weight", f"{path}.bias"]
    has_bias, has_own = layer.bias is not None, matrix.bias is not None
    if has_own and isinstance(layer, Convolution) and any(padding_of(layer)) and layer.padding_mode == "zeros":
        raise NotFoldable("its bias does not reach the zeros that the convolution behind it pads with")

    def new_weight(tensors: Mapping[str, Tensor]) -> Tensor:
        return matrix_before(tensors[names[0]], tensors[names[2]])

    def new_bias(tensors: Mapping[str, Tensor]) -> Tensor:
        through = tensors[names[0]].flatten(2).sum(-1) if tensors[names[0]].dim() > 2 else tensors[names[0]]
        added = through @ tensors[names[3]]
        return added + tensors[names[1]] if has_bias else added

    columns = matrix.weight.shape[1]
    maps = (None, torch.full((columns,), NEW), *(None,) * (layer.weight.dim() - 2))
    edit = TensorEdit(names[0], maps, Fill("zeros"), rewrite=new_weight)
    size = "in_features" if isinstance(layer, nn.Linear) else "in_channels"
    changes = IN_TRAIN if drops_out_between(graph, path, second) else EXACT
    plan = Plan(
        tensors=(edit,), attributes=(AttributeEdit(second, size, columns),), slots=(SlotEdit(path),), changes=changes
    )
    return Fold(second, _with_bias(plan, layer, second, None, new_bias) if has_own else plan)


def _with_bias(plan: Plan, layer: Layer, path: str, indices: Tensor | None, make: Contents) -> Plan:
    """Adds the new bias of the layer that stays: rewritten where it has one, in its empty slot where it has not."""
    if layer.bias is not None:
        edit = TensorEdit(f"{path}.bias", (indices,), Fill("zeros"), rewrite=make)
        return replace(plan, tensors=(*plan.tensors, edit))
    if indices is not None:
        size = len(indices)
    else:
        size = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    return replace(plan, parameters=(ParameterEdit(path, "bias", (size,), make),))


def _is_plain(graph: ModelGraph, path: str) -> bool:
    """Whether a layer computes with parameters of its own that nothing else reads, as its class in torch does."""
    module = graph.model.get_submodule(path)
    if not _is_known(module):
        return False
    return own_tensor(graph, path, "weight") and ("bias" not in _kept(module) or own_tensor(graph, path, "bias"))


def _is_known(module: nn.Module) -> bool:
    return runs_as_in_torch(module) and not module._forward_hooks and not module._forward_pre_hooks


def _kept(module: nn.Module) -> list[str]:
    return [name for name, parameter in module._parameters.items() if parameter is not None]


def _is_matrix(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, Convolution) and is_pointwise(module))


def _takes(graph: ModelGraph, path: str, matrix: Layer) -> bool:
    """Whether a neighbour is a dense layer of the same kind, into which a matrix folds."""
    layer = graph.model.get_submodule(path) if path else None
    if isinstance(layer, nn.Linear):
        return isinstance(matrix, nn.Linear) and _is_plain(graph, path)
    if not isinstance(layer, Convolution) or not isinstance(matrix, Convolution):
        return False
    is_dense = layer.groups == 1 and not layer.transposed
    return is_dense and len(layer.kernel_size) == len(matrix.kernel_size) and _is_plain(graph, path)
