"""Cost against torch's own counter, and against a recount of what a real run allocates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from contracts.networks import NETWORKS, batch, build
from graph.extra_networks import EXTRA, build_extra
from neuroexapt.graph import trace


class Bytes(TorchDispatchMode):
    """Bytes of the results of operators that are not views, of a real run."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if not any(r.alias_info is not None for r in func._schema.returns):
            self.num_bytes += sum(t.nbytes for t in tree_leaves(result) if isinstance(t, Tensor))
        return result


CASES = [*NETWORKS, *(name for name in EXTRA if name not in ("lstm", "self_attention", "transformer_layer"))]


def network(name: str) -> tuple[nn.Module, Tensor]:
    return build_extra(name) if name in EXTRA else (build(name), batch())


@pytest.mark.parametrize("name", CASES)
def test_cost_equals_a_recount_of_a_real_run(name: str) -> None:
    model, inputs = network(name)
    cost = trace(model, inputs).cost
    with Bytes() as allocated:
        model.eval()(inputs)
    with FlopCounterMode(display=False) as flops, sdpa_kernel(SDPBackend.MATH):  # attention as products that it counts
        model(inputs)
    assert cost.flops == flops.get_total_flops() == sum(cost.flops_by_module.values())
    assert cost.num_parameters == sum(p.numel() for p in model.parameters())
    assert cost.batch_size == len(inputs)
    assert cost.flops_per_sample * len(inputs) <= cost.flops
    assert cost.activation_bytes == allocated.num_bytes


def test_attention_counts_its_two_products_as_the_cpu_computes_it_too() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    heads, positions, width = 2, 5, 8
    cost = trace(Attention(), torch.randn(3, heads, positions, width)).cost
    assert cost.flops_per_sample == 2 * (2 * heads * positions * positions * width)


def test_flops_belong_to_the_module_that_called_the_operator() -> None:
    cost = trace(build("mlp"), batch()).cost
    assert cost.flops_by_module["layers.1"] == 2 * 4 * 192 * 10
    assert set(cost.flops_by_module) == {"layers.1", "layers.3", "layers.5"}


def test_a_model_without_tensor_inputs_counts_one_sample() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(3, 4))

        def forward(self, n: int) -> Tensor:
            return self.table * n

    assert trace(Fixed(), {"n": 2}).cost.batch_size == 1
