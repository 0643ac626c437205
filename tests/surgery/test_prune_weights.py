"""What pruning single weights promises: torch's own masks, the same parameter with its moments, exact permanence."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim import AdamW

from contracts.networks import batch, build
from contracts.state import fingerprint
from neuroexapt.errors import SurgeryError
from neuroexapt.surgery import InsertLayer, Lineage, PruneUnits, PruneWeights, Surgeon, Widen, parse, replay
from neuroexapt.surgery.mutations import MUTATIONS
from neuroexapt.surgery.writing import apply as writer

EXACT = 1e-10


def step(model: nn.Module, optimizer: AdamW) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(batch()), torch.arange(4) % 5).backward()
    optimizer.step()
    optimizer.zero_grad()


def output(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(batch())


def test_the_smallest_weights_are_masked_and_more_of_them_later() -> None:
    model = build("conv_bn")
    surgeon, conv = Surgeon(model, batch()), model.features[3]
    size, keys = conv.weight.detach().abs().clone(), list(model.state_dict())
    for amount in (0.25, 0.5):
        patch = surgeon.apply(PruneWeights(layer="features.3", amount=amount))
        assert patch.declared
        assert patch.parameter_delta == 0
        assert patch.added == ()
        gone = conv.weight_mask == 0
        assert int(gone.sum()) == round(amount * conv.weight.numel())
        assert size[gone].max() <= size[~gone].min()
        assert torch.equal(conv.weight, conv.weight_orig * conv.weight_mask)
    assert prune.is_pruned(conv)
    assert len(conv._forward_pre_hooks) == 1
    position = keys.index("features.3.weight")
    assert list(model.state_dict())[position] == "features.3.weight_orig"
    with pytest.raises(SurgeryError, match=r"found 189 of 378 weights masked already, needed fewer than 151"):
        surgeon.apply(PruneWeights(layer="features.3", amount=0.4))


def test_what_is_masked_stays_masked_whatever_else_becomes_zero() -> None:
    model = build("mlp")
    surgeon, layer = Surgeon(model, batch()), model.layers[3]
    surgeon.apply(PruneWeights(layer="layers.3", amount=0.2))
    before = layer.weight_mask.clone()
    with torch.no_grad():
        layer.weight_orig[:, :5] = 0.0
    surgeon.apply(PruneWeights(layer="layers.3", amount=0.4))
    assert not layer.weight_mask[before == 0].any()


def test_the_parameter_stays_the_same_object_with_its_moments_and_masked_weights_stay_zero() -> None:
    model = build("mlp")
    optimizer = AdamW(model.parameters(), lr=1e-2)
    step(model, optimizer)
    weight = model.layers[1].weight
    moments = optimizer.state[weight]["exp_avg"].clone()
    Surgeon(model, batch(), optimizer).apply(PruneWeights(layer="layers.1", amount=0.5))
    assert model.layers[1].weight_orig is weight
    assert torch.equal(optimizer.state[weight]["exp_avg"], moments)
    for _ in range(2):
        step(model, optimizer)
    output(model)
    assert int((model.layers[1].weight == 0).sum()) >= 960


def test_masks_become_permanent_to_the_bit_and_come_back() -> None:
    model = build("plain_conv")
    optimizer = AdamW(model.parameters(), lr=1e-2)
    step(model, optimizer)
    keys = list(model.state_dict())
    surgeon = Surgeon(model, batch(), optimizer)
    first = surgeon.apply(PruneWeights(layer="conv1", amount=0.4))
    surgeon.apply(PruneWeights(layer="conv1", amount=0.6))
    masked, before, weight = fingerprint(model, optimizer), output(model), model.conv1.weight.clone()
    patch = surgeon.apply(PruneWeights(layer="conv1", permanent=True))
    assert not patch.declared
    assert patch.output_change == 0.0
    assert torch.equal(output(model), before)
    assert torch.equal(model.conv1.weight, weight)
    assert list(model.state_dict()) == keys
    assert not prune.is_pruned(model)
    assert not model.conv1._forward_pre_hooks
    surgeon.revert(patch)
    assert fingerprint(model.train(), optimizer)["tensors"] == masked["tensors"]
    assert torch.equal(output(model), before)
    surgeon.revert(surgeon._applied[-1][0])
    surgeon.revert(first)
    assert list(model.state_dict()) == keys


def test_a_failure_after_the_mask_was_laid_on_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    original = writer.lay_on

    def fails(*arguments: object) -> None:
        original(*arguments)  # type: ignore[arg-type]
        raise RuntimeError("injected")

    for amount, permanent in ((0.5, False), (None, True)):
        model = build("plain_conv")
        optimizer = AdamW(model.parameters(), lr=1e-2)
        surgeon = Surgeon(model, batch(), optimizer)
        if permanent:
            surgeon.apply(PruneWeights(layer="conv2", amount=0.3))
        before = fingerprint(model, optimizer)
        edit = PruneWeights(layer="conv2", amount=amount, permanent=permanent)
        monkeypatch.setattr(writer, "lay_on", fails)
        with pytest.raises(RuntimeError, match="injected"):
            surgeon.apply(edit)
        monkeypatch.setattr(writer, "lay_on", original)
        assert fingerprint(model, optimizer) == before
        assert model(batch()).shape == (4, 5)


def test_the_ramp_is_zhu_and_guptas() -> None:
    values = PruneWeights.ramp(layer="head", final=0.8, num_steps=4, initial=0.1)
    assert [v.amount for v in values] == pytest.approx([0.8 - 0.7 * 0.421875, 0.8 - 0.7 * 0.125, 0.8 - 0.7 / 64, 0.8])
    model = build("mlp")
    surgeon = Surgeon(model, batch())
    for value in PruneWeights.ramp(layer="layers.3", final=0.6, num_steps=3):
        surgeon.apply(value)
    assert int((model.layers[3].weight_mask == 0).sum()) == 42
    with pytest.raises(ValueError, match="needs 0 <= initial < final < 1 and num_steps >= 1"):
        PruneWeights.ramp(layer="head", final=0.5, num_steps=2, initial=0.5)


def test_units_are_added_and_taken_under_a_mask_and_the_rest_of_it_stays() -> None:
    model = build("plain_conv")
    surgeon = Surgeon(model, batch())
    surgeon.apply(PruneWeights(layer="conv2", amount=0.5))
    mask, before = model.conv2.weight_mask.clone(), output(model)
    surgeon.apply(Widen(axis="conv1", to=8))
    assert (output(model) - before).abs().max() <= EXACT * before.abs().max()
    assert torch.equal(model.conv2.weight_mask[:, :6], mask)
    assert bool((model.conv2.weight_mask[:, 6:] == 1).all())
    surgeon.apply(PruneUnits(axis="conv1", units=(0, 7)))
    assert torch.equal(model.conv2.weight_mask[:, :5], mask[:, 1:])
    assert model(batch()).shape == (4, 5)


def test_an_average_gets_the_models_mask_over_its_own_weights() -> None:
    model = build("mlp")
    average = copy.deepcopy(model)
    with torch.no_grad():
        average.layers[1].weight.copy_(average.layers[1].weight.flip(0) * 0.5)
    own = average.layers[1].weight.clone()
    surgeon = Surgeon(model, batch(), averages=average)
    surgeon.apply(PruneWeights(layer="layers.1", amount=0.5))
    assert torch.equal(average.layers[1].weight_mask, model.layers[1].weight_mask)
    assert torch.equal(average.layers[1].weight, own * model.layers[1].weight_mask)
    surgeon.apply(PruneWeights(layer="layers.1", permanent=True))
    assert torch.equal(average.layers[1].weight, own * (model.layers[1].weight != 0))


def test_a_masked_model_opens_in_a_seed_model_on_the_meta_device() -> None:
    model = build("conv_bn").eval()
    surgeon = Surgeon(model, batch())
    for edit in (
        PruneWeights(layer="head", amount=0.5), PruneWeights(layer="head", permanent=True),
        PruneWeights(layer="features.0", amount=0.3), InsertLayer(site="features.5"),
    ):  # fmt: skip
        surgeon.apply(edit)
    seed_model = build("conv_bn").to("meta").eval()
    replay(seed_model, Lineage.from_json(surgeon.lineage.to_json()), batch())
    seed_model.load_state_dict(model.state_dict(), strict=True, assign=True)
    assert torch.equal(output(seed_model), output(model))


def test_weights_that_are_zero_already_are_masked_exactly() -> None:
    model = build("mlp")
    with torch.no_grad():
        model.layers[3].weight[:, :4] = 0
    patch = Surgeon(model, batch()).apply(PruneWeights(layer="layers.3", amount=0.4))
    assert not patch.declared
    assert patch.output_change == 0.0


@pytest.mark.parametrize(
    ("network", "layer", "why"),
    [
        ("tied_weights", "down", "its weight is shared with another module"),
        ("conv_bn", "features.1", "it is a BatchNorm2d"),
        ("conv_bn", "nowhere", "no module of that path runs"),
    ],
)
def test_layers_without_weights_of_their_own_are_refused(network: str, layer: str, why: str) -> None:
    with pytest.raises(SurgeryError, match=why):
        Surgeon(build(network), batch()).apply(PruneWeights(layer=layer, amount=0.5))


class Transposed(nn.Module):
    """A linear layer with its matrix the other way round, as the ``Conv1D`` of Transformers has it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs) / inputs), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


