"""What differs between two architectures: layers matched by path, in the order of execution, in words."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from neuroexapt.graph import Difference, LayerChange, difference, folded, trace
from neuroexapt.surgery import InsertLayer, Surgeon, Widen


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.last = nn.Conv2d(8, 6, 1)
        self.gain = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.act(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3))) * self.gain


def images() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def compared(before: nn.Module, after: nn.Module) -> Difference:
    return difference(trace(before, images()), trace(after, images()))


def by_path(found: Difference) -> dict[str, LayerChange]:
    return {change.layer.path: change for change in found.layers}


def test_a_model_and_its_copy_are_the_same_and_every_parameter_is_in_a_layer() -> None:
    model = Net()
    found = compared(model, copy.deepcopy(model))
    assert {change.status for change in found.layers} == {"unchanged"}
    assert not any(change.changes for change in found.layers)
    assert [change.layer.path for change in found.layers] == ["stem", "norm", "last", "head", ""]
    assert sum(change.layer.num_parameters for change in found.layers) == sum(p.numel() for p in model.parameters())
    assert sum(change.layer.flops for change in found.layers) == found.flops[0] == found.flops[1] > 0


def test_edits_show_as_wider_new_and_reading_more_with_their_costs() -> None:
    before = Net()
    after = copy.deepcopy(before)
    surgeon = Surgeon(after, images())
    surgeon.apply(Widen(axis="stem", to=12))
    surgeon.apply(InsertLayer(site="act"))
    found = compared(before, after)
    layers = by_path(found)
    assert [layers[path].status for path in ("stem", "norm", "last", "head")] == ["wider"] * 2 + [
        "changed",
        "unchanged",
    ]
    assert layers["stem"].changes == ("width 8 → 12",)
    assert layers["last"].changes == ("reads 8 → 12",)
    assert [path for path in layers if layers[path].status == "new"] == ["act.grafts.0.conv"]
    assert list(layers).index("act.grafts.0.conv") == list(layers).index("norm") + 1
    deltas = [c.after.num_parameters - (c.before.num_parameters if c.before else 0) for c in found.layers if c.after]
    assert sum(deltas) == found.num_parameters[1] - found.num_parameters[0]
    backwards = by_path(compared(after, before))
    assert backwards["stem"].status == "narrower"
    assert backwards["act.grafts.0.conv"].status == "removed"
    assert list(backwards) == list(layers)


def test_kernels_attributes_kinds_and_biases_are_said_in_words() -> None:
    before, after = Net(), Net()
    after.stem = nn.Conv2d(3, 8, 5, padding=2, bias=False)
    after.act = nn.Sequential(nn.GELU(), nn.Dropout(0.1))
    layers = by_path(compared(before, after))
    assert layers["stem"].changes == ("kernel 3x3 → 5x5", "padding 1x1 → 2x2", "bias gone")
    assert layers["stem"].status == "changed"
    assert (layers["act.0"].status, layers["act.1"].status) == ("new", "new")
    after.act = nn.GELU()
    assert by_path(compared(before, after))["act"].changes == ("ReLU → GELU",)
    before.act, after.act = nn.Dropout(0.1), nn.Dropout(0.3)
    assert by_path(compared(before, after))["act"].changes == ("p 0.1 → 0.3",)
    after.act = nn.Identity()
    after.gain = nn.Parameter(torch.ones(5))
    assert by_path(compared(before, after))[""].changes == ("gain 1 → 5",)


def test_pieces_stand_behind_the_layer_that_they_hang_on() -> None:
    before = Net()
    after = copy.deepcopy(before)
    Surgeon(after, images()).apply(InsertLayer(site="norm"))
    paths = [change.layer.path for change in compared(before, after).layers]
    assert paths[:4] == ["stem", "norm", "norm.grafts.0.conv", "norm.grafts.0"]


class Reading(nn.Module):
    """A projection that never runs by itself: its weight is read by the module around it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"projection": nn.Linear(8, 8)})

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.inner["projection"].weight + self.inner["projection"].bias


def test_parameters_of_what_does_not_run_itself_belong_to_the_module_around_it() -> None:
    model = nn.Sequential(Reading(), nn.Linear(8, 2))
    graphs = [trace(model, torch.randn(4, 8)) for _ in range(2)]
    layers = by_path(difference(*graphs))
    assert [(path, change.layer.num_parameters) for path, change in layers.items()] == [("0", 72), ("1", 18)]
    assert sum(change.layer.flops for change in layers.values()) == graphs[0].cost.flops_per_sample


def test_strangers_share_nothing_and_every_layer_of_both_is_there_once() -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 5))
    found = compared(Net(), other)
    assert found.count("removed") == 5  # the activation too
    assert found.count("new") == 4
    assert found.layers[-1].layer.path in ("", "3", "head")


def test_runs_of_unchanged_layers_are_folded_and_nothing_else() -> None:
    model, other = (nn.Sequential(nn.Flatten(), *[nn.Linear(192, 192) for _ in range(9)]) for _ in range(2))
    other[5] = nn.Linear(192, 192, bias=False)
    found = compared(model, other)
    shown = [row if isinstance(row, int) else row.layer.path for row in folded(found.layers)]
    assert shown == ["1", 2, "4", "5", "6", 2, "9"]
    shown = [row if isinstance(row, int) else row.layer.path for row in folded(found.layers, keep=2)]
    assert shown == [str(number) for number in range(1, 10)]
