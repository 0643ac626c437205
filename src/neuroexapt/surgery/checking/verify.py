"""Looking at what a model computes, before and after an edit, without leaving a trace.

Eval mode always; train mode too, with dropout layers switched off, unless the forward is random there or does not run
on these inputs. It runs on copies of the buffers (running statistics); training flags, other attributes and global
generators are put back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import (
    ExampleInputs,
    is_inexact,
    relative_change,
    slots_holding,
    undisturbed,
)
from neuroexapt.surgery.plan import Mode

TOLERANCE = {  # relative; set by summation order, not by the edit
    torch.float64: 1e-10,
    torch.complex128: 1e-10,
    torch.float32: 1e-5,
    torch.complex64: 1e-5,
}
ROUNDING_FACTOR = 4.0  # an edit's roundings may meet by this much worse than a random set of them
MAX_ROUNDING = 100.0  # tolerances; more is never put down to rounding
COARSE_TOLERANCE = 2e-2  # bfloat16 and half carry 8 to 11 bits


@dataclass(frozen=True, slots=True)
class Observation:
    """Outputs of a model on the probe inputs; ``train`` is ``None`` where train mode is random or does not run."""

    eval: list[Tensor]
    train: list[Tensor] | None


def observe(model: nn.Module, inputs: ExampleInputs, known: Observation | None = None) -> Observation:
    """Runs the model in both modes and leaves nothing changed.

    Args:
        model: What is run.
        inputs: What it is run on.
        known: What it computed when its tensors were last as they are; train mode is not run again if eval mode agrees.

    Raises:
        SurgeryError: It returns no floating-point tensor, so that nothing could be compared.
    """
    evaluation, _ = _outputs(model, inputs, training=False)
    if not evaluation:
        raise SurgeryError(
            f"{type(model).__name__}: found no floating-point tensor in its output, needed one to verify edits on. "
            "Let forward return what comes before the rounding too, for example the logits beside the labels."
        )
    if known is not None and relative_change(known.eval, evaluation) == 0.0:
        return known
    # A forward that cannot run in train mode on these inputs (batch norm on one sample) is verified in eval mode only.
    try:
        training, is_random = _outputs(model, inputs, training=True)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError):
        return Observation(evaluation, None)
    return Observation(evaluation, None if is_random else training)


def observe_again(before: Observation, model: nn.Module, inputs: ExampleInputs) -> Observation:
    """Runs the model in the modes that were observed before.

    Raises:
        Exception: Whatever the forward raises, in a mode in which it ran before.
    """
    evaluation, _ = _outputs(model, inputs, training=False)
    if before.train is None:
        return Observation(evaluation, None)
    training, is_random = _outputs(model, inputs, training=True)
    return Observation(evaluation, None if is_random else training)


def changes_between(before: Observation, after: Observation) -> dict[Mode, float]:
    """Returns the largest relative change of any output, for each mode that both saw."""
    changes: dict[Mode, float] = {"eval": relative_change(before.eval, after.eval)}
    if before.train is not None and after.train is not None:
        changes["train"] = relative_change(before.train, after.train)
    return changes


def tolerance_for(model: nn.Module, outputs: list[Tensor]) -> float:
    """Largest relative change that summation order alone explains, for the coarsest dtype of parameters and outputs."""
    dtypes = {t.dtype for t in [*model.parameters(), *outputs] if is_inexact(t)}
    return max((TOLERANCE.get(dtype, COARSE_TOLERANCE) for dtype in dtypes), default=0.0)


def rounding_allowance(seen: Observation, model: nn.Module, inputs: ExampleInputs) -> float:
    """Returns the relative change that rounding explains in a badly conditioned model.

    Measured: every parameter is changed in its last place at random, and the outputs are compared with those without
    (batch norm over a handful of values turns 1e-7 into 1e-5). Never more than ``MAX_ROUNDING`` times the tolerance.

    Args:
        seen: What the model computes now.
        model: The model; memory: one more copy of its parameters, for the two forwards.
        inputs: What it is run on.
    """
    generator = torch.Generator().manual_seed(0)
    moved: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if is_inexact(parameter):
            noise = (2 * torch.rand(parameter.shape, generator=generator) - 1) * torch.finfo(parameter.dtype).eps
            values = parameter.detach() * (1 + noise.to(parameter))
            moved[name] = nn.Parameter(values, requires_grad=parameter.requires_grad)
    with slots_holding(model, moved):
        noisy = observe_again(seen, model, inputs)
    tolerance = tolerance_for(model, seen.eval)
    return min(ROUNDING_FACTOR * max(changes_between(seen, noisy).values()), MAX_ROUNDING * tolerance)


def _outputs(model: nn.Module, inputs: ExampleInputs, training: bool) -> tuple[list[Tensor], bool]:
    """Returns the outputs and whether a global generator was drawn from to make them."""
    with (
        undisturbed(model, training) as drawn,
        torch.no_grad(),
    ):
        for module in model.modules():
            if isinstance(module, _DropoutNd):
                module.training = False
        leaves = tree_leaves(inputs.call(model))
        is_random = drawn()
    return [leaf.clone() for leaf in leaves if isinstance(leaf, Tensor) and is_inexact(leaf)], is_random
