"""``nn.MultiheadAttention`` without its tie between the width of the model and heads times head width.

torch's own forward demands ``num_heads * head_dim == embed_dim``, so that one more head in one layer would need a wider
residual stream in all of them. ``FreeAttention`` has the same parameters under the same names and computes the same
(Vaswani et al. 2017, section 3.2.2), with the head width read from the weights. The graph reads such modules in this
form; an edit that makes a module's heads differ from its width changes its class for good, in place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FreeAttention(nn.MultiheadAttention):
    """Multi-head attention with any number of heads of any width; parameters are those of the parent class."""

    @property
    def _qkv_same_embed_dim(self) -> bool:
        return False  # keeps torch's fused inference path, which computes head sizes from the width, away

    def forward(  # noqa: D102 - the parent's contract
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        is_batched = query.dim() == 3
        if not is_batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._heads(query, key, value)
        mask = self._mask(q, attn_mask, key_padding_mask)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * q.shape[-1] ** -0.5) @ k.mT
            probabilities = (scores if mask is None else scores + mask).softmax(-1)
            attended = F.dropout(probabilities, dropout) @ v if dropout else probabilities @ v
            weights = probabilities.mean(1) if average_attn_weights else probabilities
        else:
            attended = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal and mask is None
            )
        output = self.out_proj(attended.transpose(1, 2).flatten(2))
        if not is_batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return (output if self.batch_first else output.transpose(0, 1)), weights

    def _heads(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values ``[batch, heads, tokens, width]``."""
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if query is key and key is value:
            packed = torch.unflatten(F.linear(query, weight, bias), -1, (3, self.num_heads, -1))
            q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
            return q, k, v
        weights = torch.unflatten(weight, 0, (3, self.num_heads, -1)).unbind(0)
        biases = (None, None, None) if bias is None else torch.unflatten(bias, 0, (3, self.num_heads, -1)).unbind(0)
        made = []
        for x, w, b in zip((query, key, value), weights, biases, strict=True):
            flat = F.linear(x, w.flatten(0, 1), None if b is None else b.flatten())
            made.append(torch.unflatten(flat, -1, (self.num_heads, -1)).transpose(1, 2))
        q, k, v = made
        return q, k, v

    def _mask(self, q: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None) -> Tensor | None:
        """Returns what is added to the scores, ``[batch or 1, heads or 1, queries or 1, keys]``."""
        masks = []
        if attn_mask is not None:
            mask = _additive(attn_mask, q)
            masks.append(mask if mask.dim() == 2 else torch.unflatten(mask, 0, (-1, self.num_heads)))
        if key_padding_mask is not None:
            masks.append(_additive(key_padding_mask, q)[:, None, None, :])
        return sum(masks[1:], masks[0]) if masks else None


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))


def is_freeable(module: nn.Module) -> bool:
    """Whether a module computes what ``FreeAttention`` computes; extra keys and separate projections do not."""
    return (
        type(module) is nn.MultiheadAttention
        and module._qkv_same_embed_dim
        and module.bias_k is None
        and not module.add_zero_attn
    )


@contextlib.contextmanager
def attention_freed(model: nn.Module) -> Iterator[None]:
    """Reads every ``nn.MultiheadAttention`` as ``FreeAttention`` inside; classes are the old ones again on exit."""
    freed = [module for module in model.modules() if is_freeable(module)]
    try:
        for module in freed:
            module.__class__ = FreeAttention
        yield
    finally:
        for module in freed:
            module.__class__ = nn.MultiheadAttention
