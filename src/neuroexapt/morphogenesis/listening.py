"""Listening at the junctions of a joint twin while a few training batches run through it, in bounded rows.

The twin is a copy that is thrown away: its parameters take no gradients, and only what lies between the loss and the
junctions is differentiated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast
from zlib import crc32

import torch
from torch import Tensor, nn

from neuroexapt.analysis.scores import Junction, JunctionShape, View
from neuroexapt.morphogenesis.junctions import PlainLayer
from neuroexapt.morphogenesis.rows import columns_of, is_last, num_positions, placed_at, rows_of


class Scaled(Protocol):
    """A piece that adds a branch times a scale."""

    def branch(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """What is added, before the scale."""


@dataclass(eq=False)
class Ear:
    """What is listened to at one junction.

    Attributes:
        path: Of the layer with zero entries, or of the piece with a zero scale.
        shape: As many rows as there may be.
        is_new: For a layer, which columns are multiplied with zero entries; ``None`` for a scale.
        others: Layers whose inputs, at the positions of the output, are spanned already; or the maker of the units.
        view: What a row is.
        reason: Why nothing was heard.
    """

    path: str
    shape: JunctionShape
    is_new: Tensor | None
    others: tuple[str, ...]
    view: View
    reason: str = ""
    num_positions: int = 1
    parts: dict[str, list[Tensor]] = field(default_factory=dict)
    now: dict[str, Tensor] = field(default_factory=dict)
    output: Tensor | None = None
    placing: Callable[[Tensor], Tensor] | None = None

    def junction(self) -> Junction | None:
        """Returns what was heard."""
        if self.reason or not self.parts:
            return None
        whole = {name: torch.cat(parts) for name, parts in self.parts.items()}
        self.parts = {}
        old = [whole[name] for name in sorted(whole) if name.startswith("old")]
        gradients = whole["gradients"]
        return Junction(
            gradients=gradients,
            new=whole["new"],
            old=torch.cat(old, 2) if old else gradients.new_zeros(*gradients.shape[:2], 0),
            inputs=whole.get("inputs"),
            units=self.shape.units,
            num_positions=self.num_positions,
            is_diagonal=self.shape.is_diagonal,
            view=self.view,
        )


class Listener:
    """Hooks that fill ears; used as a context, they are removed whatever happens.

    Args:
        twin: The edited copy.
        ears: By junction.
        seed: Of the positions.
    """

    def __init__(self, twin: nn.Module, ears: Sequence[Ear], seed: int) -> None:
        self._twin, self._ears = twin, ears
        self._generators = [torch.Generator().manual_seed(seed ^ crc32(ear.path.encode())) for ear in ears]
        self._samples = 0
        self._positions: dict[tuple[int, int], Tensor] = {}

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Has the hooks in place."""
        handles, replaced = [], []
        try:
            for number, ear in enumerate(self._ears):
                module = self._twin.get_submodule(ear.path)
                if ear.is_new is None:
                    replaced.append(module)
                    branch = cast(Scaled, module).branch
                    module.branch = partial(self._branch, ear, branch)  # type: ignore[assignment]
                for other in ear.others:
                    hook = partial(self._other, number, ear, other)
                    handles.append(self._twin.get_submodule(other).register_forward_hook(hook))
                handles.append(module.register_forward_hook(partial(self._reached, number, ear)))
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module in replaced:
                vars(module).pop("branch", None)

    def hear(self, run: Callable[[], Tensor], samples: int) -> None:
        """Listens to one batch.

        Args:
            run: Gives the mean loss.
            samples: In the batch.
        """
        self._samples = samples
        self._positions.clear()
        for ear in self._ears:
            ear.now, ear.output, ear.placing = {}, None, None
        loss = run()
        asked = [ear for ear in self._ears if not ear.reason and ear.output is not None]
        found = (
            torch.autograd.grad(loss, [cast(Tensor, ear.output) for ear in asked], allow_unused=True)
            if asked and loss.requires_grad
            else (None,) * len(asked)
        )
        for ear, gradient in zip(asked, found, strict=True):
            self._keep(ear, gradient)
        for ear in self._ears:
            if not ear.reason and ear.output is None:
                ear.reason = "it did not run on these data"
            ear.now, ear.output, ear.placing = {}, None, None

    def _keep(self, ear: Ear, gradient: Tensor | None) -> None:
        if gradient is None or ear.placing is None or "new" not in ear.now:
            ear.reason = "the gradient of the loss does not reach it"
            return
        ear.now["gradients"] = ear.placing(gradient * self._samples)
        rows = {name: tensor.detach().float().cpu() for name, tensor in ear.now.items()}
        if ear.parts and rows.keys() != ear.parts.keys():
            ear.reason = "it does not run alike on all data"
            return
        for name, tensor in rows.items():
            ear.parts.setdefault(name, []).append(tensor)

    def _at(self, number: int, ear: Ear, count: int, device: torch.device) -> Tensor:
        """The positions of this batch for a junction with so many; all of them in order where all are wanted."""
        key = number, count
        if key not in self._positions:
            rows = min(ear.shape.rows, count)
            drawn = torch.rand(self._samples, count, generator=self._generators[number]).argsort(1)[:, :rows]
            self._positions[key] = drawn.sort(1).values
        return self._positions[key].to(device)

    def _branch(self, ear: Ear, branch: Callable[..., Tensor], x: Tensor, *inputs: Tensor) -> Tensor:
        added = branch(x, *inputs)
        ear.now["added"] = added.detach().expand(x.shape)
        return added

    def _other(self, number: int, ear: Ear, path: str, layer: PlainLayer, args: Any, output: Any) -> None:
        if ear.reason or ear.output is not None or not args or not isinstance(output, Tensor):
            return
        if len(output) != self._samples:
            return
        count = num_positions(output, channels_last=is_last(layer))
        columns = columns_of(layer, args[0].detach(), output, self._at(number, ear, count, output.device))
        if columns is not None:
            ear.now[f"{'inputs' if ear.view == 'maker' else 'old ' + path}"] = columns
            ear.now[f"{path} positions"] = torch.tensor(count)

    def _reached(self, number: int, ear: Ear, module: nn.Module, args: Any, output: Any) -> Tensor | None:
        if ear.reason:
            return None
        if ear.output is not None:
            ear.reason = "it runs more than once"
            return None
        if not isinstance(output, Tensor) or len(output) != self._samples:
            ear.reason = "it does not have the samples in its first dimension"
            return None
        if not output.requires_grad:
            output.requires_grad_()
        ear.output = output
        if ear.is_new is None:
            self._read_scale(number, ear, output)
        else:
            self._read_layer(number, ear, cast(PlainLayer, module), args[0].detach(), output)
        return output.clone()  # a later operator may write into it

    def _read_scale(self, number: int, ear: Ear, output: Tensor) -> None:
        last = output.dim() != 4
        ear.num_positions = num_positions(output, channels_last=last)
        positions = self._at(number, ear, ear.num_positions, output.device)
        ear.now["new"] = rows_of(ear.now.pop("added"), positions, channels_last=last)
        ear.placing = lambda gradient: rows_of(gradient, positions, channels_last=last)
        _drop_elsewhere(ear)

    def _read_layer(self, number: int, ear: Ear, layer: PlainLayer, inputs: Tensor, output: Tensor) -> None:
        last, is_new = is_last(layer), cast(Tensor, ear.is_new).to(output.device)
        at_units = ear.view == "maker"
        ear.num_positions = num_positions(inputs if at_units else output, channels_last=last)
        positions = self._at(number, ear, ear.num_positions, output.device)
        _drop_elsewhere(ear)
        if at_units:
            columns: Tensor | None = rows_of(inputs, positions, channels_last=last)
            size = inputs.shape[2:]
            ear.placing = lambda gradient: placed_at(layer, gradient, size, positions)
        else:
            columns = columns_of(layer, inputs, output, positions)
            is_new = is_new.repeat_interleave(layer.weight[0, 0].numel())
            ear.placing = lambda gradient: rows_of(gradient, positions, channels_last=last)
        if columns is None:
            ear.reason = "it pads with something else than zeros"
            return
        ear.now["new"] = columns[:, :, is_new]
        if not bool(is_new.all()):
            ear.now["old"] = columns[:, :, ~is_new]


def _drop_elsewhere(ear: Ear) -> None:
    """Forgets other layers that have other positions than the junction."""
    for path in ear.others:
        count = ear.now.pop(f"{path} positions", None)
        if count is None or int(count) != ear.num_positions:
            ear.now.pop("inputs" if ear.view == "maker" else f"old {path}", None)
