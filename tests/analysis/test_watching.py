"""What is read off a running model, against autograd on one sample at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.analysis.watching import LayerSample, watch, watched_layers
from neuroexapt.analysis.watching.sample import WEIGHT_SIDE
from neuroexapt.analysis.watching.sketches import chosen_positions, count_sketch, sketch_matrix
from neuroexapt.analysis.watching.watch import GRADIENT_VIEWS, Watched
from neuroexapt.graph import trace

NUM_SAMPLES = 7
SEED = 3
FLOAT32 = 1e-4  # sums of float32 in another order
BFLOAT16 = 0.05  # eight bits, several layers
VIEWS = frozenset({"features", *GRADIENT_VIEWS})


@dataclass(frozen=True)
class Alone:
    """A layer while one sample runs alone."""

    given: Tensor  # its input, without the dimension of the sample
    made: Tensor  # its output
    asked: Tensor  # gradient there
    weight: Tensor  # gradient of its weight


def _seen(model: nn.Module, inputs: Any, targets: Tensor, batch_size: int = 4) -> Watched:
    layers, _ = watched_layers(trace(model, inputs))

    def part(chosen: slice) -> Any:
        return {k: v[chosen] for k, v in inputs.items()} if isinstance(inputs, Mapping) else inputs[chosen]

    starts = range(0, len(targets), batch_size)
    batches = [(part(slice(i, i + batch_size)), targets[i : i + batch_size]) for i in starts]
    return watch(
        model, layers, batches, F.cross_entropy, num_samples=NUM_SAMPLES, max_bytes=1 << 24, views=VIEWS, seed=SEED
    )


def _alone(model: nn.Module, path: str, inputs: Any, target: Tensor) -> Alone:
    """Runs one sample and asks autograd."""
    held: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        held.extend((args[0].detach().clone(), output))
        output.retain_grad()
        return output.clone()  # what comes after may write on it

    module = model.get_submodule(path)
    model.eval()
    model.zero_grad()
    handle = module.register_forward_hook(keep)
    outputs = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    handle.remove()
    F.cross_entropy(outputs, target).backward()
    given, made = held
    assert made.grad is not None
    assert isinstance(module.weight, nn.Parameter)
    assert module.weight.grad is not None
    return Alone(given, made.detach(), made.grad, module.weight.grad.clone())


def _compare(model: nn.Module, path: str, inputs: Any, sample: LayerSample, targets: Tensor) -> None:
    """Holds the rows of one layer against autograd, sample by sample."""
    layer = model.get_submodule(path)
    numbers = np.arange(NUM_SAMPLES, dtype=np.uint64)
    for i in range(NUM_SAMPLES):
        one = {k: v[i : i + 1] for k, v in inputs.items()} if isinstance(inputs, Mapping) else inputs[i : i + 1]
        alone = _alone(model, path, one, targets[i : i + 1])
        is_linear = isinstance(layer, nn.Linear)
        made, asked = (t.movedim(-1 if is_linear else 1, 0).flatten(1) for t in (alone.made, alone.asked))
        position = int(chosen_positions(f"{SEED} outputs {path}", numbers, made.shape[1])[i])
        group = len(made) // getattr(layer, "groups", 1)
        assert sample.gradients is not None
        assert sample.inputs is not None
        assert sample.weight_gradients is not None
        torch.testing.assert_close(sample.gradients[i], asked[:group, position], rtol=FLOAT32, atol=FLOAT32)
        computed = layer.weight[:group].flatten(1) @ sample.inputs[i] + layer.bias[:group]
        torch.testing.assert_close(computed, made[:group, position], rtol=FLOAT32, atol=FLOAT32)
        projected = _projected(path, layer, alone.weight)
        torch.testing.assert_close(sample.weight_gradients[i], projected, rtol=FLOAT32, atol=FLOAT32)


def _projected(path: str, layer: nn.Module, gradient: Tensor) -> Tensor:
    """The definition: one sketch of the columns, one of the rows of each group, one of what all groups give."""
    flat = gradient.flatten(1)
    columns = sketch_matrix(f"{SEED} {path} columns", flat.shape[1], WEIGHT_SIDE)
    groups = (flat @ columns.T).unflatten(0, (getattr(layer, "groups", 1), -1))
    rows = count_sketch(f"{SEED} {path} rows", groups.transpose(1, 2), WEIGHT_SIDE).transpose(1, 2).flatten(0, 1)
    return count_sketch(f"{SEED} {path} groups", rows.T, WEIGHT_SIDE).T.flatten()


CONVOLUTIONS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "plain": (nn.Conv2d(1, 4, 3), (1, 6, 6)),
    "strided": (nn.Conv2d(2, 5, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 7, 6)),
    "dilated": (nn.Conv2d(1, 4, 3, dilation=2, padding=2), (1, 6, 5)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (4, 5, 5)),
    "depthwise": (nn.Conv2d(6, 12, 3, groups=6, padding=1, stride=2), (6, 5, 5)),
    "many groups": (nn.Conv2d(40, 40, 1, groups=20), (40, 3, 3)),
    "projected": (nn.Conv2d(8, 24, 3, padding=1), (8, 4, 4)),
    "1d": (nn.Conv1d(2, 5, 3, stride=2, padding=1), (2, 9)),
    "3d": (nn.Conv3d(1, 3, 2, padding=1, stride=(1, 2, 1)), (1, 3, 4, 3)),
    "same": (nn.Conv2d(1, 4, (2, 3), dilation=(2, 1), padding="same"), (1, 5, 5)),
    "valid": (nn.Conv2d(1, 4, 3, padding="valid"), (1, 5, 5)),
    "circular": (nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), (1, 5, 5)),
    "reflect": (nn.Conv2d(1, 4, 3, padding=2, padding_mode="reflect"), (1, 5, 5)),
    "replicate": (nn.Conv1d(1, 4, 5, padding=2, padding_mode="replicate", stride=2), (1, 6)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_of_every_kind(kind: str) -> None:
    torch.manual_seed(0)
    convolution, size = CONVOLUTIONS[kind]
    inputs, targets = torch.randn(NUM_SAMPLES, *size), torch.arange(NUM_SAMPLES) % 3
    count = int(convolution(inputs[:1]).numel())
    model = nn.Sequential(convolution, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(count, 3))
    seen = _seen(model, inputs, targets)
    assert not seen.lost
    _compare(model, "0", inputs, seen.samples["0"], targets)


class _Tokens(nn.Module):
    """Linear layers on [N, L, C] or, where frames are merged with the samples, on [N * k, L, C]."""

    def __init__(self, merges: bool) -> None:
        super().__init__()
        self.merges = merges
        self.first, self.second, self.head = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(0, 1) if self.merges else x
        y = self.second(torch.relu(self.first(y)))
        return self.head((y.unflatten(0, x.shape[:2]) if self.merges else y).flatten(1, -2).mean(1))


class _Frames(nn.Module):
    """A convolution on frames that are merged with the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x.flatten(0, 1))).mean((2, 3))
        return self.head(y.unflatten(0, x.shape[:2]).mean(1))


