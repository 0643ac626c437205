"""The guarded training step: it either happens as a whole or leaves everything as it was.

Out of memory: buffers, generators and gradients go back first, because a plain retry gives another result; then the
batch is tried once more in the memory that has come free, which changes nothing; then in twice as many micro-batches,
whose losses are weighted by their share of the batch (dividing by their number is wrong when sizes differ). More
micro-batches change what batch norm and dropout see, so their number never falls again: the network only grows, and a
number that went up and down would make two runs differ. It belongs to the state of the run.

A loss or gradient that is not finite: everything goes back and the batch is skipped; too many in a row end the run.
A failure inside ``optimizer.step()`` cannot be undone here and ends the run, or the trial that it happened in.
"""

from __future__ import annotations

import gc
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuroexapt.errors import NonFiniteLossError, OutOfMemoryError
from neuroexapt.train.precision import Precision, forward_in
from neuroexapt.train.restore_point import RestorePoint

Report = Callable[[str, str], None]  # (fault, action)

SMALLEST_MICRO_BATCH = 2  # batch norm needs two samples


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one batch did."""

    loss: float
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
        precision: Of forward and backward; see ``forward_in``.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_function: Callable[[Tensor, Tensor], Tensor],
        clip_norm: float | None,
        max_bad_batches: int,
        report: Report,
        precision: Precision = "float32",
    ) -> None:
        self._model, self._optimizer, self._loss_function = model, optimizer, loss_function
        self._clip_norm, self._max_bad_batches, self._report = clip_norm, max_bad_batches, report
        self._precision = precision
        self._num_micro_batches = 1
        self._num_bad_batches = 0

    def __call__(self, inputs: Tensor, labels: Tensor) -> StepResult:
        """Trains on one batch.

        Raises:
            OutOfMemoryError: It does not fit even two samples at a time, or the optimizer itself ran out.
            NonFiniteLossError: Too many batches in a row were not finite.
        """
        begin = RestorePoint(self._model)
        has_retried = False
        while isinstance(outcome := self._try_gradients(inputs, labels), str):
            self._go_back(begin)
            _free_memory()
            if has_retried:
                self._split_further(len(labels), outcome)
            else:
                self._report(outcome, "memory was freed and the batch is tried again")
            has_retried = True
        loss, is_finite = outcome
        if not is_finite:
            self._go_back(begin)
            return self._skip(loss)
        self._num_bad_batches = 0
        self._update()
        return StepResult(loss, True)

    def state_dict(self) -> dict[str, int]:
        """Returns what decides later steps: the number of micro-batches, and of bad batches in a row."""
        return {"num_micro_batches": self._num_micro_batches, "num_bad_batches": self._num_bad_batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Takes a state over."""
        self._num_micro_batches = state_dict["num_micro_batches"]
        self._num_bad_batches = state_dict["num_bad_batches"]

    def _try_gradients(self, inputs: Tensor, labels: Tensor) -> tuple[float, bool] | str:
        """Returns (loss, is finite), or what ran out of memory; the exception's frames are gone by then."""
        try:
            return self._gradients(inputs, labels)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
            return f"{type(error).__name__}: {error}".splitlines()[0]

    def _gradients(self, inputs: Tensor, labels: Tensor) -> tuple[float, bool]:
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        parts = self._parts(len(labels))
        for x, y in zip(inputs.tensor_split(parts), labels.tensor_split(parts), strict=True):
            loss = self._loss_function(forward_in(self._precision, self._model, x), y) * (len(y) / len(labels))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total, self._clip() and math.isfinite(total)

    def _clip(self) -> bool:
        """Limits the gradients' norm; returns whether they are finite."""
        norm = nn.utils.get_total_norm([p.grad for p in self._model.parameters() if p.grad is not None])
        is_finite = bool(torch.isfinite(norm))
        if is_finite and self._clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._model.parameters(), self._clip_norm, norm)
        return is_finite

    def _parts(self, batch_size: int) -> int:
        return min(self._num_micro_batches, max(batch_size // SMALLEST_MICRO_BATCH, 1))

    def _go_back(self, begin: RestorePoint) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        begin.restore()

    def _split_further(self, batch_size: int, fault: str) -> None:
        most = max(batch_size // SMALLEST_MICRO_BATCH, 1)
        parts = self._parts(batch_size)
        if parts >= most:
            raise OutOfMemoryError(
                f"training step: {fault}. A micro-batch of {-(-batch_size // parts)} samples does not fit. "
                "Use a smaller model, smaller images or more memory."
            )
        self._num_micro_batches = min(parts * 2, most)
        self._report(fault, f"the batch is tried again in {self._num_micro_batches} micro-batches")

    def _skip(self, loss: float) -> StepResult:
        self._num_bad_batches += 1
        if self._num_bad_batches >= self._max_bad_batches:
            raise NonFiniteLossError(
                f"training step: {self._num_bad_batches} batches in a row gave a loss or gradient that is not finite. "
                "Start again with a lower learning rate, or look for bad values in the data."
            )
        self._report(f"loss {loss} or its gradient is not finite", "the batch was skipped")
        return StepResult(loss, False)

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


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
