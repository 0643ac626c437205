"""The guarded step: every fault has one outcome, and none leaves a trace that was not asked for."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from contracts.state import fingerprint
from neuroexapt.errors import NonFiniteLossError, OutOfMemoryError
from neuroexapt.train.step import GuardedStep, is_out_of_memory
from train.faults import OutOfMemoryAt

ROUNDING = 1e-6  # float32: the order of summation over micro-batches


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1))


class Plain(nn.Module):
    """No batch norm and no dropout: a batch may be cut without changing the gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Watched:
    """A model with its optimizer and step, and what the step reported."""

    def __init__(
        self,
        model: Callable[[], nn.Module] = ConvNet,
        loss_function: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
        optimizer: Callable[[nn.Module], Optimizer] = lambda m: AdamW(m.parameters(), lr=0.01),
        clip_norm: float | None = 5.0,
    ) -> None:
        torch.manual_seed(0)
        self.model = model().train()
        self.optimizer = optimizer(self.model)
        self.reports: list[tuple[str, str]] = []
        self.step = GuardedStep(
            self.model, self.optimizer, loss_function, clip_norm, 3, lambda *report: self.reports.append(report)
        )

    def state(self) -> dict[str, Any]:
        found = fingerprint(self.model, self.optimizer)
        found["tensors"] = {name: value[1:] for name, value in found["tensors"].items()}
        found["groups"] = [settings for _, settings in found["groups"]]
        found["state"] = list(found["state"].values())
        return found


def batch(seed: int, size: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 1, 4, 4, generator=generator), torch.randint(3, (size,), generator=generator)


@pytest.fixture(autouse=True)
def fixture_global_generator_is_put_back() -> Any:
    gc.freeze()  # what other tests left behind need not be searched after every fault
    with torch.random.fork_rng():
        yield
    gc.unfreeze()


def test_out_of_memory_at_any_operator_of_forward_and_backward_changes_nothing() -> None:
    control = Watched()
    control.step(*batch(0))
    inputs, labels = batch(1)
    with OutOfMemoryAt() as counter:
        outcome = control.step._try_gradients(inputs, labels)
    assert not isinstance(outcome, str)
    control = Watched()
    for seed in (0, 1):
        expected = control.step(*batch(seed))
    assert counter.count > 30
    for failing in range(counter.count):
        watched = Watched()
        watched.step(*batch(0))
        buffers = len(list(watched.model.buffers()))  # their copies are made first
        with OutOfMemoryAt(failing + buffers):
            result = watched.step(inputs, labels)
        assert result == expected
        assert watched.state() == control.state(), f"operator {failing}"
        assert [action for _, action in watched.reports] == ["memory was freed and the batch is tried again"]
        assert watched.step.state_dict()["num_micro_batches"] == 1


def test_a_plain_retry_would_differ_so_the_test_above_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    control, watched = Watched(), Watched()
    inputs, labels = batch(1)
    control.step(inputs, labels)
    monkeypatch.setattr("neuroexapt.train.step.RestorePoint.restore", lambda self: None)
    with OutOfMemoryAt(30):
        watched.step(inputs, labels)
    assert watched.state() != control.state()


@pytest.mark.parametrize("size", [12, 7, 2])
@pytest.mark.parametrize("parts", [2, 3, 5])
def test_micro_batches_give_the_gradient_of_the_whole_batch(size: int, parts: int) -> None:
    rate_one: Callable[[nn.Module], Optimizer] = lambda m: SGD(m.parameters(), lr=1.0)  # noqa: E731
    whole, cut = (Watched(Plain, optimizer=rate_one, clip_norm=None) for _ in range(2))
    cut.step.load_state_dict({"num_micro_batches": parts, "num_bad_batches": 0})
    first, second = whole.step(*batch(0, size)), cut.step(*batch(0, size))
    assert second.loss == pytest.approx(first.loss, rel=ROUNDING)
    for a, b in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        assert (a - b).abs().max() <= ROUNDING


def too_large_for(samples: int) -> type[nn.Module]:
    class Hungry(Plain):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > samples:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return super().forward(x)

    return Hungry


def test_a_batch_that_does_not_fit_is_cut_until_it_does_and_stays_cut() -> None:
    control, watched = Watched(Plain), Watched(too_large_for(4))
    control.step(*batch(0))
    watched.step(*batch(0))
    assert [action for _, action in watched.reports] == [
        "memory was freed and the batch is tried again",
        "the batch is tried again in 2 micro-batches",
        "the batch is tried again in 4 micro-batches",
    ]
    assert "RuntimeError: [enforce fail]" in watched.reports[0][0]
    for a, b in zip(control.model.parameters(), watched.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=ROUNDING)
    watched.step(*batch(1))
    assert len(watched.reports) == 3
    assert watched.step.state_dict() == {"num_micro_batches": 4, "num_bad_batches": 0}


