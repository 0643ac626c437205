"""Which layers are watched, where their units are read, and which layers hand on to which: off the executed graph."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

from torch import nn

from neuroexapt.graph import ModelGraph, ModuleCall, Operation, Role, Space, leaves, resolve

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
WeightLayer = nn.Linear | Convolution


@dataclass(frozen=True, slots=True)
class WatchedLayer:
    """A linear layer or convolution that runs.

    Attributes:
        path: Of the module.
        width: Units: its output channels.
        num_inputs: Columns of its weight, taps included.
        reader: Path of the layer at whose input the units are watched; ``""`` for the layer's own output.
        successors: Layers that its output reaches without passing through another layer.
        kind: Name of its class.
    """

    path: str
    width: int
    num_inputs: int
    reader: str
    successors: tuple[str, ...]
    kind: str


def watched_layers(graph: ModelGraph) -> tuple[tuple[WatchedLayer, ...], dict[str, str]]:
    """Returns the layers in the order in which they run, and why others with a weight are left out."""
    batch, layers = _batch_space(graph), dict[str, WeightLayer]()
    left_out: dict[str, str] = {}
    for call in graph.calls:
        module = graph.model.get_submodule(call.path)
        if call.path in layers:
            continue
        if not isinstance(module, WeightLayer):
            if any(p.dim() > 1 and "weight" in name for name, p in module.named_parameters(recurse=False)):
                left_out.setdefault(call.path, f"is of class {type(module).__name__}, no linear layer or convolution")
            continue
        if reason := _unwatchable(graph, call, module, batch):
            left_out[call.path] = reason
        else:
            layers[call.path] = module
    edges = _edges(graph, set(layers))
    order = list(layers)
    found = []
    for index, (path, module) in enumerate(layers.items()):
        later = [other for other in order[index + 1 :] if _reads(graph, path, other)]
        size = module.weight.shape
        found.append(
            WatchedLayer(
                path=path,
                width=int(size[0]),
                num_inputs=int(size[1:].numel()),
                reader=later[0] if later else "",
                successors=tuple(other for other in order if (path, other) in edges),
                kind=type(module).__name__.replace("Grafted", ""),
            )
        )
    return tuple(found), left_out


def _batch_space(graph: ModelGraph) -> Space | None:
    """The axis of the samples: the first dimension of the first input."""
    first = next((v for v in graph.tape.values if v.is_activation and v.dims and v.parameter is None), None)
    return resolve(first.dims[0]) if first is not None and first.dims[0].size > 1 else None


def _unwatchable(graph: ModelGraph, call: ModuleCall, module: WeightLayer, batch: Space | None) -> str:
    if call.output is None or not call.inputs:
        return "takes or returns something other than one tensor"
    if sum(other.path == call.path for other in graph.calls) > 1:
        return "runs more than once"
    if f"{call.path}.weight" not in graph.parameters:
        return "has no weight of its own"
    if not module.weight.numel():
        return "has no units or no inputs"
    if module.weight.is_complex():
        return "computes with complex numbers"
    outermost = next(iter(leaves(call.output.dims[0])), None)
    if batch is not None and outermost is not batch:
        return "does not have the samples in its first dimension"
    return ""


def _reads(graph: ModelGraph, maker: str, reader: str) -> bool:
    """Whether the input channels of one layer are the units of another, each at one or more positions."""
    made, read = graph.parameters[f"{maker}.weight"].dims[0], graph.parameters[f"{reader}.weight"].dims[1]
    module = graph.model.get_submodule(reader)
    if getattr(module, "groups", 1) != 1 or Role.CONSUME not in graph.roles.get((f"{reader}.weight", 1), ()):
        return False
    units, channels = leaves(made), leaves(read)
    is_product = resolve(read).form != "sum" and all(resolve(p).form != "sum" for p in resolve(read).parts)
    return is_product and channels[: len(units)] == units


def _edges(graph: ModelGraph, layers: set[str]) -> set[tuple[str, str]]:
    """Pairs of layers of which the first one's output reaches the second."""
    return {
        (source, operation.module)
        for operation, sources in fed_by(graph, layers)
        if operation.module in layers
        for source in sources
        if source != operation.module
    }


def fed_by(graph: ModelGraph, layers: Set[str]) -> Iterator[tuple[Operation, frozenset[str]]]:
    """Yields each operation with the layers whose output reaches it without passing through another of them."""
    reached: dict[int, frozenset[str]] = {}  # tensor -> layers whose output it depends on most recently
    for operation in graph.tape:
        sources = frozenset().union(*(reached.get(number, frozenset()) for number in operation.inputs))
        yield operation, sources
        made = frozenset({operation.module}) if operation.module in layers else sources
        reached |= dict.fromkeys(operation.outputs, made)


def is_linear(module: nn.Module) -> bool:
    """Whether the channels are in the last dimension; convolutions have them in the second."""
    return isinstance(module, nn.Linear)


def num_groups(layer: WeightLayer) -> int:
    """Returns the groups of a convolution; 1 for a linear layer."""
    return 1 if isinstance(layer, nn.Linear) else layer.groups
