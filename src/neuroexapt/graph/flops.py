"""FLOPs of operators by the formulas of ``torch.utils.flop_counter``, counted while they run.

It has none for two: eigenvectors count ``EIGENVECTOR_FLOPS`` n^3, and attention on the CPU counts as it does on GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from neuroexapt.graph.rules.stand_ins import run

EIGENVECTOR_FLOPS = 9  # of a symmetric matrix (Golub & Van Loan 2013, Matrix Computations, section 8.3)


def operator_flops(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int | None:
    """Returns the FLOPs of one operator, a multiply-add as two, or ``None`` where there is no formula."""
    packet = getattr(func, "_overloadpacket", None)
    if packet is torch.ops.aten._linalg_eigh:
        return EIGENVECTOR_FLOPS * int(args[0].shape[-1]) * int(args[0].numel())
    if packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        packet = torch.ops.aten._scaled_dot_product_flash_attention
    formula = flop_registry.get(packet)
    return None if formula is None else int(formula(*args, **kwargs, out_val=result))


class FlopCount(TorchDispatchMode):
    """Sums the FLOPs of what runs inside, as the cost of a ``ModelGraph`` does, in ``flops``.

    Args:
        fakes: Whether operators on fake and meta tensors count, which compute nothing.
    """

    def __init__(self, *, fakes: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops, self._fakes = 0, fakes

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operator and counts."""
        result = run(func, args, kwargs or {})
        if self._fakes or not (isinstance(result, Tensor) and (result.is_meta or isinstance(result, FakeTensor))):
            self.flops += operator_flops(func, args, kwargs or {}, result) or 0
        return result