def test_no_micro_batch_has_one_sample_because_batch_norm_needs_two() -> None:
    sizes: list[int] = []

    class Noted(ConvNet):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().forward(x)

    watched = Watched(Noted)
    watched.step.load_state_dict({"num_micro_batches": 50, "num_bad_batches": 0})
    watched.step(*batch(0, 7))
    assert sizes == [3, 2, 2]


def test_a_batch_that_never_fits_ends_the_run_and_leaves_everything_as_it_was() -> None:
    watched = Watched(too_large_for(1))
    before = watched.state()
    with pytest.raises(OutOfMemoryError, match=r"can't allocate memory. A micro-batch of 2 samples does not fit. Use"):
        watched.step(*batch(0))
    assert watched.state() == before


class Sometimes:
    """A loss that is not finite while ``bad`` is set."""

    def __init__(self) -> None:
        self.bad: float | None = None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, labels)
        return loss if self.bad is None else loss * self.bad


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_batch_whose_loss_is_not_finite_is_skipped_without_a_trace(bad: float) -> None:
    loss_function = Sometimes()
    watched = Watched(loss_function=loss_function)
    watched.step(*batch(0))
    before = watched.state()
    loss_function.bad = bad
    result = watched.step(*batch(1))
    assert not result.was_applied
    assert watched.state() == before
    assert [action for _, action in watched.reports] == ["the batch was skipped"]


def test_a_finite_loss_with_an_infinite_gradient_is_skipped_too() -> None:
    class Root(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + (x.flatten(1)[:, :3] * self.layers[1].weight[0, 0] * 0).abs().sqrt()

    watched = Watched(Root)
    before = watched.state()
    result = watched.step(*batch(0))
    assert math.isfinite(result.loss)
    assert not result.was_applied
    assert watched.state() == before


def test_too_many_bad_batches_in_a_row_end_the_run_and_a_good_one_starts_the_count_again() -> None:
    loss_function = Sometimes()
    watched = Watched(loss_function=loss_function)
    for seed, bad in enumerate([math.nan, math.nan, None, math.nan, math.nan]):
        loss_function.bad = bad
        watched.step(*batch(seed))
    before = watched.state()
    with pytest.raises(NonFiniteLossError, match=r"3 batches in a row gave a loss .* lower learning rate"):
        watched.step(*batch(9))
    assert watched.state() == before


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.1 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("could not create a primitive"),
    ],
    ids=lambda error: str(error)[:20] or "MemoryError",
)
def test_every_way_to_say_out_of_memory_is_understood(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("x"), KeyError("out of memory")]
)
def test_other_errors_pass_through_untouched(error: Exception) -> None:
    class Broken(Plain):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    assert not is_out_of_memory(error)
    watched = Watched(Broken)
    with pytest.raises(type(error)) as caught:
        watched.step(*batch(0))
    assert caught.value is error
    assert not watched.reports


def test_a_failure_inside_the_optimizer_ends_the_run() -> None:
    def failing_adamw(model: nn.Module) -> Optimizer:
        class Failing(AdamW):
            def step(self, closure: Any = None) -> Any:
                raise MemoryError("no room for the moments")

        return Failing(model.parameters())

    watched = Watched(optimizer=failing_adamw)
    with pytest.raises(OutOfMemoryError, match=r"optimizer step: no room for the moments.* Resume it"):
        watched.step(*batch(0))


def test_a_buffer_that_the_forward_replaces_comes_back_too() -> None:
    class Counting(Plain):
        seen: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))
            self.register_buffer("none", None)

        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.seen + len(x)
            return super().forward(x)

    loss_function = Sometimes()
    watched = Watched(Counting, loss_function)
    buffer = watched.model.seen
    loss_function.bad = math.nan
    watched.step(*batch(0))
    assert watched.model.seen is buffer
    assert float(buffer) == 0


def test_nothing_of_a_failed_attempt_is_kept_alive() -> None:
    alive: list[Any] = []

    class Leaky(too_large_for(6)):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            hidden = self.layers[1](x.flatten(1))
            alive.append(weakref.ref(hidden))
            return super().forward(x)

    watched = Watched(Leaky)
    watched.step(*batch(0))
    assert len(alive) == 4
    assert [ref() for ref in alive] == [None] * 4
