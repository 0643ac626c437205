"""Fused scaled dot-product attention."""

from __future__ import annotations

from neuroexapt.graph.rules.halves import halved
from neuroexapt.graph.rules.registry import RuleResult, rule
from neuroexapt.graph.space import Space, unify
from neuroexapt.graph.values import Call, NotUnderstood, fresh_dims


@rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_attention_math_for_mps",
    "scaled_dot_product_attention",
)
def attention(call: Call) -> RuleResult:
    """softmax(q k^T / sqrt(d)) v, with q, k, v as [batch, heads, tokens, d] (Vaswani et al. 2017, eq. 1)."""
    query, key, value = (call.dims(call[name]) for name in ("query", "key", "value"))
    if not len(query) == len(key) == len(value) == 4:
        raise NotUnderstood("attention over other than four dimensions")
    unify(query[0], key[0])
    unify(key[0], value[0])
    _share_heads(call, query[1], key[1])
    _share_heads(call, query[1], value[1])
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
    if call.get("is_causal", False):
        call.pins([query[2], key[2]], "tokens have an order")
    per_row = (query[0], query[1], query[2])
    sizes = [space.size for space in per_row]
    rest = [per_row if list(o.shape) == sizes else fresh_dims(o, "internal to attention") for o in call.outputs[1:]]
    return [(query[0], query[1], query[2], value[3]), *rest]


def _share_heads(call: Call, query: Space, shared: Space) -> None:
    """Query head h reads key and value head h // (heads / shared heads) (Ainslie et al. 2023)."""
    if query.size % shared.size:
        raise NotUnderstood(f"{query.size} query heads and {shared.size} key and value heads")
    unify(halved(call, query, shared.size)[0], shared)
