"""Channel gates, attention over positions and pooled context: every variant, also those that are never proposed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from contracts import laws
from contracts.experiment import experiment
from contracts.networks import batch, build
from contracts.state import fingerprint
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import trace
from neuroexapt.surgery import AddAttention, AddPooling, Mutation, PruneUnits, Surgeon, Widen, candidates

EXACT = 1e-10

ON_MAPS = "conv_bn", "features.2"
ON_TOKENS = "transformer", "down"
ON_FEATURES = "mlp", "layers.2"

VARIANTS: list[tuple[str, Mutation]] = [
    ("conv_bn", AddAttention(site="features.2", variant="eca", kernel_size=3)),
    ("conv_bn", AddAttention(site="features.2", variant="self", num_heads=2, width=6)),
    ("transformer", AddAttention(site="down", variant="squeeze_excite", reduction=1)),
    ("transformer", AddAttention(site="down", variant="self", is_causal=True)),
    ("mlp", AddAttention(site="layers.2", variant="squeeze_excite")),
    ("conv_bn", AddPooling(site="features.2", variant="context_global", is_mixed=False)),
    ("transformer", AddPooling(site="down", variant="context_local")),
    ("transformer", AddPooling(site="down", variant="context_global")),
    ("conv_bn", AddPooling(site="features.2", variant="downsample")),
]
every_variant = pytest.mark.parametrize(
    ("network", "mutation"), VARIANTS, ids=[m.describe(trace(build(n), batch())) for n, m in VARIANTS]
)


@every_variant
def test_every_variant_meets_the_laws(network: str, mutation: Mutation) -> None:
    edit = experiment(network, mutation)
    laws.assert_function_preserved(edit)
    laws.assert_reverted(edit)
    laws.assert_replayed(edit)
    laws.assert_new_entries_learn(edit)
    laws.assert_deltas_recounted(edit)


@pytest.mark.parametrize(
    ("network", "axis", "mutation"),
    [
        ("conv_bn", "features.0", AddAttention(site="features.2")),
        ("conv_bn", "features.0", AddAttention(site="features.2", variant="self", width=4)),
        ("conv_bn", "features.0", AddPooling(site="features.2", variant="context_local")),
        ("conv_bn", "features.0", AddPooling(site="features.2", is_mixed=False)),
        ("mlp", "layers.1", AddAttention(site="layers.2")),
    ],
)
def test_the_axis_under_a_trained_piece_can_still_be_widened(network: str, axis: str, mutation: Mutation) -> None:
    model = build(network).eval()
    surgeon = Surgeon(model, batch())
    surgeon.apply(mutation)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".grafts." in name:
                parameter.copy_(torch.randn_like(parameter))
        before = model(batch())
        patch = surgeon.apply(Widen(axis=axis, to=surgeon.graph.group(axis).size + 3))
        assert any(".grafts." in path for path in patch.sources)
        assert (model(batch()) - before).abs().max() <= EXACT * before.abs().max()


def test_heads_and_head_width_of_an_inserted_attention_grow_and_shrink() -> None:
    model = build("transformer").eval()
    surgeon = Surgeon(model, batch())
    surgeon.apply(AddAttention(site="down", variant="self", num_heads=2, width=8))
    with torch.no_grad():
        model.down.grafts[0].out.weight.normal_()
        before = model(batch())
        for part, size in ((0, 3), (1, 6)):
            surgeon.apply(Widen(axis=f"down.grafts.0.query.weight[0].{part}", to=size))
        assert (model(batch()) - before).abs().max() <= EXACT * before.abs().max()
    assert [tuple(getattr(model.down.grafts[0], n).weight.shape) for n in ("query", "key", "value", "out")] == [
        (18, 8),
        (18, 8),
        (18, 8),
        (8, 18),
    ]
    for part, keep in ((0, 1), (1, 2)):
        surgeon.apply(PruneUnits(axis=f"down.grafts.0.query.weight[0].{part}", units=tuple(range(keep))))
    assert model.down.grafts[0].out.weight.shape == (8, 2 * 4)


def test_the_axis_that_eca_reads_in_order_is_pinned_and_says_why() -> None:
    surgeon = Surgeon(build("conv_bn"), batch())
    surgeon.apply(AddAttention(site="features.2", variant="eca", kernel_size=3))
    with pytest.raises(SurgeryError, match=r"features\.0: cannot widen from 6 to 9 units: spatial extent"):
        surgeon.apply(Widen(axis="features.0", to=9))


@pytest.mark.parametrize(("channels", "expected"), [(2, 1), (8, 3), (64, 3), (256, 5), (512, 5), (2048, 7)])
def test_the_kernel_of_eca_grows_with_the_number_of_channels_as_in_the_paper(channels: int, expected: int) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, channels, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2)
    )
    plan = Surgeon(model, torch.randn(1, 1, 2, 2)).plan(AddAttention(site="1", variant="eca"))
    assert plan.grafts[0].arguments["kernel_size"] == expected


def test_a_gate_is_one_to_the_bit_in_every_precision() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model, x = build("plain_conv", dtype).eval(), batch(dtype)
        with torch.no_grad():
            before = model(x)
            Surgeon(model, x).apply(AddAttention(site="conv1"))
            assert torch.equal(model(x), before)


class Causal(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.enter, self.up, self.head = nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.enter(x)).unsqueeze(1)
        if self.form == "flag":
            x = F.scaled_dot_product_attention(x, x, x, is_causal=True)
        elif self.form == "mask":
            hidden = torch.ones(x.shape[-2], x.shape[-2]).triu(1).bool()
            x = (x @ x.mT).masked_fill(hidden, -torch.inf).softmax(-1) @ x
        else:
            x = x.cumsum(-2)
        x = x.squeeze(1)
        return self.head(torch.relu(self.up(x)))


@pytest.mark.parametrize("form", ["flag", "mask", "running sum"])
def test_what_is_proposed_for_a_causal_model_does_not_see_the_future(form: str) -> None:
    model, x = Causal(form).double().eval(), torch.randn(2, 5, 4, dtype=torch.float64)
    surgeon = Surgeon(model, x)
    proposed = surgeon.candidates(["AddAttention", "AddPooling"])
    assert proposed
    assert {type(m) for m in proposed} == {AddAttention}
    for mutation in proposed:
        patch = surgeon.apply(mutation)
        with torch.no_grad():
            for parameter in (dict(model.named_parameters())[name] for name in patch.added):
                parameter.normal_()
    later = x.clone()
    later[:, 3:] += 1
    with torch.no_grad():
        assert torch.equal(model(x)[:, :3], model(later)[:, :3])
        assert not torch.equal(model(x)[:, 3:], model(later)[:, 3:])


def test_attention_is_not_causal_where_nothing_hides_positions() -> None:
    found = candidates(trace(build("transformer"), batch()), ["AddAttention"])
    assert {(m.variant, m.is_causal) for m in found if isinstance(m, AddAttention)} == {
        ("squeeze_excite", False),
        ("self", False),
    }


def test_local_context_is_the_mean_of_the_neighbours_that_there_are() -> None:
    model = build("conv_bn").eval()
    Surgeon(model, batch()).apply(AddPooling(site="features.2", variant="context_local", is_mixed=False))
    site = model.get_submodule("features.2")
    x = torch.rand(1, 6, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        site.grafts[0].scale.fill_(1.0)
        y = site(x) - x
    assert torch.allclose(y[0, :, 0, 0], x[0, :, :2, :2].mean((1, 2)))
    assert torch.allclose(y[0, :, 2, 2], x[0, :, 1:4, 1:4].mean((1, 2)))


def test_a_downsampled_model_says_so_and_costs_less() -> None:
    model = build("conv_bn")
    surgeon = Surgeon(model, batch())
    patch = surgeon.apply(AddPooling(site="features.2", variant="downsample"))
    assert patch.declared == {"eval", "train"}
    assert patch.output_change > 1e-3
    assert (patch.parameter_delta, patch.added) == (0, ())
    assert patch.flop_delta == -(3 * 4 * 4) * 6 * 7 * 9 * 2
    assert not any(isinstance(m, AddPooling) and m.variant == "downsample" for m in surgeon.candidates(["AddPooling"]))


@pytest.mark.parametrize(
    ("network", "site", "why"),
    [
        ("flatten_linear", "conv", r"down-sample 2x behind conv: the edited model does not run: RuntimeError"),
        ("resnet_basic", "blocks.0.bn2", r"the edited model does not run: RuntimeError"),
        ("transformer", "down", r"found an output \[4, 16, 8\], needed \[N, C, H, W\] with H and W of at least 2"),
    ],
)
def test_downsampling_is_refused_where_the_code_behind_does_not_bear_it(network: str, site: str, why: str) -> None:
    model = build(network)
    optimizer = SGD(model.parameters(), lr=0.1)
    before = fingerprint(model, optimizer)
    with pytest.raises(SurgeryError, match=why):
        Surgeon(model, batch(), optimizer).apply(AddPooling(site=site, variant="downsample"))
    assert fingerprint(model, optimizer) == before


@pytest.mark.parametrize(
    "mutation",
    [
        AddAttention(site="layers.2", variant="self"),
        AddAttention(site="layers.2", variant="eca"),
        AddPooling(site="layers.2"),
    ],
)
def test_what_needs_positions_is_refused_without_any(mutation: Mutation) -> None:
    with pytest.raises(
        SurgeryError, match=r"layers\.2: found an output \[4, 10\] without positions, needed \[N, C, H, W\]"
    ):
        Surgeon(build("mlp"), batch()).apply(mutation)


@pytest.mark.parametrize(
    ("kind", "fields", "why"),
    [
        (AddAttention, {"variant": "luong"}, r"needs site: str and a variant of .*squeeze_excite.* found 'luong'"),
        (AddAttention, {"variant": "eca", "kernel_size": 4}, r"odd kernel_size, or 0 for the paper's, found 4"),
        (AddAttention, {"variant": "self", "num_heads": 3, "width": 8}, r"a width that 3 heads divide, found 8"),
        (AddAttention, {"reduction": 0}, r"needs reduction: int >= 1, found 0"),
        (AddAttention, {"is_causal": 1}, r"needs is_causal: bool, found 1"),
        (AddPooling, {"variant": "max"}, r"needs site: str and a variant of .*downsample.* found 'max'"),
        (AddPooling, {"kernel_size": 4}, r"an odd kernel_size"),
        (AddPooling, {"stride": 1}, r"needs stride: int >= 2, found 1"),
    ],
)
def test_fields_that_make_no_sense_are_refused(kind: type[Mutation], fields: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        kind(site="a", **fields)  # type: ignore[call-arg]
