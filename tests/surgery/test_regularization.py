"""Noise that rises from nothing, and settings of the optimizer and the loss."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Rprop
from torch.optim.swa_utils import AveragedModel

from contracts import laws
from contracts.experiment import experiment
from contracts.networks import batch, build
from contracts.state import fingerprint
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import trace
from neuroexapt.surgery import AddRegularization, Lineage, Mutation, Surgeon, Widen, replay
from neuroexapt.surgery.pieces import RampedDropout, RampedDropPath
from neuroexapt.surgery.places.residuals import Sums


def noise(variant: str, site: str, **fields: object) -> AddRegularization:
    return AddRegularization(variant=variant, rate=0.5, site=site, **fields)  # type: ignore[arg-type]


VARIANTS: list[tuple[str, Mutation]] = [
    ("transformer", noise("dropout", "down", is_channelwise=True)),
    ("resnet_bottleneck", noise("drop_path", "blocks.1.downsample")),
]


@pytest.mark.parametrize(("network", "mutation"), VARIANTS)
def test_every_variant_of_noise_meets_the_laws(network: str, mutation: Mutation) -> None:
    edit = experiment(network, mutation)
    laws.assert_function_preserved(edit)
    laws.assert_reverted(edit)
    laws.assert_replayed(edit)
    laws.assert_deltas_recounted(edit)


def share_of_zeros(piece: nn.Module, x: torch.Tensor) -> float:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return float((piece(x) == 0).double().mean())


def test_the_rate_rises_from_nothing_with_every_forward_in_train_mode() -> None:
    piece, x = RampedDropout(0.5, ramp_steps=4), torch.ones(100, 100)
    shares = [share_of_zeros(piece, x) for _ in range(6)]
    assert shares[0] == 0.0
    assert shares[1:] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5], abs=0.02)
    piece.eval()
    assert piece(x) is x
    assert int(piece.ramp.num_steps) == 6


def test_without_a_ramp_the_full_rate_applies_at_once() -> None:
    assert share_of_zeros(RampedDropout(0.5, ramp_steps=0), torch.ones(100, 100)) == pytest.approx(0.5, abs=0.02)


def test_the_mean_stays_and_whole_channels_and_samples_go() -> None:
    torch.manual_seed(0)
    channels = RampedDropout(0.25, 0, positions=(2, 3))(torch.ones(64, 32, 2, 2, dtype=torch.float64))
    paths = RampedDropPath(0.25, 0)(torch.ones(512, 3, 2, dtype=torch.float64))
    for units in (channels.flatten(0, 1).flatten(1), paths.flatten(1)):
        assert torch.equal(units.amin(1), units.amax(1))
        assert units.unique().tolist() == pytest.approx([0, 1 / 0.75])
        assert float(units.mean()) == pytest.approx(1, abs=0.1)


def test_the_count_is_saved_and_a_loaded_model_goes_on_from_there() -> None:
    model = build("conv_bn")
    Surgeon(model, batch()).apply(noise("dropout", "features.2", ramp_steps=8))
    for _ in range(3):
        model(batch())
    state = model.state_dict()
    assert int(state["features.2.grafts.0.ramp.num_steps"]) == 3
    again = build("conv_bn")
    Surgeon(again, batch()).apply(noise("dropout", "features.2", ramp_steps=8))
    again.load_state_dict(state)
    torch.manual_seed(1)
    expected = model(batch())
    torch.manual_seed(1)
    assert torch.equal(again(batch()), expected)


@pytest.mark.parametrize("variant", ["dropout", "drop_path"])
def test_looking_and_later_edits_count_no_step_and_are_verified_in_train_mode_too(variant: str) -> None:
    model = build("resnet_basic")
    surgeon = Surgeon(model, batch())
    surgeon.apply(noise(variant, "blocks.0.bn2", ramp_steps=0))
    patch = surgeon.apply(Widen(axis="stem.0", to=9))
    assert patch.verified_in_train_mode
    assert patch.output_change <= 1e-10
    assert int(model.state_dict()["blocks.0.bn2.grafts.0.ramp.num_steps"]) == 0


def test_dropout_draws_from_the_generator_of_torch_and_leaves_eval_mode_alone() -> None:
    model = build("conv_bn")
    Surgeon(model, batch()).apply(noise("dropout", "features.2", ramp_steps=0))
    model.eval()
    state = torch.get_rng_state()
    model(batch())
    assert torch.equal(torch.get_rng_state(), state)
    model.train()
    model(batch())
    assert not torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("plain_conv", []),
        ("resnet_basic", ["blocks.0.bn2", "blocks.1.bn2"]),
        ("resnet_bottleneck", ["blocks.0.bn3", "blocks.1.bn3"]),
        ("transformer", ["attention.proj", "down"]),
    ],
)
def test_residual_branches_are_found_by_what_their_output_is_added_to(network: str, expected: list[str]) -> None:
    assert [call.path for call in Sums(trace(build(network), batch())).branches()] == expected


def test_what_else_is_done_with_its_output_makes_it_no_residual_branch() -> None:
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.branch, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.enter(x)
            y = self.branch(x)
            return self.head(x + y) * y.mean()

    assert Sums(trace(Read(), torch.randn(2, 4))).branches() == []


def test_a_sum_of_embeddings_is_no_residual_branch() -> None:
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.types = nn.Embedding(9, 8), nn.Embedding(2, 8)
            self.branch, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, tokens: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
            x = self.tokens(tokens) + self.types(types.clamp(max=1))
            return self.head(x + self.branch(x))

    graph = trace(Embedded(), (torch.randint(9, (2, 5)), torch.randint(2, (2, 5))))
    assert [call.path for call in Sums(graph).branches()] == ["branch"]


def test_drop_path_is_refused_where_nothing_else_carries_the_sample() -> None:
    with pytest.raises(SurgeryError, match=r"features\.2: its output is not simply added to another path's"):
        Surgeon(build("conv_bn"), batch()).apply(noise("drop_path", "features.2"))


def test_whole_channels_are_refused_without_positions() -> None:
    with pytest.raises(SurgeryError, match=r"layers\.2: found an output \[4, 10\] without positions"):
        Surgeon(build("mlp"), batch()).apply(noise("dropout", "layers.2", is_channelwise=True))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"variant": "mixup", "rate": 0.1}, r"needs a variant of .*drop_path.* found 'mixup'"),
        ({"variant": "dropout", "rate": 1.0, "site": "a"}, r"needs a rate in \[0, 1\), found 1\.0"),
        ({"variant": "dropout", "rate": 0.1}, r"dropout needs the path of a module as site, found ''"),
        ({"variant": "label_smoothing", "rate": 0.1, "site": "a"}, r"label_smoothing needs no site, found 'a'"),
        ({"variant": "dropout", "rate": 0.1, "site": "a", "ramp_steps": -1}, r"needs ramp_steps: int >= 0, found -1"),
        ({"variant": "dropout", "rate": 0.1, "site": "a", "is_channelwise": 1}, r"needs is_channelwise: bool"),
    ],
)
def test_fields_of_regularization_that_make_no_sense_are_refused(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        AddRegularization(**fields)  # type: ignore[arg-type]


DECAY = AddRegularization(variant="weight_decay", rate=0.05)
SMOOTHING = AddRegularization(variant="label_smoothing", rate=0.1)


def split(model: nn.Module) -> AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    return AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], weight_decay=0.01)


def test_weight_decay_changes_the_groups_of_matrices_and_spares_those_of_vectors() -> None:
    model = build("conv_bn")
    optimizer = split(model)
    before = fingerprint(model, optimizer)
    surgeon = Surgeon(model, batch(), optimizer)
    patch = surgeon.apply(DECAY)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert (patch.output_change, patch.parameter_delta, patch.added, patch.declared) == (0.0, 0, (), frozenset())
    assert patch.verified_in_train_mode
    surgeon.revert(patch)
    assert fingerprint(model, optimizer) == before


def test_weight_decay_of_one_layer_changes_the_groups_that_hold_it() -> None:
    model = build("conv_bn")
    optimizer = SGD([{"params": model.features.parameters()}, {"params": model.head.parameters()}], lr=0.1)
    surgeon = Surgeon(model, batch(), optimizer)
    surgeon.apply(AddRegularization(variant="weight_decay", rate=0.05, site="head"))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0.05]
    surgeon.apply(AddRegularization(variant="weight_decay", rate=0.02, site="features.1"))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.02, 0.05]


def test_label_smoothing_is_set_on_the_loss_and_taken_back() -> None:
    criterion = nn.CrossEntropyLoss(label_smoothing=0.02)
    surgeon = Surgeon(build("conv_bn"), batch(), loss=criterion)
    patch = surgeon.apply(SMOOTHING)
    assert criterion.label_smoothing == 0.1
    surgeon.revert(patch)
    assert criterion.label_smoothing == 0.02


@pytest.mark.parametrize(
    ("mutation", "given", "why"),
    [
        (DECAY, {}, r"weight_decay: found no optimizer, .* Surgeon\(model, inputs, optimizer\)"),
        (SMOOTHING, {}, r"label_smoothing: found no loss module, .* Surgeon\(\.\.\., loss=criterion\)"),
        (SMOOTHING, {"loss": nn.MSELoss()}, r"MSELoss: has no setting 'label_smoothing'\. Use nn\.CrossEntropyLoss"),
        (DECAY, {"optimizer": Rprop}, r"Rprop: has no setting 'weight_decay'"),
        (
            AddRegularization(variant="weight_decay", rate=0.1, site="neck"),
            {"optimizer": SGD},
            r"neck: ConvBatchNorm has no module",
        ),
        (
            AddRegularization(variant="weight_decay", rate=0.1, site="features.2"),
            {"optimizer": SGD},
            r"features\.2: found none of its",
        ),
    ],
)
def test_a_setting_without_its_owner_is_refused(mutation: Mutation, given: dict[str, object], why: str) -> None:
    model = build("conv_bn")
    if "optimizer" in given:
        given = {"optimizer": given["optimizer"](model.parameters())}  # type: ignore[operator]
    surgeon = Surgeon(model, batch(), **given)  # type: ignore[arg-type]
    with pytest.raises(SurgeryError, match=why):
        surgeon.apply(mutation)
    assert surgeon.lineage == Lineage()


def test_what_was_set_first_is_taken_back_when_a_later_group_has_no_such_setting() -> None:
    model = build("conv_bn")
    first, second = SGD(model.features.parameters(), lr=0.1), Rprop(model.head.parameters())
    with pytest.raises(SurgeryError, match="Rprop: has no setting"):
        Surgeon(model, batch(), [first, second]).apply(DECAY)
    assert first.param_groups[0]["weight_decay"] == 0


def test_a_replay_sets_what_it_has_and_warns_about_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    model = build("conv_bn")
    surgeon = Surgeon(model, batch(), SGD(model.parameters(), lr=0.1), loss=nn.CrossEntropyLoss())
    for mutation in (DECAY, SMOOTHING, noise("dropout", "features.2")):
        surgeon.apply(mutation)
    lineage = Lineage.from_json(surgeon.lineage.to_json())
    with caplog.at_level(logging.WARNING):
        alone = replay(build("conv_bn"), lineage, batch())
    assert [r.message for r in caplog.records] == [
        "weight_decay: not set to 0.05: this replay has no optimizer",
        "label_smoothing: not set to 0.1: this replay has no loss",
    ]
    assert alone.lineage == lineage
    assert list(alone.model.state_dict()) == list(model.state_dict())
    seed_model, criterion = build("conv_bn"), nn.CrossEntropyLoss()
    optimizer = SGD(seed_model.parameters(), lr=0.1)
    replay(seed_model, lineage, batch(), optimizer, loss=criterion)
    assert (optimizer.param_groups[0]["weight_decay"], criterion.label_smoothing) == (0.05, 0.1)


def test_an_average_gets_the_noise_too_and_its_own_count() -> None:
    model = build("conv_bn")
    average = AveragedModel(model)
    surgeon = Surgeon(model, batch(), averages=average)
    surgeon.apply(noise("dropout", "features.2"))
    model(batch())
    assert int(average.module.state_dict()["features.2.grafts.0.ramp.num_steps"]) == 0
    average.update_parameters(copy.deepcopy(model))
