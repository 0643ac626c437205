"""The receipt of one applied mutation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from neuroexapt.surgery.mutation import Mutation
from neuroexapt.surgery.plan import Mode, SliceSource
from neuroexapt.surgery.writing.undo import UndoLog


@dataclass(frozen=True, eq=False)
class Patch:
    """What an edit did, measured after it was done.

    Attributes:
        mutation: What was asked for.
        description: The same in words.
        seed: Of its random entries; mutation and seed are all that replay needs.
        changes: Largest relative change of the outputs on the probe inputs, for each mode that was run; nothing was run
            on the meta device and in a replay.
        declared: Modes in which the mutation said that it would change the function; elsewhere it was verified.
        verified_in_train_mode: False where train mode is random or does not run on the probe inputs.
        parameter_delta: Parameters after minus before, recounted.
        flop_delta: Forward FLOPs per sample after minus before, recounted.
        sources: For every resized tensor, where each of its slices came from.
        added: Names of new parameters.
    """

    mutation: Mutation
    description: str
    seed: int
    changes: Mapping[Mode, float]
    declared: frozenset[Mode]
    verified_in_train_mode: bool
    parameter_delta: int
    flop_delta: int
    sources: Mapping[str, SliceSource] = field(repr=False)
    added: tuple[str, ...]
    _undo: UndoLog = field(repr=False)

    @property
    def output_change(self) -> float:
        """The larger of ``changes``; NaN where nothing was run."""
        return max(self.changes.values(), default=float("nan"))

    def new_entries(self, model: nn.Module) -> dict[str, Tensor | None]:
        """For every parameter with new entries a boolean mask of them; ``None`` where all of it is new."""
        named = dict(model.named_parameters())
        masks: dict[str, Tensor | None] = dict.fromkeys(self.added)
        for path, source in self.sources.items():
            if path in named:
                masks[path] = source.new_entries(tuple(named[path].shape))
        return masks
