"""Edits keep the kind of a model's tensors: dtype, device, memory format, complex numbers, no numbers at all."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from contracts.networks import batch, build
from neuroexapt.errors import InputError
from neuroexapt.surgery import InsertLayer, Lineage, Surgeon, Widen, replay

EDITS = (Widen(axis="features.0", to=9), InsertLayer(site="features.5"))


def test_a_model_on_the_meta_device_gets_its_structure_edited_and_nothing_verified() -> None:
    model = build("conv_bn").to("meta")
    surgeon = Surgeon(model, batch())
    for edit in EDITS:
        patch = surgeon.apply(edit)
        assert math.isnan(patch.output_change)
        assert not patch.verified_in_train_mode
    assert all(t.is_meta for t in model.state_dict().values())
    assert patch.parameter_delta > 0
    surgeon.revert(patch)
    assert model.features[0].weight.shape[0] == 9


def test_a_grown_checkpoint_opens_in_a_seed_model_on_the_meta_device() -> None:
    grown = build("conv_bn").eval()
    surgeon = Surgeon(grown, batch())
    for edit in EDITS:
        surgeon.apply(edit)
    seed_model = build("conv_bn").to("meta").eval()
    replay(seed_model, Lineage.from_json(surgeon.lineage.to_json()), batch())
    seed_model.load_state_dict(grown.state_dict(), strict=True, assign=True)
    with torch.no_grad():
        assert torch.equal(seed_model(batch()), grown(batch()))


def test_a_model_that_is_on_the_meta_device_in_part_is_refused() -> None:
    model = build("conv_bn")
    model.head.to("meta")
    with pytest.raises(InputError, match=r"head\.weight: found on the meta device while features\.0\.weight is not"):
        Surgeon(model, batch())


def test_complex_models_are_edited_and_verified_on_complex_outputs() -> None:
    model = nn.Sequential(nn.Linear(4, 6, dtype=torch.complex128), nn.Tanh(), nn.Linear(6, 3, dtype=torch.complex128))
    optimizer = AdamW(model.parameters())
    x = torch.randn(5, 4, dtype=torch.complex128)
    model(x).abs().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    surgeon = Surgeon(model, x, optimizer)
    assert surgeon.apply(Widen(axis="0", to=9)).output_change <= 1e-10
    new = model[0].weight.detach()[6:]
    assert new.imag.abs().min() > 0
    assert {p.dtype for p in model.parameters()} == {torch.complex128}
    assert {s["exp_avg"].shape for s in optimizer.state.values()} == {p.shape for p in model.parameters()}


def test_layers_of_several_dtypes_keep_their_own() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 6, dtype=torch.bfloat16), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(torch.relu(self.up(x.bfloat16())).float())

    model = Mixed()
    Surgeon(model, torch.randn(2, 4)).apply(Widen(axis="up", to=9))
    assert (model.up.weight.dtype, model.down.weight.dtype) == (torch.bfloat16, torch.float32)
    assert model.down.weight.shape == (3, 9)


def test_volumes_in_channels_last_order_stay_so() -> None:
    model = nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 3, padding=1), nn.AdaptiveAvgPool3d(1), nn.Flatten()
    ).to(memory_format=torch.channels_last_3d)
    optimizer = AdamW(model.parameters())
    model(torch.randn(2, 2, 4, 4, 4)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    Surgeon(model, torch.randn(2, 2, 4, 4, 4), optimizer).apply(Widen(axis="0", to=7))
    for weight in (model[0].weight, model[2].weight):
        for tensor in (weight, optimizer.state[weight]["exp_avg"]):
            assert tensor.is_contiguous(memory_format=torch.channels_last_3d)


def test_tensors_made_in_inference_mode_are_edited_too() -> None:
    with torch.inference_mode():
        model = build("conv_bn")
    assert Surgeon(model, batch()).apply(EDITS[0]).output_change <= 1e-10


def test_buffers_that_are_not_saved_stay_unsaved_and_odd_attributes_stay() -> None:
    class Scaled(nn.Module):
        __slots__ = ("note",)

        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)
            self.register_buffer("gain", torch.rand(6) + 1, persistent=False)
            self.note = {"rows": [1, 2]}

        def forward(self, x: Tensor) -> Tensor:
            return self.down(torch.relu(self.up(x)) * self.gain)

    model = Scaled()
    gain, note = model.gain, model.note
    Surgeon(model, torch.randn(2, 4)).apply(Widen(axis="up", to=9))
    assert model.gain is gain
    assert gain.shape == (9,)
    assert "gain" not in model.state_dict()
    assert model.note is note


@pytest.mark.gpu
def test_models_and_state_on_an_accelerator_stay_there() -> None:
    model = build("conv_bn", torch.float32).cuda()
    optimizer = AdamW(model.parameters(), fused=True, capturable=True)
    inputs = batch(torch.float32).cuda()
    surgeon = Surgeon(model, inputs, optimizer)
    for edit in EDITS:
        model(inputs).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert surgeon.apply(edit).output_change <= 1e-5
    model(inputs).sum().backward()
    optimizer.step()
    assert {t.device.type for t in model.state_dict().values()} == {"cuda"}
    assert {v.device.type for s in optimizer.state.values() for v in s.values()} == {"cuda"}
