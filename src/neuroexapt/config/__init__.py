"""Settings of a run: frozen values that check themselves on construction and go to JSON and back."""

from neuroexapt.config.files import apply_overrides, from_json, load_config, put, to_json
from neuroexapt.config.settings import (
    AugmentConfig,
    DataConfig,
    EvidenceConfig,
    GrowConfig,
    ModelConfig,
    MorphogenesisConfig,
    TrainConfig,
)

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "EvidenceConfig",
    "GrowConfig",
    "ModelConfig",
    "MorphogenesisConfig",
    "TrainConfig",
    "apply_overrides",
    "from_json",
    "load_config",
    "put",
    "to_json",
]
