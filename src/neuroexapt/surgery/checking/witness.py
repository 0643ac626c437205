"""The witness of an edit: what the model and its averages compute on the probe inputs, before it and after it.

What was seen after one edit is what there is before the next, if nothing was written to in between. So where versions
and addresses of all tensors are those of a state that is remembered, and eval mode gives the same bits, train mode is
not run again. What else the code reads (attributes, closures) is not trusted to be as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ExampleInputs, named_tensors, settings_of
from neuroexapt.surgery.checking.verify import (
    Observation,
    changes_between,
    observe,
    observe_again,
    rounding_allowance,
    tolerance_for,
)
from neuroexapt.surgery.plan import EXACT, Mode
from neuroexapt.surgery.writing.averages import inputs_for

_MODEL = "model"

Stamp = tuple[object, ...]


class FunctionChanged(SurgeryError):
    """An edit did not preserve the function that was seen before it."""


class Witness:
    """Compares one model and its averages with themselves.

    Memory: their outputs on the probe inputs, of the last two states that were seen.

    Args:
        model: The model.
        averages: Its averages; each is compared with itself, not with the model.
        inputs: What they are run on.
    """

    def __init__(self, model: nn.Module, averages: Sequence[nn.Module], inputs: ExampleInputs) -> None:
        self._watched = [(model, inputs, _MODEL)]
        self._watched += [(a, inputs_for(a, inputs), f"averages[{i}]") for i, a in enumerate(averages)]
        self._memory: dict[Stamp, list[Observation | None]] = {}

    def look(self) -> list[Observation]:
        """Returns what all of them compute now.

        Raises:
            SurgeryError: One returns nothing that could be compared.
        """
        stamp = self._stamp()
        known = self._memory.pop(stamp, [None] * len(self._watched))  # and in again: the latest of two
        seen = [observe(model, inputs, k) for (model, inputs, _), k in zip(self._watched, known, strict=True)]
        self._remember(stamp, seen)
        return seen

    def compare(
        self, before: Sequence[Observation], description: str, declared: frozenset[Mode] = EXACT
    ) -> dict[Mode, float]:
        """Runs all of them and returns the largest relative change of the model's outputs in each mode.

        Args:
            before: What they computed.
            description: Of the edit, for messages.
            declared: Modes in which outputs may change, as long as their shapes stay and no NaN or infinity appears.

        Raises:
            FunctionChanged: The outputs of the model or of an average changed, or one does not run any more.
        """
        changes, after = [], []
        for seen, (model, inputs, name) in zip(before, self._watched, strict=True):
            after.append(_run_again(seen, model, inputs, description, name))
            changes.append(changes_between(seen, after[-1]))
            _refuse_broken(changes[-1], declared, description)
            change = max((c for mode, c in changes[-1].items() if mode not in declared), default=0.0)
            allowed = tolerance_for(model, seen.eval)
            if not change <= allowed and not change <= rounding_allowance(after[-1], model, inputs):
                whose = "" if name == _MODEL else f" of {name}"
                raise FunctionChanged(
                    f"{description}: changed the outputs{whose} by {change:.2e} relative, allowed are "
                    f"{allowed:.0e}. The edit was taken back; please report the model."
                )
        self._remember(self._stamp(), after)
        return changes[0]

    def forget(self) -> None:
        """Drops what it remembers."""
        self._memory.clear()

    def _remember(self, stamp: Stamp, seen: Sequence[Observation]) -> None:
        self._memory[stamp] = [*seen]
        while len(self._memory) > 2:
            del self._memory[next(iter(self._memory))]

    def _stamp(self) -> Stamp:
        """Which tensors there are, how often each was written to, where it lies; and the modules' settings."""
        tensors: list[Tensor] = []
        for model, inputs, _ in self._watched:
            tensors += named_tensors(model).values()
            tensors += [leaf for leaf in tree_leaves((inputs.args, inputs.kwargs)) if isinstance(leaf, Tensor)]
        settings = [settings_of(model) for model, _, _ in self._watched]
        return (*settings, *((id(t), -1 if t.is_inference() else t._version, t.data_ptr()) for t in tensors))


def _refuse_broken(changes: Mapping[Mode, float], declared: frozenset[Mode], description: str) -> None:
    """A declared change is finite: outputs keep their shapes, and numbers stay numbers."""
    for mode in declared & set(changes):
        if changes[mode] == float("inf"):
            raise FunctionChanged(
                f"{description}: gave outputs of other shapes, or NaN or infinity, in {mode} mode; needed finite ones "
                "of the same shapes. The edit was taken back."
            )


def _run_again(seen: Observation, model: nn.Module, inputs: ExampleInputs, description: str, name: str) -> Observation:
    # Whatever the user's forward raises now, it did not raise before the edit.
    try:
        return observe_again(seen, model, inputs)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the edge to the user's code
        raise FunctionChanged(
            f"{description}: the edited {name} does not run: {type(error).__name__}: {error}. The edit was taken back."
        ) from error
