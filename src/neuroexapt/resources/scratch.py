"""What a kernel takes and gives back by itself, where that is large and known: oneDNN's convolutions on CPU.

They compute on copies with the channels in blocks, of input, weights and output, and convert at both ends; a 1x1 kernel
at stride 1 runs on the tensors as they are. Seen with ``torch.profiler`` on torch 2.13 with AVX-512. Where oneDNN has
only AVX2, its kernels for wide layers on maps of 2x2 take up to four times the weights besides, which is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

_BLOCKS = {"AVX512": 16}  # channels in one block, by the processor's vector width; 8 elsewhere


def scratch_bytes(func: Any, args: Sequence[Any], result: Any) -> int:
    """Returns the bytes beyond its operands that are alive at the worst moment inside an operator, results included.

    Works on fake tensors. 0 for an operator of which nothing is known.
    """
    if func is torch.ops.aten.convolution.default:
        source, weight, stride, target = args[0], args[1], args[3], result
        if not _is_blocked(source, weight, stride):
            return 0
        source_copy = _in_blocks(source) if source.shape[1] >= _block() else 0
        return max(source_copy + _filters_in_blocks(weight) + _in_blocks(target), _in_blocks(target) + _bytes(target))
    if func is torch.ops.aten.convolution_backward.default:
        target, source, weight, stride = args[0], args[1], args[2], args[4]
        if not _is_blocked(source, weight, stride):
            return 0
        filters = _filters_in_blocks(weight)
        inside = max(_in_blocks(source) + filters + _in_blocks(target), filters + _bytes(weight))
        return inside + (_bytes(source) if args[-1][0] else 0)
    return 0


def _is_blocked(source: Tensor, weight: Tensor, stride: Sequence[int]) -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    is_ours = source.device.type == "cpu" and source.dtype == torch.float32 and source.dim() == 4
    is_wide = max(source.shape[1], weight.shape[0]) > 4  # for fewer channels there are kernels without blocks
    is_plain = source.is_contiguous() and source.shape[0] > 1
    return is_ours and is_wide and is_plain and (weight.shape[2:].numel() > 1 or max(stride) > 1)


def _block() -> int:
    return _BLOCKS.get(torch.backends.cpu.get_cpu_capability(), 8)


def _rounded(channels: int) -> int:
    return -(-channels // _block()) * _block()


def _in_blocks(tensor: Tensor) -> int:
    return tensor.shape[0] * _rounded(tensor.shape[1]) * prod(tensor.shape[2:]) * tensor.element_size()


def _filters_in_blocks(weight: Tensor) -> int:
    return _rounded(weight.shape[0]) * weight.shape[1:].numel() * weight.element_size()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
