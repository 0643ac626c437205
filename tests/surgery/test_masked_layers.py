"""Layers under a pruning mask grow like others; the mask stays one of 0 and 1, and the weight carries the rest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neuroexapt.surgery import Mutation, PruneWeights, SplitUnits, Surgeon, Widen

EXACT = 1e-10  # float64, relative: summation order is all that may differ


def inputs(seed: int = 0) -> Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masked(layer: int) -> tuple[nn.Sequential, Surgeon]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 7), nn.GELU(), nn.Linear(7, 3)).double()
    surgeon = Surgeon(model, inputs(), objective=lambda m: m(inputs()).square().mean())
    surgeon.apply(PruneWeights(layer=str(layer), amount=0.5))
    return model, surgeon


GROWTH: dict[str, tuple[int, Mutation]] = {
    "copies of what it reads": (2, Widen(axis="0", to=12, init="copy")),
    "silent units that it reads": (2, Widen(axis="0", to=12)),
    "pairs that it makes": (0, Widen(axis="0", to=12, init="pair")),
    "informed units that it makes": (0, Widen(axis="0", to=12, init="informed")),
    "halves of what it reads": (2, SplitUnits(axis="0", units=(1, 4))),
    "halves of what it makes": (0, SplitUnits(axis="0", units=(1, 4), mode="symmetric", perturbation=0.1)),
    "complements of what it makes": (0, SplitUnits(axis="0", units=(1, 4), mode="functional", perturbation=1.0)),
    "steepest halves of what it makes": (
        0,
        SplitUnits(axis="0", units=(1, 4), mode="symmetric", perturbation=0.1, direction="steepest"),
    ),
}


@pytest.mark.parametrize("name", GROWTH)
def test_growth_leaves_a_mask_of_zeros_and_ones_and_masks_no_new_weight(name: str) -> None:
    layer, mutation = GROWTH[name]
    model, surgeon = masked(layer)
    before, num_masked = model(inputs(7)).detach(), int((model[layer].weight_mask == 0).sum())
    patch = surgeon.apply(mutation)
    mask = model[layer].weight_mask
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    is_copied = isinstance(mutation, SplitUnits) or mutation.init == "copy"  # type: ignore[attr-defined]
    assert is_copied or int((mask == 0).sum()) == num_masked
    change = (model(inputs(7)) - before).detach().abs().max() / before.abs().max()
    assert change <= (EXACT if not patch.declared else 0.5)
