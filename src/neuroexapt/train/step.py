"""The guarded training step: it either happens as a whole or leaves everything as it was.

Out of memory: buffers and generators are restored, and the batch is tried again in micro-batches, whose losses are
weighted by their share of the batch (dividing by their number is wrong when sizes differ). A loss or gradient that is
not finite: buffers are restored and the batch is skipped; too many in a row end the run. A failure inside
``optimizer.step()`` cannot be undone here and ends the run: its last checkpoint holds.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuroexapt.errors import NonFiniteLossError, OutOfMemoryError
from neuroexapt.resources import random_state, set_random_state

Report = Callable[[str, str], None]  # (fault, action)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one batch did."""

    loss: float
    num_correct: int
    was_applied: bool


class GuardedStep:
    """Trains on one batch at a time and knows how to restore itself.

    Memory: a copy of the buffers and of the generators' states during a step.

    Args:
        model: In train mode.
        optimizer: Of the model.
        loss_function: (logits, labels) -> mean loss.
        clip_norm: Largest gradient norm, or ``None``.
        max_bad_batches: Non-finite batches in a row that end the run.
        report: Is told of every fault and what was done.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_function: Callable[[Tensor, Tensor], Tensor],
        clip_norm: float | None,
        max_bad_batches: int,
        report: Report,
    ) -> None:
        self._model, self._optimizer, self._loss_function = model, optimizer, loss_function
        self._clip_norm, self._max_bad_batches, self._report = clip_norm, max_bad_batches, report
        self._num_micro = 1
        self._num_bad = 0

    def __call__(self, inputs: Tensor, labels: Tensor) -> StepResult:
        """Trains on one batch.

        Raises:
            OutOfMemoryError: It does not fit even one sample at a time, or the optimizer itself ran out.
            NonFiniteLossError: Too many batches in a row were not finite.
        """
        buffers = [(buffer, buffer.clone()) for buffer in self._model.buffers()]
        generators = random_state()
        while True:
            fault = self._try_gradients(inputs, labels)
            if isinstance(fault, tuple):
                loss, num_correct = fault
                break
            self._restore(buffers, generators)
            self._shrink(len(labels), fault)
        if not self._gradients_are_finite(loss):
            self._restore(buffers, generators)
            return self._skip(loss)
        self._num_bad = 0
        self._update()
        return StepResult(loss, num_correct, True)

    def _try_gradients(self, inputs: Tensor, labels: Tensor) -> tuple[float, int] | str:
        """Returns (loss, correct), or what ran out of memory; the exception's frames are gone by then."""
        self._optimizer.zero_grad(set_to_none=True)
        try:
            return self._gradients(inputs, labels)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
            return f"{type(error).__name__}: {error}".splitlines()[0]

    def _gradients(self, inputs: Tensor, labels: Tensor) -> tuple[float, int]:
        total, num_correct = 0.0, 0
        for x, y in zip(inputs.chunk(self._num_micro), labels.chunk(self._num_micro), strict=True):
            logits = self._model(x)
            loss = self._loss_function(logits, y) * (len(y) / len(labels))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            num_correct += int((logits.detach().argmax(1) == y).sum())
        return total, num_correct

    def _restore(self, buffers: list[tuple[Tensor, Tensor]], generators: dict[str, str]) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)
        set_random_state(generators)

    def _shrink(self, batch_size: int, fault: str) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._num_micro >= batch_size:
            raise OutOfMemoryError(
                f"training step: {fault}. One sample does not fit. Use a smaller model or more memory."
            )
        self._num_micro = min(self._num_micro * 2, batch_size)
        self._report(fault, f"the batch is tried again in {self._num_micro} micro-batches")

    def _gradients_are_finite(self, loss: float) -> bool:
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        finite = bool(torch.isfinite(norm)) and loss == loss and abs(loss) != float("inf")
        if finite and self._clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._model.parameters(), self._clip_norm, norm)
        return finite

    def _skip(self, loss: float) -> StepResult:
        self._num_bad += 1
        if self._num_bad >= self._max_bad_batches:
            raise NonFiniteLossError(
                f"training step: {self._num_bad} batches in a row gave a loss or gradient that is not finite. "
                "Resume from the last checkpoint with a lower learning rate, or look for bad values in the data."
            )
        self._report(f"loss {loss} or its gradient is not finite", "the batch was skipped")
        return StepResult(loss, 0, False)

    def _update(self) -> None:
        try:
            self._optimizer.step()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"optimizer step: {error}. Parameters may be half updated, so the run ends here. Resume it: the last "
                "checkpoint is whole."
            ) from error
        self._optimizer.zero_grad(set_to_none=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    signs = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "could not create a primitive")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)
