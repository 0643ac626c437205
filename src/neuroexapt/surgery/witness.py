"""The witness of an edit: what the model and its averages compute on the probe inputs, before it and after it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ExampleInputs
from neuroexapt.surgery.averages import inputs_for
from neuroexapt.surgery.verify import Observation, change_since, observe, tolerance_for

_MODEL = "model"


class Witness:
    """Compares one model and its averages with themselves.

    Args:
        model: The model.
        averages: Its averages; each is compared with itself, not with the model.
        inputs: What they are run on.
    """

    def __init__(self, model: nn.Module, averages: Sequence[nn.Module], inputs: ExampleInputs) -> None:
        self._watched = [(model, inputs, _MODEL)]
        self._watched += [(a, inputs_for(a, inputs), f"averages[{i}]") for i, a in enumerate(averages)]

    def look(self) -> list[Observation]:
        """Runs all of them and leaves nothing changed.

        Raises:
            SurgeryError: The model returns nothing that could be compared.
        """
        return [observe(model, inputs) for model, inputs, _ in self._watched]

    def compare(self, before: Sequence[Observation], description: str) -> float:
        """Returns the largest relative change of the model's outputs since.

        Raises:
            SurgeryError: The outputs of the model or of an average changed, or one does not run any more.
        """
        changes = []
        for seen, (model, inputs, name) in zip(before, self._watched, strict=True):
            change = _change(seen, model, inputs, description, name)
            allowed = tolerance_for(model, seen.eval)
            if not change <= allowed:
                whose = "" if name == _MODEL else f" of {name}"
                raise SurgeryError(
                    f"{description}: changed the outputs{whose} by {change:.2e} relative, allowed are "
                    f"{allowed:.0e}. The edit was taken back; please report the model."
                )
            changes.append(change)
        return changes[0]


def _change(seen: Observation, model: nn.Module, inputs: ExampleInputs, description: str, name: str) -> float:
    # Whatever the user's forward raises now, it did not raise before the edit.
    try:
        return change_since(seen, model, inputs)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the edge to the user's code
        raise SurgeryError(
            f"{description}: the edited {name} does not run: {type(error).__name__}: {error}. The edit was taken back."
        ) from error
