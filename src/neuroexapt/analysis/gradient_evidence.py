"""How strongly the loss asks for units that are silent so far: the gradient at new entries.

To first order a gradient step of size h at those entries lowers the loss by ``h * ||E g||^2`` (the growth score of
Evci et al. 2022, GradMax, eq. 4; Maile et al. 2022, NORTH*). The squared norm of a mean of noisy gradients is biased
upwards by the noise, so it is estimated by products of different batches only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroexapt.errors import InputError, NonFiniteLossError
from neuroexapt.graph import in_mode, slots_holding

MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Evidence:
    """A measured quantity.

    Attributes:
        value: The estimate; may be negative where there is nothing but noise.
        spread: Its standard error (jackknife over batches).
        num_samples: Samples that it was read from.
        num_bytes: Memory that the estimator held.
    """

    value: float
    spread: float
    num_samples: int
    num_bytes: int


def gradient_evidence(
    model: nn.Module,
    batches: Iterable[tuple[Any, Tensor]],
    loss_function: Callable[[Any, Tensor], Tensor],
    entries: Mapping[str, Tensor | None],
    max_bytes: int = MAX_BYTES,
) -> Evidence:
    """Estimates the squared norm of the expected loss gradient at some entries of the parameters.

    Runs in train mode on copies of the buffers; parameters, their ``.grad`` and the global generators stay untouched.

    Args:
        model: Any module.
        batches: At least two batches of (inputs, targets), equal in size.
        loss_function: (outputs, targets) -> mean loss.
        entries: Parameter name to a boolean mask of its shape, or ``None`` for the whole parameter.
        max_bytes: Bound of the held gradients: num_batches x entries x 4 bytes.

    Returns:
        The unbiased estimate ``sum_{i != j} <g_i, g_j> / (B (B - 1))``.

    Raises:
        InputError: Fewer than two batches, no entries, or more bytes than allowed.
        NonFiniteLossError: A gradient is NaN or infinite.
    """
    named = dict(model.named_parameters())
    chosen = {name: mask for name, mask in entries.items() if named[name].requires_grad}
    rows: list[Tensor] = []
    num_samples = 0
    for inputs, targets in batches:
        row = _gradient(model, inputs, targets, loss_function, [named[name] for name in chosen], list(chosen.values()))
        if not bool(torch.isfinite(row).all()):
            raise NonFiniteLossError("evidence: the gradient is not finite. The run is saved; lower the learning rate.")
        if (len(rows) + 1) * row.numel() * 4 > max_bytes:
            raise InputError(
                f"evidence: {len(rows) + 1} gradients of {row.numel()} entries need more than {max_bytes} bytes. "
                "Use fewer evidence batches or a smaller edit."
            )
        rows.append(row)
        num_samples += len(targets)
    if len(rows) < 2 or not rows[0].numel():
        raise InputError(f"evidence: found {len(rows)} batches, needed at least 2, and at least one entry.")
    value, spread = _unbiased_square_norm(torch.stack(rows))
    return Evidence(value, spread, num_samples, len(rows) * rows[0].numel() * 4)


def _gradient(
    model: nn.Module,
    inputs: Any,
    targets: Tensor,
    loss_function: Callable[[Any, Tensor], Tensor],
    parameters: list[nn.Parameter],
    masks: list[Tensor | None],
) -> Tensor:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with slots_holding(model, buffers), in_mode(model, training=True), torch.random.fork_rng(), torch.enable_grad():
        loss = loss_function(model(inputs), targets)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    flat = [g.flatten() if m is None else g[m.to(g.device)] for g, m in zip(gradients, masks, strict=True)]
    return torch.cat(flat).detach().to(torch.float32) if flat else torch.zeros(0)


def _unbiased_square_norm(rows: Tensor) -> tuple[float, float]:
    """Mean inner product of different rows ``[B, entries]`` and its jackknife standard error."""
    count = len(rows)
    products = (rows.double() @ rows.double().T).fill_diagonal_(0)
    total, per_row = products.sum(), products.sum(1)
    value = float(total / (count * (count - 1)))
    if count < 3:
        return value, float("inf")
    left_out = (total - 2 * per_row) / ((count - 1) * (count - 2))
    spread = ((count - 1) / count * (left_out - left_out.mean()).square().sum()).sqrt()
    return value, float(spread)
