"""Rows of layers whose statistics are known: what every estimator is tested on.

Every family is a fixed distribution of whole layers (features, labels, gradients, inputs), from which any number of
independent samples can be drawn; so "what unlimited data would give" is what very many samples give.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuroexapt.analysis.watching import LayerSample
from neuroexapt.analysis.watching.sample import GRADIENTS, INPUTS, POOLED
from neuroexapt.analysis.watching.sketches import count_sketch

WIDTH = 24
NUM_CLASSES = 4
Features = Callable[[Tensor, torch.Generator, int], Tensor]  # labels [n], width -> [n, width]


def fixed(*shape: int) -> Tensor:
    """Numbers that belong to the family and not to the draw."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(99), dtype=torch.float64)


def white(labels: Tensor, generator: torch.Generator, width: int = WIDTH) -> Tensor:
    return torch.randn(len(labels), width, generator=generator, dtype=torch.float64)


def low_rank(labels: Tensor, generator: torch.Generator, width: int = WIDTH) -> Tensor:
    """Three directions, of which the classes move the first, and a little noise."""
    factors = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64)
    factors[:, 0] += labels - (NUM_CLASSES - 1) / 2
    return factors @ fixed(3, width) + 0.1 * white(labels, generator, width)


def duplicated(labels: Tensor, generator: torch.Generator, width: int = WIDTH) -> Tensor:
    half = white(labels, generator, width)[:, : width // 2]
    half[:, 0] += labels
    return torch.cat([half, half], 1)


def dead(labels: Tensor, generator: torch.Generator, width: int = WIDTH) -> Tensor:
    found = torch.relu(white(labels, generator, width))
    found[:, ::3] = 0.0
    return found


def constant(labels: Tensor, generator: torch.Generator, width: int = WIDTH) -> Tensor:
    found = white(labels, generator, width)
    found[:, ::4] = 1.5
    return found


FAMILIES: dict[str, Features] = {f.__name__: f for f in (white, low_rank, duplicated, dead, constant)}


def draw(family: str, num_samples: int, seed: int, width: int = WIDTH) -> LayerSample:
    """Returns that many independent samples of a layer of this family; the gradient asks for something half linear."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_CLASSES, (num_samples,), generator=generator)
    features = FAMILIES[family](labels, generator, width)
    inputs = torch.randn(num_samples, 12, generator=generator, dtype=torch.float64)
    noise = torch.randn(num_samples, 10, generator=generator, dtype=torch.float64)
    gradients = inputs @ fixed(12, 10) / 12**0.5 + (inputs[:, :10] ** 2 - 1) / 2**0.5 + 0.5 * noise
    weights = 0.3 + torch.randn(num_samples, 40, generator=generator, dtype=torch.float64)
    relevance = features * torch.randn(num_samples, width, generator=generator, dtype=torch.float64) + 0.2 * features
    return LayerSample(
        features=features.float(),
        pooled=count_sketch("pooled", features, POOLED).float(),
        relevance=relevance.float(),
        inputs=count_sketch("inputs", inputs, INPUTS).float(),
        gradients=count_sketch("gradients", gradients, GRADIENTS).float(),
        weight_gradients=weights.float(),
        targets=labels,
        low=features.amin(0).float(),
        high=features.amax(0).float(),
        num_inputs=12,
        num_outputs=10,
    )
