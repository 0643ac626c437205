"""Trying a plan out on a copy of the model, to measure what it would do before it is done."""

from __future__ import annotations

from torch import nn

from neuroexapt.graph import ModelGraph
from neuroexapt.surgery.checking.structure import twin_of
from neuroexapt.surgery.plan import Plan
from neuroexapt.surgery.writing.apply import write
from neuroexapt.surgery.writing.undo import UndoLog


def edited_twin(graph: ModelGraph, plan: Plan) -> nn.Module:
    """Returns a copy of the model on which a plan has been carried out. Memory: another model."""
    twin = twin_of(graph.model)
    write(twin, (), plan, UndoLog())
    return twin
