"""What growth may cost: limits relative to the seed network, refused before anything is allocated."""

from __future__ import annotations

from neuroexapt.config import MorphogenesisConfig
from neuroexapt.surgery import Budget


def budget_of(config: MorphogenesisConfig, seed_parameters: int, seed_flops: int, batch_size: int | None) -> Budget:
    """Returns the limits for what grows from a seed network.

    Args:
        config: Its ratios, and its bytes.
        seed_parameters: Of the seed network.
        seed_flops: Forward FLOPs of the seed network, per sample.
        batch_size: Samples in one training step.
    """
    return Budget(
        parameters=int(seed_parameters * config.max_parameter_ratio),
        flops_per_sample=max(int(seed_flops * config.max_flop_ratio), 1),
        bytes=config.max_bytes,
        batch_size=batch_size,
    )
