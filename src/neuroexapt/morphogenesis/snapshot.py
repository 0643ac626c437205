"""A point in a run to come back to, to the bit: values of one architecture, in memory.

The architecture itself goes back by reverting patches first. Memory: one copy of parameters, buffers and optimizer
state, of gradients where there are any, plus what the other stateful objects return.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuroexapt.graph import named_tensors
from neuroexapt.resources import random_state, set_random_state


class Stateful(Protocol):
    """Something that goes back with the model: a scheduler, a sampler, a loop's counters."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Takes a state over."""


class Snapshot:
    """The values of a model, its optimizer, the global generators and other stateful objects at one moment."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, others: Sequence[Stateful]) -> None:
        self._model, self._optimizer, self._others = model, optimizer, others
        self._tensors = {name: tensor.detach().clone() for name, tensor in named_tensors(model).items()}
        self._gradients = {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
        self._state = {p: _cloned(s) for p, s in optimizer.state.items()}
        self._groups = [_cloned({k: v for k, v in group.items() if k != "params"}) for group in optimizer.param_groups]
        self._other_states = [copy.deepcopy(other.state_dict()) for other in others]
        self._random = random_state()

    def restore(self) -> None:
        """Puts everything back; the model must have the architecture that it had."""
        with torch.no_grad():
            for path, tensor in named_tensors(self._model).items():
                tensor.copy_(self._tensors[path])
        for name, parameter in self._model.named_parameters():
            gradient = self._gradients[name]
            parameter.grad = None if gradient is None else gradient.clone()
        self._optimizer.state.clear()
        for owner, state in self._state.items():
            self._optimizer.state[owner] = _cloned(state)
        for group, settings in zip(self._optimizer.param_groups, self._groups, strict=True):
            group.update(_cloned(settings))
        for other, other_state in zip(self._others, self._other_states, strict=True):
            other.load_state_dict(copy.deepcopy(other_state))
        set_random_state(self._random)


def _cloned(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.clone() if isinstance(value, Tensor) else value for key, value in state.items()}
