"""NeuroExapt: change a network's architecture while it trains, and lose nothing.

Names are found on first use, so that importing the package costs next to nothing and ``nx.trace`` brings no settings.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroexapt.analysis import BottleneckReport, Evidence, ModelEvidence, bottlenecks, measure_evidence
    from neuroexapt.config import DataConfig, EvidenceConfig, GrowConfig, ModelConfig, MorphogenesisConfig, TrainConfig
    from neuroexapt.graph import ModelGraph, trace
    from neuroexapt.morphogenesis import Morphogenesis
    from neuroexapt.surgery import (
        AddAttention,
        AddBranch,
        AddPooling,
        AddRegularization,
        AddResidual,
        Budget,
        ExpandBottleneck,
        Forecast,
        HybridDivision,
        InsertLayer,
        Lineage,
        Mutation,
        Patch,
        PruneUnits,
        PruneWeights,
        RemoveLayer,
        SplitUnits,
        Surgeon,
        SwapOperation,
        Widen,
        candidates,
        replay,
        select_units,
    )
    from neuroexapt.train import RunResult, Trainer, load_checkpoint, save_checkpoint

__version__ = "0.1.0"

__all__ = [
    "AddAttention",
    "AddBranch",
    "AddPooling",
    "AddRegularization",
    "AddResidual",
    "BottleneckReport",
    "Budget",
    "DataConfig",
    "Evidence",
    "EvidenceConfig",
    "ExpandBottleneck",
    "Forecast",
    "GrowConfig",
    "HybridDivision",
    "InsertLayer",
    "Lineage",
    "ModelConfig",
    "ModelEvidence",
    "ModelGraph",
    "Morphogenesis",
    "MorphogenesisConfig",
    "Mutation",
    "Patch",
    "PruneUnits",
    "PruneWeights",
    "RemoveLayer",
    "RunResult",
    "SplitUnits",
    "Surgeon",
    "SwapOperation",
    "TrainConfig",
    "Trainer",
    "Widen",
    "__version__",
    "bottlenecks",
    "candidates",
    "load_checkpoint",
    "measure_evidence",
    "replay",
    "save_checkpoint",
    "select_units",
    "trace",
]

_ROOMS = {
    "neuroexapt.analysis": ("BottleneckReport", "Evidence", "ModelEvidence", "bottlenecks", "measure_evidence"),
    "neuroexapt.config": (
        "DataConfig",
        "EvidenceConfig",
        "GrowConfig",
        "ModelConfig",
        "MorphogenesisConfig",
        "TrainConfig",
    ),
    "neuroexapt.graph": ("ModelGraph", "trace"),
    "neuroexapt.morphogenesis": ("Morphogenesis",),
    "neuroexapt.surgery": (
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
        "PruneUnits",
        "PruneWeights",
        "RemoveLayer",
        "SplitUnits",
        "Surgeon",
        "SwapOperation",
        "Widen",
        "candidates",
        "replay",
        "select_units",
    ),
    "neuroexapt.train": ("RunResult", "Trainer", "load_checkpoint", "save_checkpoint"),
}


def __getattr__(name: str) -> Any:
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(room), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
