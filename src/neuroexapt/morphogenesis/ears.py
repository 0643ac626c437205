"""From the junctions of a plan to what is listened to in its twin, with all sizes, before the twin has any numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from neuroexapt.analysis.scores import JunctionShape, Score
from neuroexapt.graph import ModelGraph, ModuleCall
from neuroexapt.morphogenesis.junctions import Graft, Place, PlainLayer, Reader
from neuroexapt.morphogenesis.listening import Ear
from neuroexapt.morphogenesis.rows import is_last
from neuroexapt.surgery.pieces import GatedOperation


def ears_of(
    graph: ModelGraph, structure: nn.Module, places: Sequence[Place], pieces: Sequence[str], score: Score
) -> list[Ear] | str:
    """Returns what to listen to for one candidate, or why it has no such score.

    Args:
        graph: Of the model before.
        structure: The edited model; tensors may be on the meta device.
        places: The candidate's junctions.
        pieces: Paths of its pieces in the structure, one for each graft.
        score: Whose rows are wanted.
    """
    calls = {call.path: call for call in graph.calls}
    left, found = list(pieces), []
    for place in places:
        if isinstance(place, Reader):
            ear = _at_reader(graph, calls, place, score)
        else:
            ear = _at_piece(graph, calls, place, structure, left.pop(0))
        if isinstance(ear, str):
            return ear
        if reason := score.refusal(_large(ear.shape)):
            return reason
        found.append(ear)
    return found


def _large(shape: JunctionShape) -> JunctionShape:
    """With samples enough for any score: what is left to refuse is the junction itself."""
    return JunctionShape(1 << 20, 1, shape.outputs, shape.new, shape.old, shape.inputs, shape.units, shape.is_diagonal)


def _at_reader(graph: ModelGraph, calls: dict[str, ModuleCall], place: Reader, score: Score) -> Ear | str:
    layer = graph.model.get_submodule(place.path)
    if place.path not in calls or not isinstance(layer, PlainLayer):
        return f"{place.path} does not run"
    outputs, taps = layer.weight.shape[0], layer.weight[0, 0].numel()
    new, old = int(place.is_new.sum()), int((~place.is_new).sum())
    if score.view == "reader":
        shape = JunctionShape(1, _positions(calls[place.path]), outputs, new * taps, old * taps, 0, place.units)
        return Ear(place.path, shape, place.is_new, (), "reader")
    others, inputs, positions = (), 0, prod(calls[place.path].inputs[0]) // (calls[place.path].inputs[0][0] * old)
    if _agree(graph, calls, place):
        maker = graph.model.get_submodule(place.maker)
        assert isinstance(maker, PlainLayer)
        inputs = maker.weight[0].numel()
        return Ear(
            place.path,
            JunctionShape(1, positions, outputs * taps, new, old, inputs, place.units),
            place.is_new,
            (place.maker,),
            "maker",
        )
    return Ear(
        place.path, JunctionShape(1, positions, outputs * taps, new, old, 0, place.units), place.is_new, others, "maker"
    )


def _agree(graph: ModelGraph, calls: dict[str, ModuleCall], place: Reader) -> bool:
    """Whether the maker's outputs are, position by position, what the reader gets."""
    if not place.maker or place.maker not in calls:
        return False
    maker, reader = (graph.model.get_submodule(path) for path in (place.maker, place.path))
    if is_last(maker) != is_last(reader) or not calls[place.path].inputs:
        return False
    return calls[place.maker].shape == calls[place.path].inputs[0]


def _at_piece(
    graph: ModelGraph, calls: dict[str, ModuleCall], place: Graft, structure: nn.Module, path: str
) -> Ear | str:
    piece, call = structure.get_submodule(path), calls[place.site]
    channels = call.shape[1] if len(call.shape) == 4 else call.shape[-1]
    positions = prod(call.shape) // (call.shape[0] * channels)
    writers = tuple(writer for writer in place.writers if writer in calls and _positions(calls[writer]) == positions)
    old = sum(_num_columns(graph.model.get_submodule(writer)) for writer in writers)
    if isinstance(piece, GatedOperation):
        return "it fades an operation in, and has no entries that begin at zero"
    if isinstance(getattr(piece, "scale", None), nn.Parameter):
        shape = JunctionShape(1, positions, channels, channels, old, is_diagonal=True, units=channels)
        return Ear(path, shape, None, writers, "reader")
    layers = {name: m for name, m in piece.named_modules() if isinstance(m, PlainLayer)}
    if not layers:
        return "it adds no units"
    name, layer = list(layers.items())[-1]
    new = _num_columns(layer)
    shape = JunctionShape(1, positions, layer.weight.shape[0], new, old, units=layer.weight.shape[1])
    is_new = torch.ones(layer.weight.shape[1], dtype=torch.bool)
    return Ear(f"{path}.{name}", shape, is_new, writers, "reader")


def _positions(call: ModuleCall) -> int:
    """Of one sample of a layer's output; channels are last in linear layers, second in convolutions."""
    channels = call.shape[1] if len(call.shape) in (3, 4, 5) and "conv" in call.producer else call.shape[-1]
    return prod(call.shape) // max(call.shape[0] * channels, 1)


def _num_columns(module: nn.Module) -> int:
    return int(module.weight[0].numel()) if isinstance(module, PlainLayer) else 0
