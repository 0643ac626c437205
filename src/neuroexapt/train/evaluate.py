"""Mean loss and accuracy on a split."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.graph import in_mode
from neuroexapt.train.precision import Precision, forward_in


@torch.no_grad()
def evaluate(
    model: nn.Module, data: Iterable[tuple[Tensor, Tensor]], precision: Precision = "float32"
) -> tuple[float, float]:
    """Returns (mean cross-entropy in nats, accuracy in [0, 1]) in eval mode; the model's modes are put back."""
    total, num_correct, count = 0.0, 0, 0
    with in_mode(model, training=False):
        for inputs, labels in data:
            logits = forward_in(precision, model, inputs)
            total += float(F.cross_entropy(logits, labels, reduction="sum"))
            num_correct += int((logits.argmax(1) == labels).sum())
            count += len(labels)
    return total / count, num_correct / count


@torch.no_grad()
def sample_losses(model: nn.Module, data: Iterable[tuple[Tensor, Tensor]], precision: Precision = "float32") -> Tensor:
    """Returns the cross-entropy of every sample ``[n]``, nats, in eval mode; the model's modes are put back."""
    with in_mode(model, training=False):
        return torch.cat([F.cross_entropy(forward_in(precision, model, x), y, reduction="none") for x, y in data])
