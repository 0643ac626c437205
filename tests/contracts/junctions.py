"""Hand-made junctions: what every growth score is tested on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from neuroexapt.analysis.scores import Junction

N, OLD, NEW, OUT, INPUTS = 64, 6, 3, 4, 5


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise(seed: int = 0, samples: int = N, rows: int = 1, is_diagonal: bool = False) -> Junction:
    return Junction(
        gradients=randn(samples, rows, OUT, seed=seed),
        new=randn(samples, rows, OUT if is_diagonal else NEW, seed=seed + 1000),
        old=randn(samples, rows, OLD, seed=seed + 2000),
        inputs=None if is_diagonal else randn(samples, rows, INPUTS, seed=seed + 3000),
        units=NEW,
        num_positions=rows,
        is_diagonal=is_diagonal,
    )


def signal(seed: int = 0, samples: int = N, rows: int = 1) -> Junction:
    """The gradient is made of what the new units, the old ones and the maker's inputs give, and of noise."""
    plain = noise(seed, samples, rows)
    assert plain.inputs is not None
    weights = randn(NEW + OLD + INPUTS, OUT, seed=7)
    return replace(plain, gradients=plain.gradients + torch.cat([plain.new, plain.old, plain.inputs], 2) @ weights)
