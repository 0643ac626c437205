"""Shrinking is as natural as growing: what is larger than the data need gets smaller, what is needed stays."""

from __future__ import annotations

from typing import Any

import torch

from morphogenesis.stepwise import Net, StepLoop


def pruned(width: int, after: int = 16, **settings: Any) -> tuple[int, list[bool]]:
    torch.manual_seed(0)
    loop = StepLoop(
        model=Net(width),
        kinds=("PruneUnits",),
        first_epoch=float(after),
        trial_epochs=6.0,
        widen_ratio=2.0,
        max_events=1,
        ban_epochs=100.0,
        **({"cost_weight": 0.1} | settings),
    )
    loop.until(after + 7)
    return loop.model.first.out_features, [event.accepted for event in loop.verdicts()]


def test_a_network_that_is_larger_than_needed_gets_smaller_for_what_it_saves() -> None:
    width, accepted = pruned(48)
    assert width < 48
    assert accepted[0]


def test_units_come_back_where_more_is_asked_for() -> None:
    width, accepted = pruned(48, min_gain=0.2)
    assert width == 48
    assert accepted == [False]
