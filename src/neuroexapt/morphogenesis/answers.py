"""Which mutation kinds answer which need of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from neuroexapt.surgery import (
    AddAttention,
    AddBranch,
    AddPooling,
    AddRegularization,
    AddResidual,
    ExpandBottleneck,
    HybridDivision,
    InsertLayer,
    Mutation,
    PruneUnits,
    RemoveLayer,
    SplitUnits,
    Widen,
)

ANSWERS: Mapping[str, tuple[type[Mutation], ...]] = MappingProxyType(
    {
        "wider": (Widen, ExpandBottleneck, SplitUnits),
        "deeper": (InsertLayer,),
        "path": (AddBranch, AddResidual, HybridDivision),
        "attention": (AddAttention, AddPooling),
        "less": (PruneUnits, RemoveLayer, AddRegularization),
    }
)
