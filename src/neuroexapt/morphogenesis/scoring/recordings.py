"""What is to be recorded at each junction of a plan, with all sizes, before its twin has any numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor, nn

from neuroexapt.analysis.scores import Junction, JunctionShape, Score, View
from neuroexapt.analysis.watching.layers import WeightLayer, is_linear
from neuroexapt.graph import ModelGraph, ModuleCall
from neuroexapt.morphogenesis.scoring.junctions import Graft, Place, Reader
from neuroexapt.surgery.pieces import GatedOperation

MANY = 1 << 20  # samples, enough for any score: what is left to refuse is the junction itself


@dataclass(eq=False)
class Recording:
    """What is recorded at one junction; a ``Recorder`` fills it.

    Attributes:
        path: Of the layer with zero entries, or of the piece with a zero scale.
        shape: As many rows as there may be.
        is_new: For a layer, which input channels are multiplied with zero entries; ``None`` for a scale.
        others: Layers whose inputs, at the positions of the output, are spanned already; or the maker of the units.
        view: What a row is.
        reason: Why nothing was recorded.
        num_positions: That each sample has there.
        parts: Rows of the batches so far, by name.
        now: Rows of this batch, by name.
        output: Of the layer or piece in this batch.
        placing: Takes rows off the gradient at that output.
    """

    path: str
    shape: JunctionShape
    is_new: Tensor | None
    others: tuple[str, ...]
    view: View
    reason: str = ""
    num_positions: int = 1
    parts: dict[str, list[Tensor]] = field(default_factory=dict)
    now: dict[str, Tensor] = field(default_factory=dict)
    output: Tensor | None = None
    placing: Callable[[Tensor], Tensor] | None = None

    def forget_batch(self) -> None:
        """Forgets what belongs to one batch."""
        self.now, self.output, self.placing = {}, None, None

    def junction(self) -> Junction | None:
        """Hands the rows over."""
        if self.reason or not self.parts:
            return None
        whole = {name: torch.cat(parts) for name, parts in self.parts.items()}
        self.parts = {}
        old = [whole[name] for name in sorted(whole) if name.startswith("old")]
        gradients = whole["gradients"]
        return Junction(
            gradients=gradients,
            new=whole["new"],
            old=torch.cat(old, 2) if old else gradients.new_zeros(*gradients.shape[:2], 0),
            inputs=whole.get("inputs"),
            units=self.shape.units,
            num_positions=self.num_positions,
            is_diagonal=self.shape.is_diagonal,
            view=self.view,
        )


def recordings_of(
    graph: ModelGraph, structure: nn.Module, places: Sequence[Place], pieces: Sequence[str], score: Score
) -> list[Recording] | str:
    """Returns what to record for one candidate, or why it has no such score.

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
            recording = _at_reader(graph, calls, place, score)
        else:
            recording = _at_piece(graph, calls, place, structure, left.pop(0))
        if isinstance(recording, str):
            return recording
        if reason := score.refusal(replace(recording.shape, samples=MANY, rows=1)):
            return reason
        found.append(recording)
    return found


def _at_reader(graph: ModelGraph, calls: dict[str, ModuleCall], place: Reader, score: Score) -> Recording | str:
    layer = graph.model.get_submodule(place.path)
    if place.path not in calls or not isinstance(layer, WeightLayer):
        return f"{place.path} does not run"
    call = calls[place.path]
    outputs, taps = layer.weight.shape[0], layer.weight[0, 0].numel()
    new, old = int(place.is_new.sum()), int((~place.is_new).sum())
    if score.view == "reader":
        shape = JunctionShape(1, _positions(call), outputs, new * taps, old * taps, units=place.units)
        return Recording(place.path, shape, place.is_new, (), "reader")
    positions = prod(call.inputs[0]) // (call.inputs[0][0] * old)
    maker = graph.model.get_submodule(place.maker) if _agree(graph, calls, place) else None
    inputs, others = (maker.weight[0].numel(), (place.maker,)) if isinstance(maker, WeightLayer) else (0, ())
    shape = JunctionShape(1, positions, outputs * taps, new, old, inputs, place.units)
    return Recording(place.path, shape, place.is_new, others, "maker")


def _agree(graph: ModelGraph, calls: dict[str, ModuleCall], place: Reader) -> bool:
    """Whether the maker's outputs are, position by position, what the reader gets."""
    if not place.maker or place.maker not in calls:
        return False
    maker, reader = (graph.model.get_submodule(path) for path in (place.maker, place.path))
    if is_linear(maker) != is_linear(reader) or not calls[place.path].inputs:
        return False
    return calls[place.maker].shape == calls[place.path].inputs[0]


def _at_piece(
    graph: ModelGraph, calls: dict[str, ModuleCall], place: Graft, structure: nn.Module, path: str
) -> Recording | str:
    piece, call = structure.get_submodule(path), calls[place.site]
    channels = call.shape[1] if len(call.shape) == 4 else call.shape[-1]
    positions = prod(call.shape) // (call.shape[0] * channels)
    writers = tuple(writer for writer in place.writers if writer in calls and _positions(calls[writer]) == positions)
    old = sum(_num_columns(graph.model.get_submodule(writer)) for writer in writers)
    if isinstance(piece, GatedOperation):
        return "it fades an operation in, and has no entries that begin at zero"
    if isinstance(getattr(piece, "scale", None), nn.Parameter):
        shape = JunctionShape(1, positions, channels, channels, old, is_diagonal=True, units=channels)
        return Recording(path, shape, None, writers, "reader")
    layers = {name: m for name, m in piece.named_modules() if isinstance(m, WeightLayer)}
    if not layers:
        return "it adds no units"
    name, layer = list(layers.items())[-1]
    shape = JunctionShape(1, positions, layer.weight.shape[0], _num_columns(layer), old, units=layer.weight.shape[1])
    is_new = torch.ones(layer.weight.shape[1], dtype=torch.bool)
    return Recording(f"{path}.{name}", shape, is_new, writers, "reader")


def _positions(call: ModuleCall) -> int:
    """Of one sample of a layer's output; channels are last in linear layers, second in convolutions."""
    channels = call.shape[1] if len(call.shape) in (3, 4, 5) and "conv" in call.producer else call.shape[-1]
    return prod(call.shape) // max(call.shape[0] * channels, 1)


def _num_columns(module: nn.Module) -> int:
    return int(module.weight[0].numel()) if isinstance(module, WeightLayer) else 0
