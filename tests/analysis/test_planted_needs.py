"""What is planted in a trained network is found: a layer that is too narrow among wide ones."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neuroexapt.analysis import bottlenecks, measure_evidence
from neuroexapt.config import EvidenceConfig

ESTIMATORS = ("rank", "redundancy", "sensitivity", "expressivity")


def trained(widths: list[int], seed: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network that was trained on the labels of a random one, and its data."""
    torch.manual_seed(seed)
    inputs = torch.randn(384, 24)
    labels = (torch.tanh(inputs @ torch.randn(24, 32) * 0.4) @ torch.randn(32, 6)).argmax(1)
    sizes = [24, *widths]
    hidden = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(sizes[-1], 6))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(100):
        rows = torch.arange(64) + 64 * (step % 6)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[rows]), labels[rows]).backward()
        optimizer.step()
    return model, inputs, labels


@pytest.mark.parametrize("place", [1, 2])
def test_a_layer_that_is_too_narrow_stands_out_as_the_one_that_wants_to_be_wider(place: int) -> None:
    widths = [40, 40, 40, 40]
    widths[place] = 4
    model, inputs, labels = trained(widths, seed=0)
    settings = EvidenceConfig(num_samples=256, estimators=ESTIMATORS)
    report = bottlenecks(measure_evidence(model, [(inputs[:256], labels[:256])], config=settings))
    assert [la.path for la in report.layers if "wider" in la.needs and la.needs["wider"].is_raised] == [f"{2 * place}"]
