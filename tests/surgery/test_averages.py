"""Averages of a model follow its edits with their own weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from contracts.networks import batch, build
from contracts.state import fingerprint
from neuroexapt.errors import InputError, SurgeryError
from neuroexapt.surgery import InsertLayer, Lineage, Mutation, Surgeon, Widen, replay

EXACT = 1e-10
EDITS = (Widen(axis="features.0", to=9), InsertLayer(site="features.5"))


class OwnAverage(nn.Module):
    """A plain deep copy kept as an average, as timm does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(model).eval().requires_grad_(False)

    def update_parameters(self, model: nn.Module) -> None:
        with torch.no_grad():
            for mean, now in zip(self.module.state_dict().values(), model.state_dict().values(), strict=True):
                mean.lerp_(now, 0.1) if mean.is_floating_point() else mean.copy_(now)


AVERAGES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "swa": AveragedModel,
    "ema": lambda m: AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True),
    "own": OwnAverage,
    "compiled": lambda m: AveragedModel(torch.compile(m, backend="eager"), use_buffers=True),
}


def trained(kind: str) -> tuple[nn.Module, nn.Module, SGD]:
    """A model in training and an average that differs from it."""
    model = build("conv_bn")
    average = AVERAGES[kind](model)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    for seed in range(3):
        step(model, optimizer, average, seed)
    return model, average, optimizer


def step(model: nn.Module, optimizer: SGD, average: nn.Module, seed: int) -> None:
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), torch.arange(4) % 5).backward()
    optimizer.step()
    average.update_parameters(model)  # type: ignore[operator]
    optimizer.zero_grad()


def outputs(average: nn.Module) -> Tensor:
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        return copy.deepcopy(average.module).eval()(batch(size=6))


@pytest.mark.parametrize("kind", AVERAGES)
def test_an_average_keeps_its_function_and_its_objects_and_goes_on_averaging(kind: str) -> None:
    model, average, optimizer = trained(kind)
    objects = [id(p) for p in average.parameters()]
    before = outputs(average)
    surgeon = Surgeon(model, batch(), optimizer, averages=average)
    for edit in EDITS:
        surgeon.apply(edit)
        assert (outputs(average) - before).abs().max() <= EXACT * before.abs().max()
    assert [id(p) for p in average.parameters()][: len(objects) - 2] == objects[:-2]  # the head comes after the layer
    step(model, optimizer, average, 7)
    assert [p.shape for p in average.parameters()] == [p.shape for p in model.parameters()]


def test_old_rows_are_the_averages_own_and_new_rows_are_the_models() -> None:
    model, average, optimizer = trained("ema")
    old = average.module.features[0].weight.detach().clone()
    assert not torch.equal(old, model.features[0].weight)
    Surgeon(model, batch(), optimizer, averages=[average]).apply(EDITS[0])
    mean, now = average.module.features[0].weight, model.features[0].weight
    assert torch.equal(mean[:6], old)
    assert torch.equal(mean[6:], now[6:])
    assert not average.module.features[3].weight[:, 6:].any()
    assert average.module.features[0].out_channels == 9


def test_a_frozen_average_stays_frozen_with_its_new_layer() -> None:
    model, average, _ = trained("own")
    Surgeon(model, batch(), averages=average).apply(EDITS[1])
    assert not any(p.requires_grad for p in average.parameters())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("edit", EDITS, ids=["widen", "insert"])
def test_a_revert_takes_the_average_back_to_the_byte(edit: Mutation) -> None:
    model, average, optimizer = trained("ema")
    before = fingerprint(model, optimizer), fingerprint(average, optimizer)
    surgeon = Surgeon(model, batch(), optimizer, averages=average)
    surgeon.revert(surgeon.apply(edit))
    assert (fingerprint(model, optimizer), fingerprint(average, optimizer)) == before


def test_an_average_whose_function_would_change_refuses_the_edit_for_both() -> None:
    class Literal(OwnAverage):
        """Its copy reads a width that is written down."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__(model)
            self.module.features[1].register_forward_hook(lambda m, args, out: out * (1 + (out.shape[1] > 6)))

    model = build("conv_bn")
    average, optimizer = Literal(model), SGD(model.parameters(), lr=0.1)
    before = fingerprint(model, optimizer), fingerprint(average, optimizer)
    with pytest.raises(SurgeryError, match=r"changed the outputs of averages\[0\] by .* The edit was taken back"):
        Surgeon(model, batch(), optimizer, averages=average).apply(EDITS[0])
    assert (fingerprint(model, optimizer), fingerprint(average, optimizer)) == before


def test_a_lineage_replays_on_seed_model_and_average() -> None:
    model, average, _ = trained("ema")
    surgeon = Surgeon(model, batch(), averages=average)
    for edit in EDITS:
        surgeon.apply(edit)
    seed_model = build("conv_bn")
    seed_average = AVERAGES["ema"](seed_model)
    replay(seed_model, Lineage.from_json(surgeon.lineage.to_json()), batch(), averages=seed_average)
    seed_average.load_state_dict(average.state_dict(), strict=True)
    assert torch.equal(outputs(seed_average), outputs(average))


def test_what_is_no_average_of_the_model_is_refused() -> None:
    model = build("conv_bn")
    other = AveragedModel(build("plain_conv"))
    with pytest.raises(InputError, match=r"averages\[0\]: found features\.0\.weight nowhere, needed of shape .* Make"):
        Surgeon(model, batch(), averages=other)
    with pytest.raises(InputError, match=r"averages\[0\]: .* is the model's own tensor, needed a second copy"):
        Surgeon(model, batch(), averages=model)
    with pytest.raises(InputError, match=r"averages\[1\]: found a dict, needed a module"):
        Surgeon(model, batch(), averages=[AveragedModel(model), {}])  # type: ignore[list-item]


def test_an_average_that_was_left_behind_by_another_surgeon_is_refused_before_anything_changes() -> None:
    model, average, optimizer = trained("ema")
    surgeon = Surgeon(model, batch(), optimizer, averages=average)
    Surgeon(model, batch(), optimizer).apply(EDITS[0])
    before = fingerprint(model, optimizer)
    with pytest.raises(InputError, match=r"averages\[0\]: found features\.0\.weight of shape \(6, .* needed of shape"):
        surgeon.apply(Widen(axis="features.3", to=9))
    assert fingerprint(model, optimizer) == before


def test_an_average_given_as_the_model_is_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match=r"AveragedModel: found `AveragedModel`, .* this one as `averages=`"):
        Surgeon(AveragedModel(build("conv_bn")), batch())