class _Named(nn.Module):
    """Takes a dictionary and hands one input on by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text, self.head = nn.Linear(5, 6), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, *, image: Tensor, text: Tensor) -> Tensor:
        return self.head(torch.tanh(self.image(image)) + self.text(input=text))


@pytest.mark.parametrize(
    ("model", "shape", "paths"),
    [
        (_Tokens(False), (6, 5), ("first", "second")),
        (_Tokens(True), (2, 3, 5), ("first", "second")),
        (_Frames(), (3, 1, 5, 4), ("first",)),
    ],
    ids=["tokens", "merged tokens", "merged frames"],
)
def test_layers_that_run_at_many_positions_of_a_sample(model: nn.Module, shape: Any, paths: tuple[str, ...]) -> None:
    inputs, targets = torch.randn(NUM_SAMPLES, *shape), torch.arange(NUM_SAMPLES) % 3
    seen = _seen(model, inputs, targets)
    assert not seen.lost
    for path in paths:
        _compare(model, path, inputs, seen.samples[path], targets)


def _convolutional(is_in_place: bool = True) -> nn.Sequential:
    """Two convolutions behind norm and activation, and a flattened map."""
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.weight)
    first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm, nn.ReLU(inplace=is_in_place))
    return nn.Sequential(first, nn.Conv2d(4, 5, 3), nn.ReLU(is_in_place), nn.Flatten(), nn.Linear(20, 3))


IMAGES, LABELS = torch.randn(NUM_SAMPLES, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3


def test_relevance_is_activation_times_gradient_where_the_next_layer_reads_it() -> None:
    model = _convolutional()
    samples = _seen(model, IMAGES, LABELS).samples
    model.eval()
    for i in range(NUM_SAMPLES):
        read = model[0](IMAGES[i : i + 1]).detach().requires_grad_()
        second = model[2](model[1](read))
        second.retain_grad()
        F.cross_entropy(model[4](model[3](second)), LABELS[i : i + 1]).backward()
        for path, units in (("0.0", read), ("1", second)):
            assert units.grad is not None
            relevance = samples[path].relevance
            assert relevance is not None
            torch.testing.assert_close(relevance[i], (units * units.grad)[0].sum((1, 2)), rtol=FLOAT32, atol=FLOAT32)


def _differences(ours: LayerSample, theirs: LayerSample) -> dict[str, float]:
    """Largest relative difference of the rows of each view."""
    found = {}
    for view in VIEWS:
        a, b = getattr(ours, view), getattr(theirs, view)
        found[view] = float((a - b).norm() / b.norm().clamp_min(1e-12))
    return found


@pytest.mark.parametrize("path", ["0.0", "1", "4"])
def test_frozen_weights_in_place_activations_and_batch_sizes_change_nothing(path: str) -> None:
    whole = _seen(_convolutional(), IMAGES, LABELS, batch_size=7).samples[path]
    frozen = _convolutional(is_in_place=False)
    frozen[0].requires_grad_(False)
    frozen.train()
    found = _seen(frozen, IMAGES, LABELS, batch_size=3).samples[path]
    assert max(_differences(found, whole).values()) < FLOAT32
    assert frozen.training
    assert all(p.grad is None for p in frozen.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in frozen.modules())


def test_autocast_changes_rows_by_its_rounding_only() -> None:
    plain = _seen(_convolutional(), IMAGES, LABELS).samples
    model = _convolutional()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = _seen(model, IMAGES, LABELS).samples
    for path, sample in plain.items():
        assert max(_differences(rounded[path], sample).values()) < BFLOAT16


def test_a_dictionary_of_inputs_and_one_that_is_handed_on_by_name() -> None:
    inputs = {"image": torch.randn(NUM_SAMPLES, 5), "text": torch.randn(NUM_SAMPLES, 4)}
    model = _Named()
    seen = _seen(model, inputs, LABELS)
    _compare(model, "image", inputs, seen.samples["image"], LABELS)
    _, left_out = watched_layers(trace(model, inputs))
    assert left_out == {"text": "takes or returns something other than one tensor"}


class _Reluctant(nn.Module):
    """A part without gradient, one that writes over its input, one that nothing depends on, one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.still, self.written, self.idle = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.twice, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        self.written.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            held = self.still(x) * 1.0
        y = self.written(held)
        held.mul_(2.0)
        self.idle(y)
        return self.head(self.twice(torch.tanh(self.twice(y))))


def test_what_can_not_be_read_is_said_with_its_reason() -> None:
    model, inputs = _Reluctant(), torch.randn(NUM_SAMPLES, 4)
    seen = _seen(model, inputs, LABELS)
    for path in ("still", "idle"):
        assert seen.lost[path] == dict.fromkeys(GRADIENT_VIEWS, f"{path}: no gradient of the loss reaches it")
        assert seen.samples[path].gradients is None
    assert seen.lost["written"]["weight_gradients"] == "written: its input was written over"
    assert seen.samples["written"].gradients is not None
    _, left_out = watched_layers(trace(model, inputs))
    assert left_out["twice"] == "runs more than once"
