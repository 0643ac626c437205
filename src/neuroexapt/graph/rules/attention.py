"""Fused scaled dot-product attention."""

from __future__ import annotations

from neuroexapt.graph.rules.registry import RuleResult, rule
from neuroexapt.graph.space import unify
from neuroexapt.graph.values import Call, fresh_dims


@rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_attention_math",
    "scaled_dot_product_attention",
)
def attention(call: Call) -> RuleResult:
    """softmax(q k^T / sqrt(d)) v, with q, k, v as [batch, heads, tokens, d] (Vaswani et al. 2017, eq. 1)."""
    query, key, value = (call.dims(call[name]) for name in ("query", "key", "value"))
    for dim in (0, 1):
        unify(query[dim], key[dim])
        unify(key[dim], value[dim])
    unify(query[3], key[3])
    unify(key[2], value[2])
    call.reads_across([query[3]], " (scores and their scale)")
    call.reads_across([key[2]])
    mask = call.get("attn_mask", call.get("attn_bias"))
    if mask is not None:
        for space, target, size in zip(
            reversed(call.dims(mask)), (key[2], query[2], query[1], query[0]), reversed(mask.shape), strict=False
        ):
            if size != 1:
                unify(space, target)
    per_row = (query[0], query[1], query[2])
    sizes = [space.size for space in per_row]
    rest = [per_row if list(o.shape) == sizes else fresh_dims(o, "internal to attention") for o in call.outputs[1:]]
    return [(query[0], query[1], query[2], value[3]), *rest]
