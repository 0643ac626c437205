"""Several kinds of growth as one edit: planned in order, verified once, taken back whole, within a budget."""

from __future__ import annotations

import pytest
import torch

from contracts.networks import batch, build
from contracts.state import fingerprint
from neuroexapt.errors import SurgeryError
from neuroexapt.surgery import MUTATIONS, AddBranch, HybridDivision, InsertLayer, SplitUnits, Surgeon, Widen, parse

PARTS = (
    Widen(axis="conv1", to=9),
    AddBranch(site="conv1", branch="1x1"),
    InsertLayer(site="conv1"),
    Widen(axis="conv2", to=12),
)


def test_later_parts_see_what_earlier_ones_made() -> None:
    model = build("plain_conv")
    patch = Surgeon(model, batch()).apply(HybridDivision(parts=PARTS, max_parameters=10_000))
    assert patch.output_change <= 1e-12
    assert [piece.conv.weight.shape[0] for piece in model.conv1.grafts] == [9, 9]
    assert model.conv2.weight.shape[:2] == (12, 9)
    assert patch.sources["conv2.weight"].maps[0].tolist() == [*range(8), *[-1] * 4]
    assert patch.sources["conv2.weight"].maps[1].tolist() == [*range(6), *[-1] * 3]


def test_units_are_split_behind_a_wider_layer_and_all_of_it_leaves_at_once() -> None:
    model = build("mlp")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, surgeon = fingerprint(model, optimizer), Surgeon(model, batch(), optimizer)
    group = next(g for g in surgeon.graph.groups if g.can_widen)
    parts = (Widen(axis=group.name, to=group.size + 2), SplitUnits(axis=group.name, units=(0, group.size + 1)))
    patch = surgeon.apply(HybridDivision(parts=parts, max_parameters=10_000))
    assert patch.output_change <= 1e-12
    assert surgeon.graph.group(group.name).size == group.size + 4
    surgeon.revert(patch)
    assert fingerprint(model, optimizer) == before


def test_two_parts_on_one_axis_tell_where_its_units_came_from_before_both() -> None:
    model = build("plain_conv")
    parts = (Widen(axis="conv1", to=8), Widen(axis="conv1", to=9))
    patch = Surgeon(model, batch()).apply(HybridDivision(parts=parts, max_parameters=10_000))
    assert patch.sources["conv1.weight"].maps[0].tolist() == [*range(6), *[-1] * 3]
    assert patch.new_entries(model)["conv1.weight"][6:].all()


def test_more_parameters_than_allowed_are_refused_before_anything_changes() -> None:
    model = build("plain_conv")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = fingerprint(model, optimizer)
    with pytest.raises(SurgeryError, match=r"conv1: the parts add [\d,]+ parameters, allowed are 100\. Drop a part"):
        Surgeon(model, batch(), optimizer).apply(HybridDivision(parts=PARTS, max_parameters=100))
    assert fingerprint(model, optimizer) == before


def test_parts_that_cannot_be_combined_are_named() -> None:
    inner = HybridDivision(parts=PARTS, max_parameters=9).to_json()
    with pytest.raises(SurgeryError, match=r"unknown kind 'HybridDivision'; known are Widen"):
        parse(MUTATIONS, {"kind": "HybridDivision", "parts": [inner], "max_parameters": 9})
    with pytest.raises(SurgeryError, match="needs parts: one mutation or more"):
        parse(MUTATIONS, {"kind": "HybridDivision", "parts": [], "max_parameters": 9})
