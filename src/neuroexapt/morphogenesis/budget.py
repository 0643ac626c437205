"""What growth may cost; refused before anything is kept."""

from __future__ import annotations

from dataclasses import dataclass

from neuroexapt.config import MorphogenesisConfig


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits relative to the seed network.

    Attributes:
        num_parameters: Most parameters that the network may have.
        flops: Most forward FLOPs per sample.
    """

    num_parameters: int
    flops: int

    @staticmethod
    def of(config: MorphogenesisConfig, seed_parameters: int, seed_flops: int) -> Budget:
        """Returns the limits for a seed network."""
        return Budget(int(seed_parameters * config.max_parameter_ratio), int(seed_flops * config.max_flop_ratio))

    def refusal(self, num_parameters: int, flops: int) -> str:
        """Returns why a network of this size is too large, or ``""``."""
        if num_parameters > self.num_parameters:
            return f"{num_parameters} parameters, more than the {self.num_parameters} allowed by max_parameter_ratio"
        if flops > self.flops:
            return f"{flops} FLOPs per sample, more than the {self.flops} allowed by max_flop_ratio"
        return ""
