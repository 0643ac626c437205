"""Which layers an edit at a place acts on: needs are of layers, and places may be axes or modules without weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuroexapt.graph import trace
from neuroexapt.models import SmallResNet
from neuroexapt.morphogenesis.needs import layers_at


@pytest.mark.parametrize(
    ("place", "layers"),
    [
        ("stem.0", {"stem.0"}),
        ("stem.2", {"stem.0"}),
        ("blocks.1.relu1", {"blocks.1.conv1"}),
        ("blocks.1.relu2", {"blocks.1.conv2", "blocks.1.shortcut.0"}),
        ("head", {"head"}),
    ],
)
def test_a_place_leads_to_the_layers_that_make_what_comes_out_of_it(place: str, layers: set[str]) -> None:
    model = SmallResNet(in_channels=1, num_classes=10, stem_width=5)
    graph = trace(model, torch.randn(2, 1, 8, 8))
    weighted = {path for path, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert layers_at(graph, place) & weighted == layers
