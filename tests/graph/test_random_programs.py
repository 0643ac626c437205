"""The permutation law on programs that nobody thought of: views, parts, joins and sums in a random order."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph.programs import law
from neuroexapt.graph import trace

MAX_ELEMENTS = 300  # of one sample
Step = Callable[["RandomProgram", random.Random, Tensor, int, list[Tensor]], Tensor]


def regrouped(y: Tensor, rng: random.Random) -> Tensor:
    sizes, left = [], y[0].numel()
    while left > 1:
        sizes.append(rng.choice([d for d in range(2, left + 1) if left % d == 0]))
        left //= sizes[-1]
    return y.reshape(y.shape[0], *(sizes or [1]))


def part(y: Tensor, rng: random.Random, dim: int) -> Tensor:
    start = rng.randrange(y.shape[dim])
    return y.narrow(dim, start, rng.randint(1, y.shape[dim] - start))


def joined(y: Tensor, dim: int, pool: list[Tensor], rng: random.Random) -> Tensor:
    fits = [o for o in pool if o.dim() == y.dim() and o.select(dim, 0).shape == y.select(dim, 0).shape]
    return torch.cat([y, rng.choice(fits)], dim)


def multiplied(y: Tensor, dim: int) -> Tensor:
    half = y.shape[dim] // 2
    return y.narrow(dim, 0, half) * torch.sigmoid(y.narrow(dim, half, half)) if half else y


def written(y: Tensor, dim: int) -> Tensor:
    target = y.new_zeros([size + 2 * (d == dim) for d, size in enumerate(y.shape)])
    target.narrow(dim, 1, y.shape[dim]).copy_(y)
    return target


def grouped(program: RandomProgram, y: Tensor, rng: random.Random) -> Tensor:
    flat = y.flatten(1)
    groups = rng.choice([g for g in (1, 2, 3, 4) if flat.shape[1] % g == 0])
    return F.conv1d(flat[..., None], program.weight(groups * 2, flat.shape[1] // groups, 1), groups=groups)[..., 0]


STEPS: list[Step] = [
    lambda p, rng, y, d, pool: regrouped(y, rng),
    lambda p, rng, y, d, pool: y.transpose(d, rng.randrange(1, y.dim())),
    lambda p, rng, y, d, pool: part(y, rng, d),
    lambda p, rng, y, d, pool: joined(y, d, pool, rng),
    lambda p, rng, y, d, pool: y + torch.sin(rng.choice([o for o in pool if o.shape == y.shape])),
    lambda p, rng, y, d, pool: multiplied(y, d),
    lambda p, rng, y, d, pool: torch.stack([y, torch.relu(y)], d),
    lambda p, rng, y, d, pool: y.unsqueeze(d).expand(*y.shape[:d], 3, *y.shape[d:]),
    lambda p, rng, y, d, pool: y.unflatten(d, (-1, 2))[(slice(None),) * (d + 1) + (1,)] if y.shape[d] % 2 == 0 else y,
    lambda p, rng, y, d, pool: y[(slice(None),) * d + (slice(1, None, 2),)] if y.shape[d] > 1 else y,
    lambda p, rng, y, d, pool: y.repeat([1 + (i == d) for i in range(y.dim())]),
    lambda p, rng, y, d, pool: y.unfold(d, min(2, y.shape[d]), 2),
    lambda p, rng, y, d, pool: written(y, d),
    lambda p, rng, y, d, pool: y.index_select(d, torch.tensor([rng.randrange(y.shape[d]) for _ in range(3)])),
    lambda p, rng, y, d, pool: y - y.mean(d, keepdim=True),
    lambda p, rng, y, d, pool: y * p.weight(*y.shape[d:]),
    lambda p, rng, y, d, pool: torch.tanh(F.linear(y.transpose(d, -1), p.weight(6, y.shape[d]))),
    lambda p, rng, y, d, pool: grouped(p, y, rng),
]


class RandomProgram(nn.Module):
    """The seed decides what happens; the first run makes the parameters that it needs."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed, self.weights = seed, nn.ParameterList()
        self.complete, self.used = False, 0
        self.forward(torch.randn(2, 3).double())
        self.complete = True

    def weight(self, *shape: int) -> Tensor:
        if not self.complete:
            self.weights.append(nn.Parameter(torch.randn(shape).double()))
        self.used += 1
        return self.weights[self.used - 1]

    def forward(self, x: Tensor) -> Tensor:
        rng, self.used = random.Random(self.seed), 0
        pool = [torch.tanh(F.linear(x, self.weight(rng.choice([6, 8, 12, 24]), 3))) for _ in range(2)]
        for _ in range(rng.randint(3, 9)):
            y = rng.choice(pool)
            if y.dim() > 1:
                y = rng.choice(STEPS)(self, rng, y, rng.randrange(1, y.dim()), pool)
            if 0 < y[0].numel() <= MAX_ELEMENTS:
                pool.append(y)
        ends = [torch.tanh(y.reshape(y.shape[0], -1)) for y in pool[-3:]]
        return sum((F.linear(y, self.weight(3, y.shape[1])) for y in ends), torch.zeros(()).double())


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_a_random_program_keeps_its_outputs_when_what_is_free_is_permuted(first: int) -> None:
    free = 0
    for seed in range(first, first + 10):
        graph = trace(RandomProgram(seed), torch.randn(2, 3).double())
        assert not graph.unknown_operators
        free += law(graph)
    assert free >= 10
