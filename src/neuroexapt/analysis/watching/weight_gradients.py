"""The gradient of a layer's weight for each single sample, projected on both sides without being made.

With input patches X ``[positions, columns]`` and output gradients G ``[positions, rows]`` of one sample the gradient of
the weight is ``G' X``; for projections A and B, ``A G' X B = (G A')' (X B)``, and ``X B`` is the layer itself run with
the rows of ``B`` as its kernels. What the groups of a convolution give is projected once more. Squared norms are kept
on average (``sketches.py``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.analysis.watching.layers import WeightLayer, num_groups
from neuroexapt.analysis.watching.positions import by_position, chunks
from neuroexapt.analysis.watching.sample import WEIGHT_SIDE
from neuroexapt.analysis.watching.sketches import count_sketch, sketch_matrix


def weight_gradient_width(layer: WeightLayer) -> int:
    """Returns how many numbers are kept of one sample's gradient."""
    return min(layer.weight.shape[0], WEIGHT_SIDE) * min(layer.weight[0].numel(), WEIGHT_SIDE)


def weight_gradients(purpose: str, layer: WeightLayer, inputs: Tensor, gradient: Tensor, num_samples: int) -> Tensor:
    """Returns ``[N, <= WEIGHT_SIDE^2]``.

    Args:
        purpose: Seeds the projections.
        layer: Linear or convolution.
        inputs: What it got.
        gradient: At its output, of each sample's own loss.
        num_samples: N.
    """
    groups = num_groups(layer)
    columns = layer.weight[0].numel()
    kernels = sketch_matrix(f"{purpose} columns", columns, WEIGHT_SIDE).to(gradient)
    width = len(kernels)
    rows = by_position(gradient, layer, num_samples, gradient.shape[-1 if isinstance(layer, nn.Linear) else 1])
    per_sample = len(inputs) // num_samples
    answering = sketch_matrix(f"{purpose} rows", rows.shape[1] // groups, WEIGHT_SIDE).to(gradient)
    found = []
    answered = 4 * groups * WEIGHT_SIDE * (2 * rows.shape[2] + 2 * width)
    for part in chunks(num_samples, answered + 8 * rows[0].numel()):
        taken = inputs[part.start * per_sample : part.stop * per_sample].to(gradient.dtype)
        if isinstance(layer, nn.Linear):
            projected = by_position(F.linear(taken, kernels), layer, part.stop - part.start, width)
        else:
            weight = kernels.view(width, *layer.weight.shape[1:]).repeat(groups, *(1,) * (layer.weight.dim() - 1))
            run = layer._conv_forward(taken, weight, None)
            projected = by_position(run, layer, part.stop - part.start, groups * width)
        answers = answering @ rows[part].reshape(part.stop - part.start, groups, -1, rows.shape[2])
        products = answers @ projected.reshape(len(projected), groups, width, -1).transpose(
            2, 3
        )  # [n, groups, rows, columns]
        joined = products.flatten(1, 2).transpose(1, 2)
        found.append(count_sketch(f"{purpose} groups", joined, WEIGHT_SIDE).transpose(1, 2).flatten(1))
    return torch.cat(found)
