"""A parameter gets another storage; graphs from before are closed, and open again when the old one comes back."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn

from neuroexapt.errors import SurgeryError
from neuroexapt.surgery.writing.swap import Exchange


def pair() -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(3))


def graph_that_ran(parameter: nn.Parameter) -> Tensor:
    loss = (parameter * 1.0).sum()
    loss.backward(retain_graph=True)
    return loss


def test_the_object_keeps_its_identity_and_attributes_and_gets_the_other_contents() -> None:
    parameter, other = pair()
    parameter.note = "mine"  # type: ignore[attr-defined]
    Exchange(parameter, other, "w")
    assert parameter.shape == (3,)
    assert other.shape == (2,)
    assert parameter.note == "mine"  # type: ignore[attr-defined]


def test_a_backward_through_a_graph_from_before_the_edit_is_an_error() -> None:
    parameter, other = pair()
    loss = graph_that_ran(parameter)
    Exchange(parameter, other, "w")
    with pytest.raises(SurgeryError, match=r"w: this backward belongs to a forward from before an edit"):
        loss.backward()


def test_after_an_undo_gradients_flow_again_even_while_the_old_loss_is_kept() -> None:
    parameter, other = pair()
    loss = graph_that_ran(parameter)
    Exchange(parameter, other, "w").undo()
    parameter.grad = None
    (parameter * 2.0).sum().backward()
    assert torch.equal(parameter.grad, torch.full((2,), 2.0))
    loss.backward()
    assert torch.equal(parameter.grad, torch.full((2,), 3.0))


def test_a_graph_of_a_trial_is_closed_when_the_trial_is_undone() -> None:
    parameter, other = pair()
    exchange = Exchange(parameter, other, "w")
    loss = graph_that_ran(parameter)
    exchange.undo()
    with pytest.raises(SurgeryError, match=r"from before an edit"):
        loss.backward()


def test_a_graph_that_has_not_run_its_backward_is_refused_and_nothing_changes() -> None:
    parameter, other = pair()
    kept = (parameter * parameter).sum()
    with pytest.raises(SurgeryError, match=r"w: something in torch still refers to it: an autograd graph"):
        Exchange(parameter, other, "w")
    assert parameter.shape == (2,)
    kept.backward()


def test_gradient_hooks_stay_with_the_object_through_exchange_and_undo_and_their_handles_work() -> None:
    parameter, other = pair()
    seen: list[tuple[str, int]] = []
    first = parameter.register_hook(lambda g: seen.append(("first", len(g))))

    def backward() -> list[tuple[str, int]]:
        seen.clear()
        parameter.grad = None
        (parameter * 1.0).sum().backward()
        return list(seen)

    exchange = Exchange(parameter, other, "w")
    assert backward() == [("first", 3)]
    last = parameter.register_post_accumulate_grad_hook(lambda p: seen.append(("last", len(p.grad))))
    assert backward() == [("first", 3), ("last", 3)]
    exchange.undo()
    assert backward() == [("first", 2), ("last", 2)]
    first.remove()
    last.remove()
    assert backward() == []


def test_weak_references_lead_to_the_same_object_with_its_new_contents() -> None:
    parameter, other = pair()
    reference = weakref.ref(parameter)
    Exchange(parameter, other, "w")
    assert reference() is parameter
    assert parameter.shape == (3,)
