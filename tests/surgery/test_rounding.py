"""A badly conditioned model may round more; a wrong edit is still refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import neuroexapt.surgery.growth.widening as widening
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ExampleInputs
from neuroexapt.surgery import Surgeon, Widen
from neuroexapt.surgery.checking.verify import MAX_ROUNDING, TOLERANCE, observe, rounding_allowance


class Cancelling(nn.Module):
    """The difference of two layers that differ by ``apart``: a rounding of 1e-7 becomes one of 1e-7 / ``apart``."""

    def __init__(self, apart: float) -> None:
        super().__init__()
        self.up, self.down, self.other = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(16, 4)
        with torch.no_grad():
            for mine, its in zip(self.other.parameters(), self.down.parameters(), strict=True):
                mine.copy_(its * (1 - apart))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.up(x))
        return self.down(y) - self.other(y)


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


def test_a_well_conditioned_model_is_allowed_next_to_nothing(inputs: Tensor) -> None:
    torch.manual_seed(0)
    model, probe = Cancelling(1.0), ExampleInputs.of(inputs)
    assert rounding_allowance(observe(model, probe), model, probe) < TOLERANCE[torch.float32]


def test_a_badly_conditioned_model_is_allowed_what_its_roundings_explain_and_no_more(inputs: Tensor) -> None:
    torch.manual_seed(0)
    model, probe = Cancelling(1e-3), ExampleInputs.of(inputs)
    allowed = rounding_allowance(observe(model, probe), model, probe)
    assert TOLERANCE[torch.float32] < allowed <= MAX_ROUNDING * TOLERANCE[torch.float32]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert Surgeon(model, inputs).apply(Widen(axis="up", to=19)).output_change <= allowed
    assert torch.equal(model.up.weight[:16], before["up.weight"])


def test_a_wrong_edit_is_refused_however_badly_conditioned_the_model(
    inputs: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = widening.tensor_edits

    def without_the_last(*arguments):  # type: ignore[no-untyped-def]
        return tuple(e for e in original(*arguments) if e.path != "up.bias")

    torch.manual_seed(0)
    model = Cancelling(1e-3)
    monkeypatch.setattr(widening, "tensor_edits", without_the_last)
    with pytest.raises(SurgeryError, match="The edit was taken back"):
        Surgeon(model, inputs).apply(Widen(axis="up", to=19))
