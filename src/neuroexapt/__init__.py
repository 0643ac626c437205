"""NeuroExapt: change a network's architecture while it trains, and lose nothing."""

from neuroexapt.config import DataConfig, GrowConfig, ModelConfig, MorphogenesisConfig, TrainConfig
from neuroexapt.graph import ModelGraph, trace
from neuroexapt.morphogenesis import Morphogenesis
from neuroexapt.surgery import (
    InsertLayer,
    Lineage,
    Mutation,
    Patch,
    Surgeon,
    Widen,
    candidates,
    replay,
)
from neuroexapt.train import RunResult, Trainer, load_checkpoint, save_checkpoint

__version__ = "0.1.0"

__all__ = [
    "DataConfig",
    "GrowConfig",
    "InsertLayer",
    "Lineage",
    "ModelConfig",
    "ModelGraph",
    "Morphogenesis",
    "MorphogenesisConfig",
    "Mutation",
    "Patch",
    "RunResult",
    "Surgeon",
    "TrainConfig",
    "Trainer",
    "Widen",
    "__version__",
    "candidates",
    "load_checkpoint",
    "replay",
    "save_checkpoint",
    "trace",
]
