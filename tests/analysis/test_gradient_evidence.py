"""Evidence: unbiased, within its spread, bounded in memory, and without a trace in what it looks at."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from contracts.state import fingerprint
from neuroexapt.analysis import gradient_evidence
from neuroexapt.errors import InputError, NonFiniteLossError

FEATURES, SAMPLES, NUM_BATCHES = 6, 8, 6
MEAN = torch.tensor([0.3, -0.2, 0.0, 0.1, 0.0, 0.0])  # the expected gradient
NOISE = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 0.0])  # its standard deviation, per sample


class Linear(nn.Module):
    """With the loss ``mean(w . x)`` the gradient is the mean of the inputs, so its distribution is known."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(FEATURES))
        self.unused = nn.Parameter(torch.ones(4))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w + self.frozen.sum()


def mean_output(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.mean()


def known(seed: int, num_batches: int = NUM_BATCHES) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_batches):
        yield MEAN + NOISE * torch.randn(SAMPLES, FEATURES, generator=generator), torch.zeros(SAMPLES)


def test_the_estimate_is_unbiased_and_its_spread_is_what_it_says() -> None:
    draws = [gradient_evidence(Linear(), known(seed), mean_output, {"w": None}) for seed in range(400)]
    values = torch.tensor([draw.value for draw in draws], dtype=torch.float64)
    truth = float(MEAN.square().sum())
    standard_error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - truth) < 3 * standard_error
    stated = math.sqrt(sum(draw.spread**2 for draw in draws) / len(draws))
    assert 0.8 * float(values.std()) < stated < 1.6 * float(values.std())  # the jackknife errs on the large side


def test_the_squared_norm_of_the_mean_would_be_biased_by_the_noise() -> None:
    naive = [float(torch.cat([x for x, _ in known(seed)]).mean(0).square().sum()) for seed in range(400)]
    truth = float(MEAN.square().sum())
    bias = float(NOISE.square().sum()) / (SAMPLES * NUM_BATCHES)
    assert sum(naive) / len(naive) == pytest.approx(truth + bias, rel=0.1)
    assert bias > truth


def test_a_mask_chooses_entries_and_the_figures_are_counted() -> None:
    mask = torch.tensor([True, True, False, False, False, False])
    found = gradient_evidence(Linear(), known(0), mean_output, {"w": mask})
    rows = torch.stack([x.mean(0)[:2] for x, _ in known(0)]).double()
    products = rows @ rows.T
    needed = float(products.sum() - products.trace()) / (NUM_BATCHES * (NUM_BATCHES - 1))
    assert found.value == pytest.approx(needed, rel=1e-5)
    assert (found.num_samples, found.num_bytes) == (SAMPLES * NUM_BATCHES, NUM_BATCHES * 2 * 4)


def test_a_parameter_that_the_loss_does_not_use_has_no_evidence() -> None:
    found = gradient_evidence(Linear(), known(0), mean_output, {"unused": None})
    assert (found.value, found.spread, found.num_samples, found.num_bytes) == (0.0, 0.0, 48, 96)


def test_two_batches_give_a_value_without_a_spread() -> None:
    found = gradient_evidence(Linear(), known(0, 2), mean_output, {"w": None})
    assert found.spread == math.inf
    assert math.isfinite(found.value)


@pytest.mark.parametrize(
    ("num_batches", "entries", "message"),
    [
        (0, {"w": None}, r"found 0 batches, needed at least 2"),
        (1, {"w": None}, r"found 1 batches, needed at least 2"),
        (3, {}, r"found no trainable entry"),
        (3, {"frozen": None}, r"found no trainable entry"),
        (3, {"w": torch.zeros(FEATURES, dtype=torch.bool)}, r"found no trainable entry"),
        (3, {"v": None}, r"Linear has no parameter v\. Use model.named_parameters"),
    ],
)
def test_what_cannot_be_estimated_is_refused(num_batches: int, entries: dict[str, Tensor | None], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gradient_evidence(Linear(), known(0, num_batches), mean_output, entries)


def test_the_bound_is_checked_before_a_gradient_is_computed() -> None:
    calls: list[int] = []

    def counted(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        return outputs.mean()

    bytes_of_three = 3 * FEATURES * 4
    with pytest.raises(InputError, match=r"evidence: 4 gradients of 6 entries take 96 bytes, allowed are 72"):
        gradient_evidence(Linear(), known(0), counted, {"w": None}, max_bytes=bytes_of_three)
    assert len(calls) == 3
    with pytest.raises(InputError, match=r"evidence: 2 gradients of 6 entries take 48 bytes, allowed are 47"):
        gradient_evidence(Linear(), known(0), counted, {"w": None}, max_bytes=47)
    assert len(calls) == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_named(bad: float) -> None:
    batches = [(x * bad, y) for x, y in known(0)]
    with pytest.raises(NonFiniteLossError, match=r"evidence: w: its gradient is not finite"):
        gradient_evidence(Linear(), batches, mean_output, {"unused": None, "w": None})


class Noisy(nn.Module):
    """The gradient of ``w`` is dropout noise around zero."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(50))
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x).sum() * 0 + ((self.drop(torch.ones(50)) - 1) * self.w).sum()


def test_dropout_is_noise_and_not_read_as_signal() -> None:
    draws = []
    for seed in range(40):
        torch.manual_seed(seed)
        batches = [(torch.ones(2, 3), torch.zeros(2))] * 8
        draws.append(gradient_evidence(Noisy(), batches, mean_output, {"w": None}).value)
    values = torch.tensor(draws)
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(len(draws))  # one mask for all would give 50


@pytest.mark.parametrize("training", [True, False])
def test_looking_leaves_no_trace(training: bool) -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1)).train(training)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = fingerprint(model, optimizer)
    gradient_evidence(model, known(0), mean_output, {"0.weight": None})
    assert fingerprint(model, optimizer) == before
    with pytest.raises(NonFiniteLossError, match=r"0\.weight"):
        gradient_evidence(model, [(x * math.nan, y) for x, y in known(0)], mean_output, {"0.weight": None})
    assert fingerprint(model, optimizer) == before


def test_the_estimator_holds_what_it_says_and_no_graph() -> None:
    alive = []

    def watched(outputs: Tensor, targets: Tensor) -> Tensor:
        alive.append(weakref.ref(outputs))
        assert sum(reference() is not None for reference in alive) == 1
        return outputs.mean()

    gradient_evidence(Linear(), known(0, 50), watched, {"w": None})
    assert all(reference() is None for reference in alive)
