"""Edits of all kinds one after another, at random: what holds for one must hold for many."""

from __future__ import annotations

import pytest
import torch
from survey.sequence import run_sequence

from zoo.small_models import batch, build


@pytest.mark.parametrize("name", [pytest.param("torchvision_mobilenet_v3", marks=pytest.mark.slow), "timm_vit"])
def test_a_random_sequence_stays_exact_reverts_to_the_first_bit_replays_and_trains(name: str) -> None:
    model = build(name, torch.float32)
    found = run_sequence(model, batch(name, torch.float32, 1), batch(name, torch.float32, 2), length=6, seed=3)
    assert len(found.edits) == 6
    assert abs(found.product - 1) <= 1e-4
    assert found.unseen_change <= 1e-4
    assert found.is_reverted
    assert found.is_replayed
    assert found.is_sound


def test_so_does_one_that_also_prunes_and_removes_apart_from_being_exact() -> None:
    name = "torchvision_convnext"
    model = build(name, torch.float32)
    inputs, unseen = batch(name, torch.float32, 1), batch(name, torch.float32, 2)
    found = run_sequence(model, inputs, unseen, length=6, seed=1, only_exact=False)
    assert found.kinds.keys() & {"PruneUnits", "PruneWeights", "RemoveLayer"}
    assert found.unseen_change > 1e-4
    assert found.is_sound
