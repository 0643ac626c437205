"""The narrowest axis is found by evidence and widened as ``Widen`` does it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from contracts.networks import batch, build
from contracts.state import raw
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import trace
from neuroexapt.surgery import ExpandBottleneck, Surgeon, Widen, candidates
from neuroexapt.surgery.growth.bottlenecks import bottlenecks, effective_rank


class Chain(nn.Module):
    """Three hidden layers: the last is the narrowest, but the widest is the only one that is used in full."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(6, 12), nn.Linear(12, 9), nn.Linear(9, 5)
        self.head = nn.Linear(5, 3)
        with torch.no_grad():
            self.two.weight[1:] = self.two.weight[:1]
            self.two.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.three(torch.tanh(self.two(torch.tanh(self.one(x)))))))


def chain() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Chain().double(), 3 * torch.randn(256, 6, dtype=torch.float64)


def test_without_data_the_bottleneck_is_the_axis_that_is_narrow_beside_its_neighbours() -> None:
    model, x = chain()
    (found,) = bottlenecks(trace(model, x))
    assert (found.group.name, found.evidence) == ("three", "relative width")
    assert found.value == pytest.approx((5 + 5) / (9 + 3))


def test_with_data_the_bottleneck_is_the_axis_that_is_used_most_fully() -> None:
    model, x = chain()
    (found,) = bottlenecks(trace(model, x, lambda m: m(x).square().mean()))
    with torch.no_grad():
        hidden = torch.tanh(model.one(x))
    assert (found.group.name, found.evidence) == ("one", "effective rank")
    assert found.value == pytest.approx(effective_rank(hidden) / 12, abs=1e-6)


def test_the_effective_rank_counts_directions_of_equal_weight() -> None:
    basis = torch.linalg.qr(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double())[0]
    basis = torch.linalg.qr(basis - basis.mean(0))[0]
    assert effective_rank(basis[:, :4] @ torch.eye(4, 7, dtype=torch.float64)) == pytest.approx(4, abs=1e-6)
    assert effective_rank(torch.ones(5, 3)) == 0


def test_it_is_the_same_edit_as_widening_that_axis() -> None:
    one, other = build("mlp"), build("mlp")
    (mutation,) = candidates(trace(one, batch()), ["ExpandBottleneck"])
    assert isinstance(mutation, ExpandBottleneck)
    Surgeon(one, batch()).apply(mutation)
    Surgeon(other, batch()).apply(Widen(axis=mutation.axis, to=mutation.to))
    assert [raw(t) for t in one.state_dict().values()] == [raw(t) for t in other.state_dict().values()]


def test_the_evidence_is_told_and_a_block_that_does_not_make_the_axis_is_refused() -> None:
    graph = trace(build("mlp"), batch())
    mutation = ExpandBottleneck(axis="layers.1", to=12, block="layers", evidence="effective rank", value=0.93)
    told = "widen layers.1, the bottleneck of layers (effective rank 0.93), from 10 to 12"
    assert mutation.describe(graph) == told
    with pytest.raises(SurgeryError, match=r"layers.1: is made by layers.1, needed one inside blocks"):
        ExpandBottleneck(axis="layers.1", to=12, block="blocks").plan(graph, torch.Generator())
    with pytest.raises(ValueError, match="needs block: str and evidence: one of effective rank"):
        ExpandBottleneck(axis="layers.1", to=12, block="layers", evidence="guess")
