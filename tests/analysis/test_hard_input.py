"""``measure_evidence`` on what breaks it: wrong batches, failing code, odd defaults, numbers at the ends of float32."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import neuroexapt as nx
from neuroexapt.analysis.measuring import ModelEvidence, measure_evidence
from neuroexapt.errors import InputError, ModelError, NeuroExaptError

Loss = Callable[[Any, Any], Any]
INPUTS = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS[:, :3].argmax(1)


def mlp() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


MODEL = mlp()
GRAPH = nx.trace(MODEL, INPUTS)


def measured(loss: Loss = F.cross_entropy) -> ModelEvidence:
    return measure_evidence(MODEL, [(INPUTS, TARGETS)], loss, graph=GRAPH)


WRONG: dict[str, tuple[Any, str]] = {
    "no batches": (7, "found int, needed batches"),
    "tensors": ([INPUTS], r"batch 0: found a tensor \[24, 6\] of float32, needed a pair"),
    "triples": ([(INPUTS, TARGETS, TARGETS)], "batch 0: found tuple of 3, needed a pair"),
    "no targets": ([(INPUTS, None)], "batch 0: found NoneType as targets"),
    "one target": ([(INPUTS, TARGETS[0])], r"batch 0: found a tensor \[\] of int64 as targets"),
    "nothing": ([(INPUTS, TARGETS), (INPUTS[:0], TARGETS[:0])], r"batch 1: found a tensor \[0\] of int64"),
    "fewer targets": ([(INPUTS, TARGETS[1:])], r"batch 0: found inputs of \[24, 6\] with targets of \[23\]"),
    "two kinds": ([(INPUTS, TARGETS), (INPUTS, INPUTS)], "batch 1: found a tensor .* unlike those before"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_batch_that_is_not_inputs_and_targets_is_told_with_its_number(kind: str) -> None:
    batches, message = WRONG[kind]
    with pytest.raises(InputError, match=message):
        measure_evidence(MODEL, batches, F.cross_entropy, graph=GRAPH)


def raises(outputs: Tensor, targets: Tensor) -> Tensor:
    raise KeyError("label")


def writes_over(outputs: Tensor, targets: Tensor) -> Tensor:
    squares = outputs.exp()
    loss = squares.mean()
    squares.zero_()
    return loss


FAILING: dict[str, tuple[Loss, type[NeuroExaptError], str]] = {
    "in the loss": (raises, ModelError, "the loss: it failed with KeyError: 'label'. Give a function"),
    "in the backward": (writes_over, ModelError, "the loss: its backward pass failed with RuntimeError: one of the"),
    "not reduced": (lambda o, t: F.cross_entropy(o, t, reduction="none"), InputError, r"found a tensor \[24\]"),
    "no tensor": (lambda o, t: 0.5, InputError, "the loss: found float, needed a tensor with one real number"),
}


@pytest.mark.parametrize("where", FAILING)
def test_a_failure_of_the_loss_says_where_and_what_to_do(where: str) -> None:
    loss, error, message = FAILING[where]
    with pytest.raises(error, match=message):
        measured(loss)


def test_a_failure_of_the_forward_on_a_later_batch_says_where_and_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"Sequential: forward failed with RuntimeError: mat1 and mat2.*Give inputs"):
        measure_evidence(MODEL, [(INPUTS, TARGETS), (INPUTS[:, 1:], TARGETS)], graph=GRAPH)


@contextlib.contextmanager
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "outside",
    [float64_by_default, torch.inference_mode, torch.no_grad, lambda: torch.device("meta")],
    ids=["float64", "inference", "no_grad", "device"],
)
def test_defaults_and_modes_of_the_user_change_nothing(outside: Callable[[], AbstractContextManager[None]]) -> None:
    with outside():
        found = measured()
        assert torch.is_inference_mode_enabled() == (outside is torch.inference_mode)
        assert torch.get_default_dtype() == (torch.float64 if outside is float64_by_default else torch.float32)
    assert found == measured()


def test_data_that_were_made_in_inference_mode_are_measured_like_any_other() -> None:
    with torch.inference_mode():
        batches = [(INPUTS.clone(), TARGETS.clone())]
    assert measure_evidence(MODEL, batches, graph=GRAPH) == measured()


@pytest.mark.parametrize("exponent", [-100, -60, 60, 120])
def test_shares_stay_the_same_and_sizes_follow_whatever_the_scale_of_the_loss(exponent: int) -> None:
    plain = measured().layer("0").values
    scaled = measured(lambda outputs, targets: F.cross_entropy(outputs, targets) * 2.0**exponent).layer("0").values
    powers = {"gradient_rms": 1, "gradient_variance": 2, "taylor_sensitivity": 1, "fisher_sensitivity": 2}
    for name in ("noise_scale", "gradient_agreement", "taylor_share", "effective_unit_fraction", *powers):
        factor = 2.0 ** (exponent * powers.get(name, 0))
        for end in ("value", "low", "high"):
            assert getattr(scaled[name], end) == pytest.approx(factor * getattr(plain[name], end), rel=1e-6)


def test_gradients_too_small_for_their_squares_are_measured() -> None:
    values = measured(lambda outputs, targets: F.cross_entropy(outputs, targets) * 1e-42).layer("0").values
    assert 0 < values["gradient_rms"].value < 1e-40
    assert values["fisher_sensitivity"].low <= values["fisher_sensitivity"].high < 1e-80


class Odd(nn.Module):
    """A layer of complex numbers and one without units, beside an ordinary one."""

    def __init__(self) -> None:
        super().__init__()
        self.wave = nn.Linear(6, 4, dtype=torch.complex64)
        self.none = nn.Linear(6, 4)
        self.none.weight, self.none.bias = nn.Parameter(torch.ones(0, 6)), nn.Parameter(torch.ones(0))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.wave(x.to(torch.complex64)).abs(), self.none(x)], 1))


def test_layers_without_units_or_with_complex_ones_are_left_out_with_the_reason() -> None:
    evidence = measure_evidence(Odd(), [(INPUTS, TARGETS)])
    assert [layer.path for layer in evidence.layers] == ["head"]
    assert any("wave: not watched: it computes with complex numbers" in note for note in evidence.notes)
    assert any("none: not watched: it has no units" in note for note in evidence.notes)


def test_what_one_layer_lacks_for_one_reason_is_one_note() -> None:
    evidence = measured(lambda outputs, targets: outputs.detach().mean())
    assert evidence.notes == tuple(
        f"{path}: no relevance, inputs, gradients, weight_gradients: no gradient of the loss reaches it"
        for path in ("0", "2")
    )
