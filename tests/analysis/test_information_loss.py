"""Loss of information along the executed graph: which edges there are, and what their intervals hold."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from neuroexapt.analysis.information_loss import information_loss
from neuroexapt.analysis.measuring import ModelEvidence, measure_evidence
from neuroexapt.analysis.watching import LayerSample, WatchedLayer
from neuroexapt.config import EvidenceConfig

ENOUGH = 1 << 30


class Residual(nn.Module):
    """A block with a skip whose layers are listed in another order than they run in."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.stem = nn.Conv2d(2, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.second(torch.relu(self.first(x))))
        return self.head(x.mean((2, 3)))


class Branches(nn.Module):
    """Two branches of one stem, joined: the later one is listed first."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(8, 8)
        self.narrow = nn.Linear(8, 2)
        self.stem = nn.Linear(4, 8)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        narrow = torch.relu(self.narrow(x))
        return self.head(torch.cat([torch.relu(self.wide(x)), narrow], 1))


def batch_of(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(*shape, generator=generator)
    return inputs, (inputs.flatten(1)[:, :3] + inputs.flatten(1)[:, 1:4]).argmax(1)


def edges_of(model: nn.Module, *shape: int) -> ModelEvidence:
    config = EvidenceConfig(estimators=("label_probe",))
    return measure_evidence(model, [batch_of(*shape)], config=config)


def test_edges_of_a_residual_net_follow_the_forward() -> None:
    torch.manual_seed(0)
    found = edges_of(Residual(), 48, 2, 4, 4).edges
    assert [(edge.source, edge.target) for edge in found] == [
        ("stem", "first"),
        ("stem", "head"),
        ("first", "second"),
        ("second", "head"),
    ]


def test_edges_of_branches_lead_from_their_stem_and_to_where_they_join() -> None:
    torch.manual_seed(0)
    evidence = edges_of(Branches(), 64, 4)
    assert {(edge.source, edge.target) for edge in evidence.edges} == {
        ("stem", "narrow"),
        ("stem", "wide"),
        ("narrow", "head"),
        ("wide", "head"),
    }
    told = {layer.path: layer.values["label_information"].value for layer in evidence.layers}
    for edge in evidence.edges:
        assert abs(edge.value.value - (told[edge.source] - told[edge.target])) < 1e-9
    assert ModelEvidence.from_json(json.loads(json.dumps(evidence.to_json()))) == evidence


def layer(path: str, *successors: str) -> WatchedLayer:
    return WatchedLayer(path=path, width=6, num_inputs=6, reader="", successors=successors, kind="Linear")


def samples_of(num_rows: int, seed: int) -> dict[str, LayerSample]:
    """Three layers: everything, the same turned, and the half of it that tells nothing."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(3, (num_rows,), generator=generator)
    rows = torch.randn(num_rows, 6, generator=generator)
    rows[:, :3] += 1.5 * torch.eye(3)[classes]
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(7)))[0]
    views = {"all": rows, "turned": rows @ turn, "rest": rows[:, 3:]}
    return {
        path: LayerSample(features=view, low=view.amin(0), high=view.amax(0), pooled=view, targets=classes)
        for path, view in views.items()
    }


def test_a_turn_loses_nothing_and_dropping_what_tells_the_label_loses_all_of_it() -> None:
    layers = [layer("all", "turned", "rest"), layer("turned"), layer("rest")]
    true_loss = {edge.target: edge.value.value for edge in information_loss(layers, samples_of(4096, 99), ENOUGH)}
    assert abs(true_loss["turned"]) < 0.01
    held = dict.fromkeys(true_loss, 0)
    for seed in range(30):
        for edge in information_loss(layers, samples_of(96, seed), ENOUGH):
            held[edge.target] += edge.value.low <= true_loss[edge.target] <= edge.value.high
            assert edge.target != "rest" or edge.value.low > 0
    assert min(held.values()) >= 28


def test_edges_of_layers_without_classes_or_room_are_left_out() -> None:
    layers, samples = [layer("all", "turned", "rest"), layer("turned"), layer("rest")], samples_of(64, 0)
    assert information_loss(layers, samples, samples["all"].num_bytes) == ()
    del samples["rest"]
    assert [edge.target for edge in information_loss(layers, samples, ENOUGH)] == ["turned"]
