"""Hooks that read bounded rows off a running model and are always removed.

The gradient is driven by one extra scalar that every watched layer's output passes through: asking autograd for the
gradient of that scalar runs the backward pass through all of them, computes no gradient of any weight, and keeps none
of those of the activations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuroexapt.analysis.watching.defaults import plain_defaults
from neuroexapt.analysis.watching.layers import WatchedLayer, WeightLayer, is_linear, num_groups
from neuroexapt.analysis.watching.positions import at, by_position, chunks, grid_mean, inputs_at, unit_range
from neuroexapt.analysis.watching.sample import GRADIENTS, INPUTS, POOLED, Rows
from neuroexapt.analysis.watching.sketches import Words, chosen_positions, count_sketch
from neuroexapt.analysis.watching.weight_gradients import weight_gradients
from neuroexapt.errors import NonFiniteActivationError

Answer = Callable[[Tensor], None]


class _Tap(torch.autograd.Function):
    """Hands a tensor on and tells of its gradient; depends on a scalar, so that autograd comes by."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, token: Tensor, answer: Answer) -> Tensor:
        ctx.answer = answer
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.answer(gradient)
        return gradient, gradient.new_zeros(()), None


class Watch:
    """Fills the rows of some layers while batches run.

    Memory besides the rows: one chunk of temporaries (2 MiB, or one sample where that is larger), and references to
    activations that autograd holds anyway, until the backward pass has been there.

    Args:
        model: What runs.
        layers: What is watched.
        rows: By layer path.
        seed: Of positions and projections.
    """

    def __init__(self, model: nn.Module, layers: Sequence[WatchedLayer], rows: Mapping[str, Rows], seed: int) -> None:
        self._model, self._layers, self._rows, self._seed = model, layers, rows, seed
        self.token = torch.zeros((), requires_grad=True)
        self.largest: dict[str, int] = {}  # elements of the largest activation of each layer
        self.positions: dict[str, int] = {}  # the most that a sample had at the output of each layer
        self.read: set[str] = set()  # layers whose units were seen in this batch
        self._samples: Words = np.zeros(0, dtype=np.uint64)
        self._start = self._batch = 0
        self._ran: set[tuple[str, str]] = set()
        self._answered: set[tuple[str, str]] = set()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Has the hooks in place."""
        handles = []
        try:
            for layer in self._layers:
                module = self._model.get_submodule(layer.path)
                handles.append(module.register_forward_hook(partial(self._after, layer)))
                if layer.reader:
                    reader = self._model.get_submodule(layer.reader)
                    handles.append(reader.register_forward_pre_hook(partial(self._before, layer)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def begin(self, samples: Words, start: int, batch_size: int) -> None:
        """Announces a batch.

        Args:
            samples: The numbers of its samples in the whole stream, as many as are to be recorded.
            start: Row of the first of them.
            batch_size: Samples in the batch.
        """
        self._samples, self._start, self._batch = samples, start, batch_size
        self._ran.clear()
        self.read.clear()

    def unanswered(self, path: str) -> dict[str, str]:
        """Returns the views of a layer that no gradient has filled, with the reason."""
        views = {"units": ("relevance",), "outputs": ("inputs", "gradients", "weight_gradients")}
        without = [view for where, names in views.items() if (path, where) not in self._answered for view in names]
        return dict.fromkeys(without, f"{path}: no gradient of the loss reaches it")

    def _count(self, path: str) -> int:
        """How many samples of this batch a layer still has room for."""
        return max(0, min(len(self._samples), self._rows[path].capacity - self._start))

    def _is_first(self, path: str, which: str) -> bool:
        is_new = (path, which) not in self._ran
        self._ran.add((path, which))
        return is_new and self._count(path) > 0

    def _before(self, layer: WatchedLayer, reader: nn.Module, args: tuple[Any, ...]) -> None:
        if (
            args
            and isinstance(args[0], Tensor)
            and (layer.path, "made") in self._ran
            and self._is_first(layer.path, "read")
        ):
            self._read(layer, reader, args[0])

    def _after(self, layer: WatchedLayer, module: WeightLayer, args: tuple[Any, ...], output: Any) -> Tensor | None:
        if not self._is_first(layer.path, "made"):
            return None
        given = args[0] if args and isinstance(args[0], Tensor) else None
        check_finite(layer.path, "activation", output)
        positions = output.numel() // max(self._batch * layer.width, 1)
        self.positions[layer.path] = max(self.positions.get(layer.path, 0), positions)
        if torch.is_grad_enabled():
            answer = partial(self._answer, layer, module, given, None if given is None else given._version)
            output = _Tap.apply(output, self.token, answer)  # type: ignore[no-untyped-call]
        if not layer.reader:
            self._read(layer, module, output)
        return output if torch.is_grad_enabled() else None

    @plain_defaults()
    def _read(self, layer: WatchedLayer, holder: nn.Module, tensor: Tensor) -> None:
        """Records the units where they are read, and waits for their gradient."""
        check_finite(layer.reader or layer.path, "what it reads" if layer.reader else "activation", tensor)
        self.largest[layer.path] = max(self.largest.get(layer.path, 0), tensor.numel())
        self.read.add(layer.path)
        rows, count = self._rows[layer.path], self._count(layer.path)
        held = tensor.detach()
        units = by_position(held, holder, self._batch, layer.width)[:count]
        rows.widen_range(*unit_range(units))
        positions = chosen_positions(f"{self._seed} features {layer.path}", self._samples[:count], units.shape[2])
        rows.put("features", self._start, at(units, positions))
        if "pooled" in rows.views:
            size = () if is_linear(holder) else tensor.shape[2:]
            for part in chunks(count, 4 * units[0].numel()):
                pooled = self._pooled(units[part], size)
                rows.put("pooled", self._start + part.start, count_sketch(f"{self._seed} pooled", pooled, POOLED))
        if tensor.requires_grad and "relevance" in rows.views:
            wait = partial(self._weigh, layer, holder, held, tensor._version)
            tensor.register_hook(wait)  # type: ignore[no-untyped-call]

    def _pooled(self, units: Tensor, size: Sequence[int]) -> Tensor:
        """The mean over a grid of a map, over all positions of anything else."""
        if len(size) and units.shape[2] == np.prod(size):
            return grid_mean(units.float().reshape(*units.shape[:2], *size), size)
        return units.float().mean(2)

    @plain_defaults()
    def _weigh(self, layer: WatchedLayer, holder: nn.Module, held: Tensor, version: int, gradient: Tensor) -> None:
        """Records activation times gradient, a sample's own."""
        self._answered.add((layer.path, "units"))
        rows, count = self._rows[layer.path], self._count(layer.path)
        if held._version != version:
            rows.lost["relevance"] = f"{layer.reader or layer.path}: its input was written over before the backward"
            return
        check_finite(layer.path, "gradient", gradient)
        a, g = (by_position(t.detach(), holder, self._batch, layer.width)[:count] for t in (held, gradient))
        for part in chunks(count, 8 * a[0].numel()):
            product = torch.einsum("ncp,ncp->nc", a[part].float(), g[part].float())
            rows.put("relevance", self._start + part.start, product * self._batch)

    @plain_defaults()
    def _answer(
        self, layer: WatchedLayer, module: WeightLayer, given: Tensor | None, version: int | None, gradient: Tensor
    ) -> None:
        """Records the gradient at a layer's own output, its inputs there, and the gradient of its weight."""
        self._answered.add((layer.path, "outputs"))
        check_finite(layer.path, "gradient", gradient)
        rows, count = self._rows[layer.path], self._count(layer.path)
        flat = by_position(gradient, module, self._batch, layer.width)[:count]
        positions = chosen_positions(f"{self._seed} outputs {layer.path}", self._samples[:count], flat.shape[2])
        purpose = f"{self._seed} {layer.path}"
        if "gradients" in rows.views:
            found = at(flat, positions)[:, : layer.width // num_groups(module)].float() * self._batch
            rows.put("gradients", self._start, count_sketch(f"{purpose} gradients", found, GRADIENTS))
        if given is None or given._version != version:
            rows.lost |= dict.fromkeys(("inputs", "weight_gradients"), f"{layer.path}: its input was written over")
            return
        per_sample = len(given) // self._batch
        given = given.detach()[: count * per_sample]
        if "inputs" in rows.views:
            size = () if is_linear(module) else gradient.shape[2:]
            patches = inputs_at(module, given, size, positions).float()
            rows.put("inputs", self._start, count_sketch(f"{purpose} inputs", patches, INPUTS))
        if "weight_gradients" in rows.views:
            part = gradient[: count * per_sample]
            found = weight_gradients(purpose, module, given, part, count)
            rows.put("weight_gradients", self._start, found.float() * self._batch)


def check_finite(path: str, what: str, tensor: Tensor) -> None:
    """Looks at every number of a tensor; takes no memory.

    Raises:
        NonFiniteActivationError: One is NaN or infinite.
    """
    if tensor.numel() and tensor.is_floating_point():
        low, high = torch.aminmax(tensor.detach())
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise NonFiniteActivationError(
                f"{path}: {what}: found NaN or infinite numbers, needed finite ones. Lower the learning rate, look for "
                "bad values in the data, or go back to an earlier checkpoint."
            )
