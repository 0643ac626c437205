"""Self-attention over positions, silent at first."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PositionAttention(nn.Module):
    """``x + W_o attention(W_q x, W_k x, W_v x)`` with ``W_o = 0``.

    Wang et al. 2018, Non-local Neural Networks, eq. 6, with the heads of Vaswani et al. 2017.

    Args:
        channels: C of the input and output.
        width: Of queries, keys and values, all heads together.
        num_heads: Divides ``width``.
        is_map: Input is ``[N, C, H, W]``, otherwise ``[N, L, C]``.
        is_causal: A position sees itself and those before it only.
    """

    def __init__(self, channels: int, width: int, num_heads: int, is_map: bool, is_causal: bool) -> None:
        super().__init__()
        self.is_map, self.is_causal = is_map, is_causal
        self.num_heads, self.head_features = num_heads, width // num_heads  # one size for all three ties them
        self.query = nn.Linear(channels, width)
        self.key = nn.Linear(channels, width, bias=False)  # a bias of the keys cancels in the softmax
        self.value = nn.Linear(channels, width)
        self.out = nn.Linear(width, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, *inputs: object) -> Tensor:
        """[N, C, H, W] or [N, L, C] -> the same shape."""
        tokens = x.flatten(2).transpose(1, 2) if self.is_map else x
        query, key, value = (self._heads(layer(tokens)) for layer in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.is_causal)
        y: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        if self.is_map:
            y = y.transpose(1, 2).reshape(x.shape)
        return x + y

    def _heads(self, x: Tensor) -> Tensor:
        """[N, L, width] -> [N, heads, L, width / heads]."""
        return x.reshape(*x.shape[:2], self.num_heads, self.head_features).transpose(1, 2)
