"""The free form of multi-head attention computes what torch's own computes."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from neuroexapt.graph.free_attention import FreeAttention, attention_freed, is_freeable

OPTIONS = list(itertools.product([True, False], [True, False], ["self", "cross"], [None, "bool", "float", "per head"]))


@pytest.mark.parametrize(("batch_first", "need_weights", "kind", "mask"), OPTIONS)
def test_it_computes_the_same_as_the_parent_class(
    batch_first: bool, need_weights: bool, kind: str, mask: str | None
) -> None:
    torch.manual_seed(0)
    own = nn.MultiheadAttention(8, 2, batch_first=batch_first).double()
    own.in_proj_bias.data.normal_()
    free = copy.deepcopy(own)
    free.__class__ = FreeAttention
    x = torch.randn(3, 5, 8).double()
    y = x if kind == "self" else torch.randn(3, 7, 8).double()
    padding = (torch.arange(y.shape[1]) > torch.tensor([3, 4, 9])[:, None]) if mask else None
    attn_mask = {
        None: None,
        "bool": torch.rand(5, y.shape[1]) > 0.8,
        "float": torch.randn(5, y.shape[1]).double(),
        "per head": torch.randn(6, 5, y.shape[1]).double(),
    }[mask]
    if mask == "bool":
        assert attn_mask is not None
        attn_mask[:, 0] = False
    if mask in ("float", "per head"):
        assert padding is not None
        padding = torch.zeros(padding.shape, dtype=torch.float64).masked_fill(padding, float("-inf"))
    arguments = [t if batch_first else t.transpose(0, 1) for t in (x, y, y)]
    if kind == "self":
        arguments = [arguments[0]] * 3
    options = {"key_padding_mask": padding, "attn_mask": attn_mask, "need_weights": need_weights}
    expected, expected_weights = own(*arguments, **options)
    found, weights = free(*arguments, **options)
    torch.testing.assert_close(found, expected)
    if need_weights:
        torch.testing.assert_close(weights, expected_weights)
    else:
        assert weights is None


def test_unbatched_inputs_and_weights_per_head() -> None:
    own = nn.MultiheadAttention(8, 2).double()
    free = copy.deepcopy(own)
    free.__class__ = FreeAttention
    x = torch.randn(5, 8).double()
    for expected, found in zip(
        own(x, x, x, average_attn_weights=False), free(x, x, x, average_attn_weights=False), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 4, "vdim": 4}])
def test_what_it_does_not_compute_stays_as_it_is(options: dict[str, bool | int]) -> None:
    module = nn.MultiheadAttention(8, 2, **options)
    assert not is_freeable(module)
    with attention_freed(module):
        assert type(module) is nn.MultiheadAttention


def test_classes_come_back_when_the_reading_fails() -> None:
    model = nn.TransformerEncoderLayer(8, 2)

    def fail() -> None:
        with attention_freed(model):
            assert isinstance(model.self_attn, FreeAttention)
            raise KeyError("stopped")

    with pytest.raises(KeyError, match="stopped"):
        fail()
    assert type(model.self_attn) is nn.MultiheadAttention
