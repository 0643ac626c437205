"""The bytes of an analysis: stated before, kept during, the same however many batches come."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import neuroexapt.analysis.measuring as measuring
import neuroexapt.analysis.watching.positions as positions
from neuroexapt.analysis import measure_evidence
from neuroexapt.analysis.watching import Watched, watch, watched_layers
from neuroexapt.config import EvidenceConfig
from neuroexapt.errors import BudgetError
from neuroexapt.graph import trace
from neuroexapt.resources import LiveStorages

ALLOWANCE = 1.1  # of a budget
VIEWS = frozenset({"pooled", "relevance", "inputs", "gradients", "weight_gradients", "targets"})


class Net(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(2, 24, 3), nn.ReLU(), nn.Conv2d(24, 20, 3), nn.Flatten(), nn.Linear(20 * 16, 3))


def batches(count: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield torch.randn(size, 2, 8, 8, generator=generator), torch.arange(size) % 3


def seen(count: int, num_samples: int, max_bytes: int = 16 << 20) -> Watched:
    model = Net()
    layers, _ = watched_layers(trace(model, next(batches(1, 4))[0]))
    limits = {"num_samples": num_samples, "max_bytes": max_bytes}
    return watch(model, layers, batches(count, 4), F.cross_entropy, views=VIEWS, seed=0, **limits)


def test_a_thousand_batches_take_the_bytes_of_the_samples_that_were_asked_for() -> None:
    few, many = seen(16, 64), seen(1000, 64)
    assert [s.num_bytes for s in few.samples.values()] == [s.num_bytes for s in many.samples.values()]
    assert all(torch.equal(few.samples[p].features, many.samples[p].features) for p in few.samples)


def test_rows_take_at_most_half_of_a_small_budget_and_samples_give_way() -> None:
    budget = 200_000
    for path, sample in seen(100, 400, budget).samples.items():
        assert 16 <= len(sample) < 400, path
        assert sample.num_bytes <= budget // 2, path


def test_what_is_alive_at_the_peak_is_the_rows_and_a_chunk_more_than_the_passes_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(positions, "CHUNK_BYTES", 1 << 16)

    def peak(views: frozenset[str]) -> int:
        model = Net()
        layers, _ = watched_layers(trace(model, next(batches(1, 4))[0]))
        with LiveStorages() as live:
            found = watch(
                model, layers, batches(1, 256), F.cross_entropy, num_samples=256, max_bytes=1 << 22, views=views, seed=0
            )
        sizes.append(sum(s.num_bytes for s in found.samples.values()))
        return live.peak_bytes

    sizes: list[int] = []
    alone, together = peak(frozenset({"gradients"})), peak(VIEWS)
    assert together - alone <= ALLOWANCE * (sizes[1] - sizes[0]) + (2 << 16)


def test_a_budget_without_room_for_a_few_samples_is_refused_before_a_batch_is_read() -> None:
    def untouchable() -> Iterator[tuple[Tensor, Tensor]]:
        raise AssertionError("a batch was read")
        yield

    model = Net()
    layers, _ = watched_layers(trace(model, next(batches(1, 4))[0]))
    with pytest.raises(BudgetError, match=r"0: 16 samples of 24 units take \d+ bytes.*allowed are 999"):
        watch(model, layers, untouchable(), F.cross_entropy, num_samples=64, max_bytes=999, views=VIEWS, seed=0)


def test_a_big_activation_is_noted_with_what_was_done_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BIG", 4 * 24 * 36 - 1)
    evidence = measure_evidence(Net(), batches(8, 4), config=EvidenceConfig(num_samples=32))
    (note,) = evidence.notes
    assert note.startswith("0: one activation has 3,456 elements; 32 rows of 24 units were read off it, ")