def test_a_linear_layer_is_known_by_what_it_does() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Transposed(6, 8), nn.LayerNorm(8), nn.ReLU(), Transposed(8, 3)).double()
    surgeon = Surgeon(model, torch.randn(5, 6, dtype=torch.float64))
    assert [c.place for c in surgeon.candidates(["PruneWeights"])] == ["0", "3"]
    for edit in PruneWeights.ramp(layer="0", final=0.5, num_steps=2):
        surgeon.apply(edit)
    assert surgeon.apply(PruneWeights(layer="0", permanent=True)).output_change == 0.0
    assert int((model[0].weight == 0).sum()) == 24
    with pytest.raises(SurgeryError, match="it is a LayerNorm"):
        surgeon.apply(PruneWeights(layer="1", amount=0.5))


def test_a_computed_weight_is_refused_and_so_is_permanence_without_a_mask() -> None:
    model = build("mlp")
    surgeon = Surgeon(model, batch())
    with pytest.raises(SurgeryError, match=r"layers\.1: found no mask, needed one to make permanent"):
        surgeon.apply(PruneWeights(layer="layers.1", permanent=True))
    parametrizations.weight_norm(model.layers[1])
    with pytest.raises(SurgeryError, match="its weight is computed from other tensors"):
        Surgeon(model, batch()).apply(PruneWeights(layer="layers.1", amount=0.5))


@pytest.mark.parametrize("fields", [{}, {"amount": 0.0}, {"amount": 1.0}, {"amount": 0.5, "permanent": True}])
def test_fields_out_of_range_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(SurgeryError, match="needs either an amount in"):
        parse(MUTATIONS, {"kind": "PruneWeights", "layer": "head", **fields})
