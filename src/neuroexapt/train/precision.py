"""The precision of a forward pass, and so of its backward pass: float32 or bfloat16.

In bfloat16 convolutions and matrix products run on rounded copies of weights and inputs, while weights, gradients,
statistics and the optimizer stay float32 (Micikevicius et al. 2018, *Mixed Precision Training*, section 3.1). Its range
is that of float32, so the loss needs no scaling (Kalamkar et al. 2019, *A Study of BFLOAT16 for Deep Learning
Training*).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]


def forward_in(precision: Precision, model: nn.Module, inputs: Tensor) -> Tensor:
    """Returns the model's output as float32, whatever it was computed in."""
    if precision == "float32":
        output: Tensor = model(inputs)
        return output
    with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
        output = model(inputs)
    return output.float()
