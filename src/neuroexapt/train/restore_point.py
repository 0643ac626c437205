"""What forward and backward change besides gradients, so that a step which fails can go back to where it began."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RestorePoint:
    """Buffers of a model and torch's generators at one moment. Memory: a copy of the buffers.

    The buffers are looked up by slot: a forward may put another tensor there instead of writing to the old one.
    """

    def __init__(self, model: nn.Module) -> None:
        slots = [(module._buffers, name) for module in model.modules() for name in module._buffers]
        self._slots = [(store, name, store[name], _clone(store[name])) for store, name in slots]
        generators = [torch.default_generator]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            generators += torch.cuda.default_generators
        self._generators = [(generator, generator.get_state()) for generator in generators]

    def restore(self) -> None:
        """Puts everything back, to the bit."""
        with torch.no_grad():
            for store, name, buffer, saved in self._slots:
                if buffer is not None and saved is not None:
                    buffer.copy_(saved)
                store[name] = buffer
        for generator, state in self._generators:
            generator.set_state(state)


def _clone(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None else buffer.detach().clone()
