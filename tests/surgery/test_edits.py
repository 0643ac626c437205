"""What edits keep, what they refuse, and what they say."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from contracts.networks import NETWORKS, batch, build
from contracts.state import fingerprint, raw
from neuroexapt.errors import SurgeryError
from neuroexapt.surgery import MUTATIONS, InsertLayer, Lineage, Patch, Surgeon, Widen, parse, replay
from neuroexapt.surgery.plan import Fill, TensorEdit, fill_for
from neuroexapt.surgery.writing.gather import edited, gather

EXACT = 1e-10


def test_a_size_beyond_all_reason_is_refused_before_a_plan_of_that_size_is_made() -> None:
    with pytest.raises(SurgeryError, match=r"conv1: cannot widen from 6 to 1000000000000 units: .* 16,777,216 units"):
        Surgeon(build("plain_conv"), batch()).apply(Widen(axis="conv1", to=10**12))


def test_new_rows_are_at_the_layers_own_scale_and_new_columns_are_zero() -> None:
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 9)).double()
    scale = model[0].weight.detach().square().mean().sqrt()
    Surgeon(model, torch.randn(4, 64).double()).apply(Widen(axis="0", to=512))
    new = model[0].weight.detach()[256:]
    assert abs(new.square().mean().sqrt() / scale - 1) < 0.02
    assert abs(new.mean()) < 0.02 * scale
    assert not model[2].weight[:, 256:].any()
    assert not model[0].bias[256:].any()


def test_parameters_stay_the_same_objects_with_their_python_attributes_and_tied_names() -> None:
    model = build("tied_weights")
    before = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    model.up.weight.note = "mine"
    Surgeon(model, batch()).apply(Widen(axis="up", to=14))
    assert {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)} == before
    assert model.up.weight.note == "mine"
    assert model.again.weight is model.down.weight
    assert (model.up.out_features, model.down.in_features, model.again.in_features) == (14, 14, 14)


def test_hooks_of_parameters_and_modules_go_on_firing() -> None:
    model = build("plain_conv")
    seen: list[str] = []
    conv = model.conv2
    conv.weight.register_hook(lambda g: seen.append(f"gradient {g.shape[0]}"))
    conv.weight.register_post_accumulate_grad_hook(lambda p: seen.append(f"accumulated {p.grad.shape[0]}"))
    conv.register_forward_pre_hook(lambda m, args: seen.append("before"))
    conv.register_forward_hook(lambda m, args, out: seen.append(f"after {out.shape[1]}"))
    conv.register_full_backward_hook(lambda m, grad_in, grad_out: seen.append(f"backward {grad_out[0].shape[1]}"))
    surgeon = Surgeon(model, batch())
    patch = surgeon.apply(Widen(axis="conv2", to=9))
    for width in (9, 8):
        seen.clear()
        model(batch()).sum().backward()
        assert seen == ["before", f"after {width}", f"gradient {width}", f"accumulated {width}", f"backward {width}"]
        model.zero_grad()
        if width == 9:
            surgeon.revert(patch)


def test_gradients_in_flight_survive_an_edit_where_their_entries_do() -> None:
    model, reference = build("conv_bn"), build("conv_bn")
    for some in (model, reference):
        some(batch()).square().sum().backward()
    surgeon = Surgeon(model, batch())
    patch = surgeon.apply(Widen(axis="features.0", to=9))
    for some in (model, reference):
        some(batch() + 1).square().sum().backward()
    for (name, p), (_, q) in zip(model.named_parameters(), reference.named_parameters(), strict=True):
        mask = patch.new_entries(model).get(name, torch.zeros(p.shape, dtype=torch.bool))
        assert mask is not None
        assert torch.allclose(p.grad[~mask], q.grad.flatten(), rtol=EXACT, atol=EXACT), name
    model.zero_grad()
    model(batch()).sum().backward()


def test_a_revert_brings_the_gradients_of_before_the_edit_back() -> None:
    model = build("conv_bn")
    optimizer = SGD(model.parameters(), lr=0.1)
    model(batch()).sum().backward()
    before = fingerprint(model, optimizer)
    surgeon = Surgeon(model, batch(), optimizer)
    surgeon.revert(surgeon.apply(Widen(axis="features.0", to=9)))
    assert fingerprint(model, optimizer) == before


def test_a_sparse_gradient_in_flight_is_refused_with_what_to_do() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(10, 6, sparse=True), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.table(x).mean(1))

    model, x = Words(), torch.arange(8).view(2, 4)
    model(x).sum().backward()
    with pytest.raises(SurgeryError, match=r"table\.weight: has a sparse gradient, .* Call optimizer\.zero_grad"):
        Surgeon(model, x).apply(Widen(axis="table.weight[1]", to=9))
    model.zero_grad()
    optimizer = torch.optim.SparseAdam([model.table.weight])
    for _ in range(2):
        model(x).square().sum().backward()
        optimizer.step()
        model.zero_grad()
        Surgeon(model, x, optimizer).apply(Widen(axis="table.weight[1]", to=model.table.embedding_dim + 3))
    assert model.head.in_features == 12


def test_a_live_autograd_graph_is_refused_and_nothing_changes() -> None:
    model = build("plain_conv")
    optimizer = SGD(model.parameters(), lr=0.1)
    loss = model(batch()).sum()
    before = fingerprint(model, optimizer)
    with pytest.raises(SurgeryError, match=r"conv1.*Edit between optimizer\.step\(\) and the next forward"):
        Surgeon(model, batch(), optimizer).apply(Widen(axis="conv1", to=9))
    assert fingerprint(model, optimizer) == before
    loss.backward()
    optimizer.step()
    Surgeon(model, batch(), optimizer).apply(Widen(axis="conv1", to=9))


def test_frozen_parameters_stay_frozen() -> None:
    model = build("plain_conv")
    model.conv1.weight.requires_grad_(False)
    model.conv2.bias.requires_grad_(False)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    surgeon = Surgeon(model, batch())
    surgeon.apply(Widen(axis="conv1", to=9))
    surgeon.apply(Widen(axis="conv2", to=9))
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == frozen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_dtype_is_kept_and_edits_of_coarse_models_are_verified_coarsely(dtype: torch.dtype) -> None:
    model = build("conv_bn", dtype)
    surgeon = Surgeon(model, batch(dtype))
    for mutation in (Widen(axis="features.0", to=9), InsertLayer(site="features.5")):
        assert surgeon.apply(mutation).output_change <= 2e-2
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert not any("self-test" in g.reason for g in surgeon.graph.groups)


def test_channels_last_weights_stay_channels_last() -> None:
    model = build("conv_bn").to(memory_format=torch.channels_last)
    Surgeon(model, batch()).apply(Widen(axis="features.0", to=9))
    for path in ("features.0", "features.3"):
        assert model.get_submodule(path).weight.is_contiguous(memory_format=torch.channels_last)


def test_gather_keeps_bits_format_and_dtype_and_fills_the_rest() -> None:
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    maps = (torch.tensor([1, -1, 0]), None, None, None)
    result = gather(tensor, maps)
    assert torch.equal(result[[2, 0]], tensor)
    assert not result[1].any()
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert gather(torch.tensor([3, 4]), (torch.tensor([1, -1]),)).tolist() == [4, 0]


@pytest.mark.parametrize(("kind", "value"), [("zeros", 0.0), ("ones", 1.0), ("mean", 2.0)])
def test_fills_of_vectors(kind: str, value: float) -> None:
    filled_vector = edited(torch.tensor([1.0, 3.0]), TensorEdit("w", (torch.tensor([0, 1, -1]),), Fill(kind)))  # type: ignore[arg-type]
    assert filled_vector.tolist() == [1.0, 3.0, value]


def test_an_all_zero_layer_grows_rows_at_the_scale_of_its_fan_in() -> None:
    rows = torch.cat([torch.arange(4), torch.full((96,), -1)])
    grown = edited(torch.zeros(4, 100), TensorEdit("w", (rows, None), Fill("normal")))
    assert abs(grown[4:].square().mean().sqrt() - 0.1) < 0.01
    assert fill_for({0: set()}, 0).kind == "mean"


@pytest.mark.parametrize(
    ("network", "mutation", "message"),
    [
        ("plain_conv", Widen(axis="conv9", to=9), r"conv9: no group by that name\. Known are conv1"),
        ("plain_conv", Widen(axis="conv1", to=6), r"conv1: found 6 units, needed fewer than 6\. Give a larger `to`\."),
        ("plain_conv", Widen(axis="head", to=9), r"head: cannot widen from 5 to 9 units: an axis of the model's output"
         r"\. Choose another size or group; `graph\.groups` lists what each admits\."),
        ("flatten_linear", Widen(axis="fc1.weight[1]", to=9), r"fc1.weight\[1\]: several groups"),
        ("transformer", Widen(axis="embed", to=12), "reads across the axis"),
        ("plain_conv", InsertLayer(site="nowhere"), r"nowhere: no module of that path runs in PlainConv; "),
        ("conv_bn", InsertLayer(site="features"), r"features: cannot hang a piece here: it contains other modules, .*"
         r"Choose another module\."),
        ("tied_weights", InsertLayer(site="shared", kernel_size=1), "shared: .*it runs more than once per forward"),
        ("mlp", InsertLayer(site="layers.1", kernel_size=3), r"layers.1: a linear layer has no kernel; found 3"),
        ("mlp", InsertLayer(site="layers.5", kernel_size=1), "an axis of the model's output"),
        ("conv_bn", InsertLayer(site="features.7", kernel_size=1), None),
    ],
)  # fmt: skip
def test_refusals_say_where_what_and_what_to_do(network: str, mutation: object, message: str | None) -> None:
    model = build(network)
    optimizer = SGD(model.parameters(), lr=0.1)
    surgeon = Surgeon(model, batch(), optimizer)
    if message is None:
        assert surgeon.apply(mutation).output_change <= EXACT  # type: ignore[arg-type]
        return
    before = fingerprint(model, optimizer)
    with pytest.raises(SurgeryError, match=message):
        surgeon.apply(mutation)  # type: ignore[arg-type]
    assert fingerprint(model, optimizer) == before
    assert len(surgeon.lineage) == 0


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"kind": "Grow"}, "mutation: unknown kind 'Grow'; known are Widen, "),
        ({"kind": ["Widen"]}, r"mutation: unknown kind \['Widen'\]; known are Widen, "),
        (
            {"kind": "Widen", "axis": "a", "size": 3},
            r"mutation Widen: unknown fields \['size'\]; known are \['axis', .*'to'\]",
        ),
        ({"kind": "Widen", "axis": "a"}, "mutation Widen: needs to, ratio or multiple_of > 1, found none"),
        ({"kind": "Widen", "axis": "a", "to": True}, "mutation Widen: needs axis: str and to: int >= 1"),
        ({"kind": "InsertLayer", "site": "a", "kernel_size": 2}, "needs site: str and an odd kernel_size >= 1"),
        ({"kind": "InsertLayer", "site": "a", "kernel_size": -1}, "needs site: str and an odd kernel_size >= 1"),
    ],
)
def test_a_malformed_mutation_is_refused(record: dict[str, object], message: str) -> None:
    with pytest.raises(SurgeryError, match=message):
        parse(MUTATIONS, record)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"version": 9, "steps": []}, "lineage: found version 9, needed 1. Read it with the release"),
        ({"version": 1}, "lineage: a step is malformed: KeyError"),
        ({"version": 1, "steps": [{"mutation": {"kind": "Widen", "axis": "a", "to": 3}}]}, "a step is malformed"),
        (
            {"version": 1, "steps": [{"mutation": "Widen", "seed": 0}]},
            "found 'Widen', needed a dictionary with its kind",
        ),
        ({"version": 1, "steps": [{"mutation": {"kind": "Grow"}, "seed": 0}]}, "unknown kind 'Grow'"),
    ],
)
def test_a_malformed_lineage_is_refused(record: dict[str, object], message: str) -> None:
    with pytest.raises(SurgeryError, match=message):
        Lineage.from_json(record)


def test_replay_on_another_model_names_the_step() -> None:
    lineage = Lineage().then(Widen(axis="conv1", to=9), 3).then(Widen(axis="features.0", to=9), 4)
    with pytest.raises(
        SurgeryError, match=r"lineage step 1: features\.0: no group .* Was it made from another seed model\?"
    ):
        replay(build("plain_conv"), lineage, batch())


def test_patches_are_reverted_last_first() -> None:
    surgeon = Surgeon(build("plain_conv"), batch())
    first = surgeon.apply(Widen(axis="conv1", to=9))
    second = surgeon.apply(Widen(axis="conv2", to=9))
    with pytest.raises(SurgeryError, match=r"widen conv1 from 6 to 9: not the latest edit .*Revert later edits first"):
        surgeon.revert(first)
    surgeon.revert(second)
    surgeon.revert(first)
    with pytest.raises(SurgeryError, match="not the latest edit"):
        surgeon.revert(first)


def test_an_edit_that_breaks_train_mode_is_refused_and_undone() -> None:
    class Literal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.up(x))
            return self.down(y * torch.linspace(1, 2, 6, dtype=y.dtype).mean() + self._bias(y))

        def _bias(self, y: Tensor) -> Tensor:
            return y.detach().view(-1, 6) * 0 if self.training else y * 0

    model = Literal()
    optimizer = SGD(model.parameters(), lr=0.1)
    surgeon = Surgeon(model, torch.randn(2, 4), optimizer)
    before = fingerprint(model, optimizer)
    with pytest.raises(SurgeryError, match=r"widen up from 6 to 8: the edited model does not run: RuntimeError"):
        surgeon.apply(Widen(axis="up", to=8))
    assert fingerprint(model, optimizer) == before


def test_a_random_train_mode_is_verified_in_eval_mode_only() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(nn.functional.dropout(torch.relu(self.up(x)), 0.5, self.training))

    surgeon = Surgeon(Noisy().double(), torch.randn(2, 4).double())
    assert not surgeon.apply(Widen(axis="up", to=8)).verified_in_train_mode


def sequence(model: nn.Module, seed: int, optimizer: SGD | None) -> tuple[Surgeon, list[Patch]]:
    """Four random edits, widening and inserting in turn, with a step of training after each, given an optimizer."""
    generator = torch.Generator().manual_seed(seed)
    surgeon, patches = Surgeon(model, batch(), optimizer, seed=seed), []
    for _ in range(2):
        offered = surgeon.candidates(growth=1.2)
        for kind in (Widen, InsertLayer):
            some = [mutation for mutation in offered if isinstance(mutation, kind)]
            patches.append(surgeon.apply(some[int(torch.randint(len(some), (1,), generator=generator))]))
            assert patches[-1].output_change <= EXACT
            if optimizer is not None:
                optimizer.zero_grad()
                x = torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64)
                nn.functional.cross_entropy(model(x), torch.arange(4) % 5).backward()
                optimizer.step()
                optimizer.zero_grad()
    return surgeon, patches


FEW = ("resnet_bottleneck", "transformer", "tied_weights")
some_networks = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FEW else [pytest.mark.slow]) for name in NETWORKS]
)


@some_networks
def test_four_random_edits_with_training_between_them_are_exact_and_replay(name: str) -> None:
    model = build(name)
    surgeon, patches = sequence(model, 1, SGD(model.parameters(), lr=0.01, momentum=0.9))
    assert sum(p.output_change for p in patches) <= 1e-9
    twin = build(name)
    replay(twin, Lineage.from_json(json.loads(json.dumps(surgeon.lineage.to_json()))), batch())
    twin.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(twin.eval()(batch()), model.eval()(batch()))


@some_networks
def test_four_random_edits_reverted_give_back_the_first_bytes(name: str) -> None:
    model = build(name).eval()
    before = {key: raw(value) for key, value in model.state_dict().items()}
    with torch.no_grad():
        first = model(batch())
    surgeon, patches = sequence(model, 2, None)
    with torch.no_grad():
        assert (model(batch()) - first).abs().max() <= 1e-9 * first.abs().max()
    for patch in reversed(patches):
        surgeon.revert(patch)
    assert {key: raw(value) for key, value in model.state_dict().items()} == before
    assert surgeon.lineage == Lineage()
