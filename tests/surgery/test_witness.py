"""What was seen after an edit is not all run again before the next, and is not trusted further than it reaches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

import neuroexapt.surgery.checking.verify as verify
import neuroexapt.surgery.checking.witness as witness
from contracts.networks import batch, build
from neuroexapt.errors import SurgeryError
from neuroexapt.surgery import Surgeon, Widen

FIRST, SECOND = Widen(axis="features.0", to=9), Widen(axis="features.3", to=9)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for every time that a model is run for verification: whether in train mode."""
    seen: list[bool] = []
    original = verify._outputs

    def outputs(model, inputs, training):  # type: ignore[no-untyped-def]
        seen.append(training)
        return original(model, inputs, training)

    monkeypatch.setattr(verify, "_outputs", outputs)
    return seen


def test_edits_in_a_row_and_edits_tried_one_after_another_run_train_mode_once_each(runs: list[bool]) -> None:
    surgeon = Surgeon(build("conv_bn"), batch())
    for mutation in (FIRST, SECOND):
        surgeon.revert(surgeon.apply(mutation))
    surgeon.apply(FIRST)
    surgeon.apply(SECOND)
    assert runs.count(True) == 1 + 4


@pytest.mark.parametrize("what", ["parameter", "buffer", "input", "replaced"])
def test_whatever_was_written_to_is_looked_at_again(runs: list[bool], what: str) -> None:
    model, inputs = build("conv_bn"), batch()
    surgeon = Surgeon(model, inputs)
    surgeon.apply(FIRST)
    with torch.no_grad():
        if what == "parameter":
            model.head.weight.mul_(2.0)
        elif what == "buffer":
            model.features[1].running_mean.add_(1.0)
        elif what == "input":
            inputs.add_(1.0)
        else:
            model.head.bias = nn.Parameter(torch.ones_like(model.head.bias))
    assert surgeon.apply(SECOND).output_change <= 1e-10
    assert runs.count(True) == 2 + 2


@pytest.mark.parametrize("what", ["data", "attribute"])
def test_a_write_that_hides_neither_makes_an_edit_fail_nor_a_wrong_one_pass(runs: list[bool], what: str) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.scale = build("conv_bn"), 1.0

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) * self.scale

    model = Scaled()
    surgeon = Surgeon(model, batch())
    surgeon.apply(Widen(axis="net.features.0", to=9))
    if what == "data":
        model.net.head.weight.data.mul_(2.0)  # type: ignore[union-attr,operator]
    else:
        model.scale = 3.0
    model.eval()
    with torch.no_grad():
        before = model(batch())
        assert surgeon.apply(Widen(axis="net.features.3", to=9)).output_change <= 1e-10
        assert (model(batch()) - before).abs().max() <= 1e-10 * before.abs().max()


def test_an_edit_that_fails_after_a_fresh_look_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("conv_bn")
    surgeon = Surgeon(model, batch(), SGD(model.parameters(), lr=0.1))
    surgeon.apply(FIRST)
    monkeypatch.setattr(witness, "tolerance_for", lambda model, outputs: -1.0)
    monkeypatch.setattr(witness, "rounding_allowance", lambda seen, model, inputs: -1.0)
    with pytest.raises(SurgeryError, match="changed the outputs by"):
        surgeon.apply(SECOND)
    assert model.head.in_features == 7


def test_a_graph_is_read_again_when_a_setting_of_a_module_has_changed() -> None:
    model = build("conv_bn")
    surgeon = Surgeon(model, batch())
    before = surgeon.graph
    model.eval()
    assert surgeon.graph is before
    model.features[1].eps = 0.5
    assert surgeon.graph is not before
