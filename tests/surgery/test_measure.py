"""What flows through a model is measured within a stated number of bytes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neuroexapt.graph import trace
from neuroexapt.surgery.checking import measure as measuring

NUM_BYTES = 1024


@pytest.mark.parametrize("gradients", [False, True])
def test_no_more_storage_is_kept_of_a_tensor_than_the_bound(gradients: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MAX_ACTIVATION_BYTES", NUM_BYTES)
    model, data = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(64, 16)

    def objective(some: nn.Module) -> Tensor:
        return some(data).square().mean()

    seen = measuring.measure(trace(model, data[:2], objective), ("0", "2"), gradients=gradients)
    kept = [*seen.inputs.values(), *seen.outputs.values(), *seen.output_gradients.values()]
    assert len(kept) == (6 if gradients else 4)
    assert [t.untyped_storage().nbytes() for t in kept if t.untyped_storage().nbytes() > NUM_BYTES] == []
    assert torch.equal(seen.inputs["0"], data[:16])
