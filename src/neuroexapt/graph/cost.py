"""What a model costs: parameters, forward FLOPs, activation bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """Counts for one forward pass on the example inputs, in eval mode.

    Attributes:
        num_parameters: Elements of all parameters, tied ones once.
        flops: Floating-point operations, a multiply-add as two, by the formulas of ``torch.utils.flop_counter``.
        activation_bytes: Bytes of the results of all operators that do not return a view.
        batch_size: First dimension of the first tensor input.
        flops_by_module: FLOPs of the operators that each module called itself, by path.
    """

    num_parameters: int
    flops: int
    activation_bytes: int
    batch_size: int
    flops_by_module: Mapping[str, int]

    @property
    def flops_per_sample(self) -> int:
        """Forward FLOPs for one sample."""
        return self.flops // max(self.batch_size, 1)
