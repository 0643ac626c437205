"""bfloat16 rounds what is multiplied, and nothing that is kept."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.train.evaluate import evaluate
from neuroexapt.train.precision import forward_in
from neuroexapt.train.step import GuardedStep
from train.tiny import data, network


def seen_dtypes(model: nn.Module) -> list[torch.dtype]:
    found: list[torch.dtype] = []
    model.conv.register_forward_hook(lambda module, inputs, output: found.append(output.dtype))
    return found


def test_convolutions_run_in_bfloat16_and_logits_come_back_as_float32() -> None:
    model, inputs = network().eval(), torch.randn(4, 1, 8, 8)
    found = seen_dtypes(model)
    exact, rounded = forward_in("float32", model, inputs), forward_in("bfloat16", model, inputs)
    assert found == [torch.float32, torch.bfloat16]
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert float((exact - rounded).detach().abs().max()) < 0.05  # 8 bits of mantissa


def test_a_step_in_bfloat16_keeps_weights_gradients_and_state_in_float32() -> None:
    model = network().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    found, gradients = seen_dtypes(model), []
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: gradients.append(gradient.dtype))
    losses: list[torch.dtype] = []

    def loss_function(logits: Tensor, labels: Tensor) -> Tensor:
        losses.append(logits.dtype)
        return F.cross_entropy(logits, labels)

    step = GuardedStep(model, optimizer, loss_function, None, 3, lambda *_: None, "bfloat16")
    result = step(torch.randn(8, 1, 8, 8), torch.arange(8) % 4)
    assert result.was_applied
    assert (found, losses) == ([torch.bfloat16], [torch.float32])
    assert {p.dtype for p in model.parameters()} | {b.dtype for b in model.buffers()} == {torch.float32, torch.int64}
    assert set(gradients) == {torch.float32}
    assert {state["momentum_buffer"].dtype for state in optimizer.state.values()} == {torch.float32}


def test_evaluation_in_bfloat16_is_close_to_that_in_float32_and_not_the_same() -> None:
    model, split = network(), data().validation
    batch = [(data().normalise(split.images), split.labels)]
    exact, rounded = evaluate(model, batch), evaluate(model, batch, "bfloat16")
    assert exact[0] != rounded[0] == pytest.approx(exact[0], rel=0.01)
