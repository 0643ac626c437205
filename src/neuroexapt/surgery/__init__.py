"""Changing a model: mutations as values, one writer, patches that can be taken back."""

from neuroexapt.surgery.checking.budget import Budget
from neuroexapt.surgery.checking.forecast import Forecast, Prospect
from neuroexapt.surgery.lineage import Lineage
from neuroexapt.surgery.mutation import Mutation, parse
from neuroexapt.surgery.mutations import (
    MUTATIONS,
    AddAttention,
    AddBranch,
    AddPooling,
    AddRegularization,
    AddResidual,
    ExpandBottleneck,
    HybridDivision,
    InsertLayer,
    PruneUnits,
    PruneWeights,
    RemoveLayer,
    SplitUnits,
    SwapOperation,
    Widen,
)
from neuroexapt.surgery.patch import Patch
from neuroexapt.surgery.plan import Plan
from neuroexapt.surgery.removal.selecting import select_units
from neuroexapt.surgery.surgeon import Surgeon, candidates, replay

__all__ = [
    "MUTATIONS",
    "AddAttention",
    "AddBranch",
    "AddPooling",
    "AddRegularization",
    "AddResidual",
    "Budget",
    "ExpandBottleneck",
    "Forecast",
    "HybridDivision",
    "InsertLayer",
    "Lineage",
    "Mutation",
    "Patch",
    "Plan",
    "Prospect",
    "PruneUnits",
    "PruneWeights",
    "RemoveLayer",
    "SplitUnits",
    "Surgeon",
    "SwapOperation",
    "Widen",
    "candidates",
    "parse",
    "replay",
    "select_units",
]
