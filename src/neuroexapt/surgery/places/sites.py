"""Sites: modules on which a piece can be hung, with one plain channel axis in their output.

A site has no children of its own (code may walk over the children of a container) and runs once per forward. Its output
is ``[N, C, H, W]`` with C at dimension 1, or ``[..., C]`` with C last.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, ModuleCall, Space, is_pinned, resolve
from neuroexapt.surgery.places.neighbours import runs_once
from neuroexapt.surgery.writing.graft import is_piece_path


def site_at(graph: ModelGraph, path: str, *, divided: bool = False) -> ModuleCall:
    """Returns the one execution of a site.

    Args:
        graph: The model.
        path: Of the module.
        divided: Whether its channels may be a product (groups, heads) or laid end to end, for pieces that keep that.

    Raises:
        SurgeryError: There is no such module, or nothing can be hung on it; the message says why.
    """
    found = [call for call in graph.calls if call.path == path]
    if not found:
        raise SurgeryError(
            f"{path}: no module of that path runs in {type(graph.model).__name__}; "
            "needed a path from `model.named_modules()`."
        )
    refusal = site_refusal(graph, found[0], divided=divided)
    if refusal:
        raise SurgeryError(f"{path or 'the model itself'}: cannot hang a piece here: {refusal}. Choose another module.")
    return found[0]


def sites(graph: ModelGraph, *, divided: bool = False) -> list[ModuleCall]:
    """Returns all sites, in the order in which they run; for ``divided`` see ``site_at``."""
    return [call for call in graph.calls if not site_refusal(graph, call, divided=divided)]


def ends_of_chains(graph: ModelGraph) -> Iterator[ModuleCall]:
    """Yields the last site of every chain of layer, norm and activation."""
    layers = [call for call in sites(graph) if _is_layer(graph, call)]
    for index, call in enumerate(layers):
        following = layers[index + 1] if index + 1 < len(layers) else None
        if following is None or not _continues(graph, call, following):
            yield call


def is_map(call: ModuleCall) -> bool:
    """Whether the output is a feature map ``[N, C, H, W]``."""
    return len(call.shape) == 4


def num_channels(call: ModuleCall) -> int:
    """Size of the channel axis of a site's output."""
    return call.shape[1] if is_map(call) else call.shape[-1]


def channel_axis(call: ModuleCall) -> Space | None:
    """The axis of a site's channels."""
    return None if call.output is None else resolve(call.output.dims[1 if is_map(call) else -1])


def site_refusal(graph: ModelGraph, call: ModuleCall, *, divided: bool = False) -> str:
    """Returns why nothing can be hung on the module of this call, or ``""``."""
    module = graph.model.get_submodule(call.path)
    if is_piece_path(call.path) or any(name != "grafts" for name, _ in module.named_children()):
        return "it contains other modules, and code may walk over them"
    if not runs_once(graph, call.path):
        return "it runs more than once per forward, and each run would need its own layer"
    if call.output is None or not call.is_floating_point or len(call.shape) not in (2, 3, 4):
        return "its output is not one floating-point tensor of 2 to 4 dimensions"
    at = 1 if len(call.shape) == 4 else len(call.shape) - 1
    dims = [resolve(space) for space in call.output.dims]
    channel = dims.pop(at)
    if channel.size < 2 or (channel.form == "product" and not divided):
        return "its output has no plain channel axis"
    if channel.pin_reason:
        return channel.pin_reason
    if not all(map(is_pinned, dims)):
        return "its channels are not where a layer would look for them"
    return ""


def _is_layer(graph: ModelGraph, call: ModuleCall) -> bool:
    """Whether the module computes units or activates them, at more than one position if they have positions."""
    module = graph.model.get_submodule(call.path)
    is_activation = type(module).__module__ == "torch.nn.modules.activation"
    has_positions = len(call.shape) != 4 or call.shape[2] * call.shape[3] > 1
    return has_positions and (is_activation or next(module.parameters(recurse=False), None) is not None)


def _continues(graph: ModelGraph, call: ModuleCall, following: ModuleCall) -> bool:
    """Whether the next site only normalises or activates this one's output."""
    module = graph.model.get_submodule(following.path)
    makes_units = isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    return not makes_units and following.shape == call.shape
