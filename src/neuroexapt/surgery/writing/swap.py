"""Giving a parameter another storage while it stays the same object in the same places.

Exchanges the C++ contents of two tensors, as ``torch.utils.swap_tensors`` does, with three differences. Class, Python
attributes and weak references stay with the object that the user holds. So do its gradient hooks: they fire for the new
contents, whose shape they must accept, and their handles go on working. And where an autograd graph that has run its
backward is still referred to (a loop's ``loss``), the contents that leave are closed to it only until they come back: a
second backward through the old graph is an error after an edit, and works again after the edit is reverted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuroexapt.errors import SurgeryError


class Exchange:
    """One exchange of contents and its undo; both tensors are kept alive by it.

    Args:
        tensor: The user's parameter or buffer.
        other: What it gets; holds the old contents afterwards.
        path: The parameter's name, for messages.

    Raises:
        SurgeryError: The storage cannot be exchanged; nothing has changed.
    """

    def __init__(self, tensor: Tensor, other: Tensor, path: str) -> None:
        _check(tensor, path)
        self._tensor, self._other, self._path = tensor, other, path
        self._closed = _close(tensor, path)
        self._hooks = _hooks(tensor)
        torch._C._swap_tensor_impl(tensor, other)
        _register(tensor, self._hooks)

    def undo(self) -> None:
        """Brings the old contents back; gradients may flow through them again."""
        for handle in self._closed:
            handle.remove()
        _close(self._tensor, self._path)
        torch._C._swap_tensor_impl(self._tensor, self._other)
        if _hooks(self._tensor) != self._hooks:  # the old contents know the old ones
            _register(self._tensor, _hooks(self._tensor))


def _check(tensor: Tensor, path: str) -> None:
    allowed = 2 if tensor.is_leaf and tensor.requires_grad else 1  # its gradient accumulator holds one
    if tensor._use_count() > allowed:  # type: ignore[attr-defined]
        raise SurgeryError(
            f"{path}: something in torch still refers to it: an autograd graph that has not run its backward, or a "
            "DistributedDataParallel around it. Edit between optimizer.step() and the next forward, with no output of "
            "the last forward kept; delete a wrapper, and wrap again after."
        )


def _hooks(tensor: Tensor) -> tuple[Any, Any]:
    """Returns the dictionaries of gradient hooks; they belong to the Python object, and its contents refer to them."""
    return tensor._backward_hooks, getattr(tensor, "_post_accumulate_grad_hooks", None)


def _register(tensor: Tensor, hooks: tuple[Any, Any]) -> None:
    """Makes the contents of a tensor call its object's hooks."""
    if hooks[0] is not None:
        tensor._backward_hooks = hooks[0]
    if hooks[1] is not None:
        tensor._post_accumulate_grad_hooks = hooks[1]


def _close(tensor: Tensor, path: str) -> list[Any]:
    """Makes a later backward through graphs built on these contents an error; returns the handles that lift it."""
    if tensor._use_count() < 2:  # type: ignore[attr-defined]
        return []

    def refuse(grad_outputs: Any) -> None:
        raise SurgeryError(f"{path}: this backward belongs to a forward from before an edit. Run the forward again.")

    return [torch.autograd.graph.get_gradient_edge(tensor).node.register_prehook(refuse)]
