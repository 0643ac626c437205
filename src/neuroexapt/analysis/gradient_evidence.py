"""How strongly the loss asks for units that are silent so far: the gradient at new entries.

To first order a gradient step of size h at those entries lowers the loss by ``h * ||E g||^2`` (the growth score of
Evci et al. 2022, GradMax, eq. 4; Maile et al. 2022, NORTH*). The squared norm of a mean of noisy gradients is biased
upwards by the noise, so it is estimated by products of different batches only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neuroexapt.analysis.evidence import Evidence
from neuroexapt.errors import InputError, NonFiniteLossError
from neuroexapt.graph import in_mode, slots_holding

MAX_BYTES = 16 << 20


def gradient_evidence(
    model: nn.Module,
    batches: Iterable[tuple[Any, Tensor]],
    loss_function: Callable[[Any, Tensor], Tensor],
    entries: Mapping[str, Tensor | None],
    max_bytes: int = MAX_BYTES,
) -> Evidence:
    """Estimates the squared norm of the expected loss gradient at some entries of the parameters.

    Runs in train mode on copies of the buffers; parameters, their ``.grad`` and torch's global generators stay
    untouched. Every batch draws its own dropout masks, as training does: the same mask for all would be read as signal.

    Args:
        model: Any module.
        batches: At least two batches of (inputs, targets), equal in size.
        loss_function: (outputs, targets) -> mean loss.
        entries: Parameter name to a boolean mask of its shape, or ``None`` for the whole parameter.
        max_bytes: Bound of the held gradients: num_batches x entries x 4 bytes.

    Returns:
        The unbiased estimate ``sum_{i != j} <g_i, g_j> / (B (B - 1))``.

    Raises:
        InputError: Fewer than two batches, no entries, an unknown name, or more bytes than allowed.
        NonFiniteLossError: A gradient is NaN or infinite.
    """
    chosen = _trainable(model, entries)
    num_entries = sum(p.numel() if mask is None else int(mask.sum()) for p, mask in chosen.values())
    if not num_entries:
        raise InputError(
            "evidence: found no trainable entry, needed at least one. Choose an edit that adds parameters."
        )
    rows: list[Tensor] = []
    num_samples = 0
    with torch.random.fork_rng(devices=_cuda_devices(model)):
        for inputs, targets in batches:
            if (needed := max(len(rows) + 1, 2) * num_entries * 4) > max_bytes:
                raise InputError(
                    f"evidence: {max(len(rows) + 1, 2)} gradients of {num_entries} entries take {needed} bytes, "
                    f"allowed are {max_bytes}. Use fewer evidence batches or a smaller edit."
                )
            rows.append(_gradient(model, inputs, targets, loss_function, chosen))
            num_samples += len(targets)
    if len(rows) < 2:
        raise InputError(f"evidence: found {len(rows)} batches, needed at least 2: one alone cannot show its noise.")
    value, spread = _unbiased_square_norm(torch.stack(rows))
    return Evidence(
        value=value,
        spread=spread,
        low=value - 2 * spread,
        high=value + 2 * spread,
        num_samples=num_samples,
        estimator="gradient norm",
        num_bytes=len(rows) * num_entries * 4,
    )


Chosen = Mapping[str, tuple[nn.Parameter, Tensor | None]]  # with the mask of the entries that count


def _trainable(model: nn.Module, entries: Mapping[str, Tensor | None]) -> Chosen:
    named = dict(model.named_parameters())
    if unknown := sorted(entries.keys() - named.keys()):
        raise InputError(
            f"evidence: {type(model).__name__} has no parameter {unknown[0]}. Use model.named_parameters()."
        )
    return {name: (named[name], mask) for name, mask in entries.items() if named[name].requires_grad}


def _cuda_devices(model: nn.Module) -> list[int]:
    return sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})


def _gradient(
    model: nn.Module,
    inputs: Any,
    targets: Tensor,
    loss_function: Callable[[Any, Tensor], Tensor],
    chosen: Chosen,
) -> Tensor:
    """Returns the chosen entries of the gradient as one float32 vector."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with slots_holding(model, buffers), in_mode(model, training=True), torch.enable_grad():
        loss = loss_function(model(inputs), targets)
        parameters = [parameter for parameter, _ in chosen.values()]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    flat = []
    for (name, (_, mask)), gradient in zip(chosen.items(), gradients, strict=True):
        flat.append(gradient.flatten() if mask is None else gradient[mask.to(gradient.device)])
        if not bool(torch.isfinite(flat[-1]).all()):
            raise NonFiniteLossError(
                f"evidence: {name}: its gradient is not finite. Lower the learning rate, or look for bad values in "
                "the data."
            )
    return torch.cat(flat).detach().to(torch.float32)


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
