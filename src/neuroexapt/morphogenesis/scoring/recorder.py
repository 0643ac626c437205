"""Recording bounded rows at the junctions of a joint twin while a few training batches run through it.

The twin is a copy that is thrown away: its parameters take no gradients, and only what lies between the loss and the
junctions is differentiated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, cast
from zlib import crc32

import torch
from torch import Tensor, nn

from neuroexapt.analysis.watching.layers import WeightLayer, is_linear
from neuroexapt.morphogenesis.scoring.recordings import Recording
from neuroexapt.morphogenesis.scoring.rows import columns_of, num_positions, placed_at, rows_of


class Scaled(Protocol):
    """A piece that adds a branch times a scale."""

    def branch(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """What is added, before the scale."""


class Recorder:
    """Hooks that fill recordings, and that are removed whatever happens.

    Args:
        twin: The edited copy.
        recordings: One for each junction.
        seed: Of the positions.
    """

    def __init__(self, twin: nn.Module, recordings: Sequence[Recording], seed: int) -> None:
        self._twin, self._recordings = twin, recordings
        self._generators = [
            torch.Generator().manual_seed(seed ^ crc32(recording.path.encode())) for recording in recordings
        ]
        self._samples = 0
        self._positions: dict[tuple[int, int], Tensor] = {}

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Has the hooks in place."""
        handles, replaced = [], []
        try:
            for number, recording in enumerate(self._recordings):
                module = self._twin.get_submodule(recording.path)
                if recording.is_new is None:
                    replaced.append(module)
                    branch = cast(Scaled, module).branch
                    module.branch = partial(self._branch, recording, branch)  # type: ignore[assignment]
                for other in recording.others:
                    hook = partial(self._other, number, recording, other)
                    handles.append(self._twin.get_submodule(other).register_forward_hook(hook))
                handles.append(module.register_forward_hook(partial(self._reached, number, recording)))
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module in replaced:
                vars(module).pop("branch", None)

    def record(self, run: Callable[[], Tensor], samples: int) -> None:
        """Records one batch.

        Args:
            run: Gives the mean loss.
            samples: In the batch.
        """
        self._samples = samples
        self._positions.clear()
        for recording in self._recordings:
            recording.forget_batch()
        loss = run()
        asked = [recording for recording in self._recordings if not recording.reason and recording.output is not None]
        found = (
            torch.autograd.grad(loss, [cast(Tensor, recording.output) for recording in asked], allow_unused=True)
            if asked and loss.requires_grad
            else (None,) * len(asked)
        )
        for recording, gradient in zip(asked, found, strict=True):
            self._keep(recording, gradient)
        for recording in self._recordings:
            if not recording.reason and recording.output is None:
                recording.reason = "it did not run on these data"
            recording.forget_batch()

    def _keep(self, recording: Recording, gradient: Tensor | None) -> None:
        if gradient is None or recording.placing is None or "new" not in recording.now:
            recording.reason = "the gradient of the loss does not reach it"
            return
        recording.now["gradients"] = recording.placing(gradient * self._samples)
        rows = {name: tensor.detach().float().cpu() for name, tensor in recording.now.items()}
        if recording.parts and rows.keys() != recording.parts.keys():
            recording.reason = "it does not run alike on all data"
            return
        for name, tensor in rows.items():
            recording.parts.setdefault(name, []).append(tensor)

    def _at(self, number: int, recording: Recording, count: int, device: torch.device) -> Tensor:
        """The positions of this batch for a junction with so many; all of them in order where all are wanted."""
        key = number, count
        if key not in self._positions:
            rows = min(recording.shape.rows, count)
            drawn = torch.rand(self._samples, count, generator=self._generators[number]).argsort(1)[:, :rows]
            self._positions[key] = drawn.sort(1).values
        return self._positions[key].to(device)

    def _branch(self, recording: Recording, branch: Callable[..., Tensor], x: Tensor, *inputs: Tensor) -> Tensor:
        added = branch(x, *inputs)
        recording.now["added"] = added.detach().expand(x.shape)
        return added

    def _other(self, number: int, recording: Recording, path: str, layer: WeightLayer, args: Any, output: Any) -> None:
        if recording.reason or recording.output is not None or not args or not isinstance(output, Tensor):
            return
        if len(output) != self._samples:
            return
        count = num_positions(output, channels_last=is_linear(layer))
        columns = columns_of(layer, args[0].detach(), output, self._at(number, recording, count, output.device))
        if columns is not None:
            recording.now[f"{'inputs' if recording.view == 'maker' else 'old ' + path}"] = columns
            recording.now[f"{path} positions"] = torch.tensor(count)

    def _reached(self, number: int, recording: Recording, module: nn.Module, args: Any, output: Any) -> Tensor | None:
        if recording.reason:
            return None
        if recording.output is not None:
            recording.reason = "it runs more than once"
            return None
        if not isinstance(output, Tensor) or len(output) != self._samples:
            recording.reason = "it does not have the samples in its first dimension"
            return None
        if not output.requires_grad:
            output.requires_grad_()
        recording.output = output
        if recording.is_new is None:
            self._read_scale(number, recording, output)
        else:
            self._read_layer(number, recording, cast(WeightLayer, module), args[0].detach(), output)
        return output.clone()  # a later operator may write into it

    def _read_scale(self, number: int, recording: Recording, output: Tensor) -> None:
        last = output.dim() != 4
        recording.num_positions = num_positions(output, channels_last=last)
        positions = self._at(number, recording, recording.num_positions, output.device)
        recording.now["new"] = rows_of(recording.now.pop("added"), positions, channels_last=last)
        recording.placing = lambda gradient: rows_of(gradient, positions, channels_last=last)
        _drop_elsewhere(recording)

    def _read_layer(
        self, number: int, recording: Recording, layer: WeightLayer, inputs: Tensor, output: Tensor
    ) -> None:
        last, is_new = is_linear(layer), cast(Tensor, recording.is_new).to(output.device)
        at_units = recording.view == "maker"
        recording.num_positions = num_positions(inputs if at_units else output, channels_last=last)
        positions = self._at(number, recording, recording.num_positions, output.device)
        _drop_elsewhere(recording)
        if at_units:
            columns: Tensor | None = rows_of(inputs, positions, channels_last=last)
            size = inputs.shape[2:]
            recording.placing = lambda gradient: placed_at(layer, gradient, size, positions)
        else:
            columns = columns_of(layer, inputs, output, positions)
            is_new = is_new.repeat_interleave(layer.weight[0, 0].numel())
            recording.placing = lambda gradient: rows_of(gradient, positions, channels_last=last)
        if columns is None:
            recording.reason = "it pads with something else than zeros"
            return
        recording.now["new"] = columns[:, :, is_new]
        if not bool(is_new.all()):
            recording.now["old"] = columns[:, :, ~is_new]


def _drop_elsewhere(recording: Recording) -> None:
    """Forgets other layers that have other positions than the junction."""
    for path in recording.others:
        count = recording.now.pop(f"{path} positions", None)
        if count is None or int(count) != recording.num_positions:
            recording.now.pop("inputs" if recording.view == "maker" else f"old {path}", None)
