"""A resizing is asked for by every plan of an edit, and found out once."""

from __future__ import annotations

import pytest

from contracts.networks import batch, build
from neuroexapt.graph import trace
from neuroexapt.graph.rehearsal import Rehearsal


def test_each_size_is_rehearsed_once_until_an_axis_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = trace(build("conv_bn"), batch())
    group, other = [g for g in graph.groups if not g.reason][:2]
    run, rehearsed = Rehearsal.at, []

    def counted(self: Rehearsal, sizes, attributes):  # type: ignore[no-untyped-def]
        rehearsed.append(sizes)
        return run(self, sizes, attributes)

    monkeypatch.setattr(Rehearsal, "at", counted)
    first = graph.resizing({group.leaf: group.size + 2})
    assert graph.resizing({group.leaf: group.size + 2}) is first
    assert len(rehearsed) == 1
    graph.resizing({group.leaf: group.size + 4})
    assert len(rehearsed) == 2
    graph.freeze(other, "for this test")
    assert graph.resizing({group.leaf: group.size + 2}) == first
    assert len(rehearsed) == 3
