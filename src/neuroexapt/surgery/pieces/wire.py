"""What the two ends of a skip connection share: one tensor, from the moment it is made until it is read."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

from neuroexapt.errors import SurgeryError


class Wire:
    """Carries a tensor from one module to another within one forward; holds nothing before and after.

    Every thread has its own (``DataParallel``, threads that serve one model). Copies and pickles are empty, and two
    modules that share a wire share its copy. Memory: a reference to one activation, which a forward that breaks off
    half way leaves until the next forward, or ``release``.

    Args:
        source: Path of the module that gives the tensor, for messages.
        target: Path of the module that takes it.
    """

    def __init__(self, source: str, target: str) -> None:
        self.source, self.target = source, target
        self._own = threading.local()

    def put(self, tensor: Tensor) -> None:
        """Gives the tensor."""
        self._own.held = tensor
        self._own.has_gradient = torch.is_grad_enabled()

    def take(self) -> Tensor:
        """Takes the tensor.

        Raises:
            SurgeryError: The source has not run before, or it ran without gradients and the target runs with them.
        """
        held: Tensor | None = getattr(self._own, "held", None)
        self._own.held = None
        if held is None:
            raise SurgeryError(
                f"{self.target}: found no output of {self.source}, needed it for the skip connection. Run both in the "
                "same forward, the source first; under torch.utils.checkpoint put both into one checkpointed part."
            )
        if torch.is_grad_enabled() and not self._own.has_gradient:
            raise SurgeryError(
                f"{self.target}: found the output of {self.source} without gradients, needed it with them for the skip "
                "connection. Run both under torch.no_grad() or neither; use torch.utils.checkpoint with "
                "use_reentrant=False."
            )
        return held

    def release(self) -> None:
        """Lets go of what any thread left behind."""
        self._own = threading.local()

    def __reduce__(self) -> Any:
        return Wire, (self.source, self.target)
