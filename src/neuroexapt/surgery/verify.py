"""Looking at what a model computes, before and after an edit, without leaving a trace.

Eval mode always; train mode too, with dropout layers switched off, unless the forward is random there or does not run
on these inputs. It runs on copies of the buffers (running statistics); training flags and global generators are
put back.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

from neuroexapt.graph import ExampleInputs, in_mode, relative_change, slots_holding

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}  # relative; set by summation order, not by the edit
COARSE_TOLERANCE = 2e-2  # bfloat16 and half carry 8 to 11 bits


@dataclass(frozen=True, slots=True)
class Observation:
    """Outputs of a model on the probe inputs; ``train`` is ``None`` where train mode is random or does not run."""

    eval: list[Tensor]
    train: list[Tensor] | None

    def change_to(self, after: Observation) -> float:
        """Largest relative change of any output, over both modes."""
        change = relative_change(self.eval, after.eval)
        if self.train is not None and after.train is not None:
            change = max(change, relative_change(self.train, after.train))
        return change


def observe(model: nn.Module, inputs: ExampleInputs) -> Observation:
    """Runs the model in both modes and leaves nothing changed."""
    with _on_copies_of_buffers(model):
        evaluation = _outputs(model, inputs, training=False, seed=0)
    # A forward that cannot run in train mode on these inputs (batch norm on one sample) is verified in eval mode only.
    try:
        with _on_copies_of_buffers(model):
            first = _outputs(model, inputs, training=True, seed=0)
        with _on_copies_of_buffers(model):
            second = _outputs(model, inputs, training=True, seed=1)
    except (ValueError, RuntimeError):
        return Observation(evaluation, None)
    is_random = relative_change(first, second) > 0
    return Observation(evaluation, None if is_random else first)


def tolerance_for(outputs: list[Tensor]) -> float:
    """Largest relative change that summation order alone explains, for the coarsest dtype among the outputs."""
    return max((TOLERANCE.get(t.dtype, COARSE_TOLERANCE) for t in outputs), default=0.0)


def _outputs(model: nn.Module, inputs: ExampleInputs, training: bool, seed: int) -> list[Tensor]:
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    with in_mode(model, training), torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, _DropoutNd):
                module.training = False
        leaves = tree_leaves(inputs.call(model))
    return [leaf.clone() for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _on_copies_of_buffers(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    return slots_holding(model, {name: buffer.clone() for name, buffer in model.named_buffers()})
