"""What a model would cost after an edit, found on fake tensors before anything of the new size is allocated.

The plan is written on the model's structure (a copy on the meta device, with shadows of the optimizers), and one
training step of it is run on fakes while the bytes of all storages that are alive are counted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves, tree_map

from neuroexapt.graph import ExampleInputs, FlopCount, fake_forward, forward_error, named_tensors
from neuroexapt.resources import LiveStorages, scratch_bytes
from neuroexapt.surgery.checking.optimizer_bytes import shadow_of, state_bytes, transient_bytes
from neuroexapt.surgery.checking.structure import structure_of
from neuroexapt.surgery.plan import Plan
from neuroexapt.surgery.writing.apply import write
from neuroexapt.surgery.writing.undo import UndoLog

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a model costs in training; bytes are those of one step after ``zero_grad()``, forward to optimizer.

    Not in it: what a patch keeps to be reverted (until ``forget_patches``), scratch inside kernels (but that of
    convolutions on CPU), the allocator's rounding, and what the process needs besides (about 0.5 GiB for CUDA).

    Attributes:
        num_parameters: Elements of all parameters, tied ones once.
        flops_per_sample: Forward FLOPs, as ``graph.cost`` counts them.
        parameter_bytes: Of all parameters.
        buffer_bytes: Of all buffers.
        average_bytes: Of all averages of the model.
        optimizer_bytes: The optimizers' state once each has made a step.
        gradient_bytes: When backward is through.
        activation_bytes: The most that inputs, activations and backward's own tensors take at one time.
        peak_bytes: The most of everything together at one time; gradients come while activations go.
    """

    num_parameters: int
    flops_per_sample: int
    parameter_bytes: int
    buffer_bytes: int
    average_bytes: int
    optimizer_bytes: int
    gradient_bytes: int
    activation_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class _Step:
    """Bytes of one forward and backward beyond parameters and buffers."""

    activations: int
    gradients: int
    both: int


class Prospect:
    """A model as it would be after a plan; each question is answered when it is asked.

    Args:
        model: As it is now; nothing of it is changed.
        inputs: Of one training step.
        optimizers: That hold its parameters.
        num_averages: Copies of the model that are kept beside it.
        plan: What would be changed; nothing by default.
        batch_size: Samples in one training step, where it is not that of the inputs.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: ExampleInputs,
        optimizers: Sequence[Optimizer] = (),
        num_averages: int = 0,
        plan: Plan | None = None,
        batch_size: int | None = None,
    ) -> None:
        self._inputs, self._num_averages = inputs, num_averages
        self._step_inputs = inputs if batch_size is None else _with_batch(inputs, batch_size)
        self._structure = structure_of(model)
        own, bare = named_tensors(model), named_tensors(self._structure)
        self._optimizers = [shadow_of(o, {id(own[name]): bare[name] for name in own}) for o in optimizers]
        write(self._structure, self._optimizers, plan or Plan(), UndoLog())
        usual = next((tensor.device for tensor in own.values()), torch.device("cpu"))
        after = named_tensors(self._structure)
        self._devices = {name: own[name].device if name in own else usual for name in after}

    @property
    def num_parameters(self) -> int:
        """Elements of all parameters, tied ones once."""
        return sum(p.numel() for p in self._structure.parameters())

    @cached_property
    def flops_per_sample(self) -> int:
        """Forward FLOPs for one sample.

        Raises:
            TraceError: The forward fails on fake tensors.
        """
        with fake_forward(self._structure, self._inputs, False, devices=self._devices) as (_, inputs):
            try:
                with FlopCount() as count:
                    inputs.call(self._structure)
            except Exception as error:  # the edge to the user's code: its own error is the message
                raise forward_error(self._structure, error) from error
        return int(count.flops) // max(_batch_size(self._inputs), 1)

    @cached_property
    def forecast(self) -> Forecast:
        """Everything.

        Raises:
            TraceError: The forward fails on fake tensors.
        """
        step = self._step()
        parameters = _bytes(list(self._structure.parameters()))
        buffers = _bytes(list(self._structure.buffers()))
        averages = self._num_averages * (parameters + buffers)
        state = sum(state_bytes(optimizer, self._device_of) for optimizer in self._optimizers)
        transient = max((transient_bytes(optimizer, self._device_of) for optimizer in self._optimizers), default=0)
        inputs = _bytes(_tensors(self._step_inputs))
        return Forecast(
            num_parameters=self.num_parameters,
            flops_per_sample=self.flops_per_sample,
            parameter_bytes=parameters,
            buffer_bytes=buffers,
            average_bytes=averages,
            optimizer_bytes=state,
            gradient_bytes=step.gradients,
            activation_bytes=step.activations,
            peak_bytes=parameters + buffers + averages + state + max(step.both, inputs + step.gradients + transient),
        )

    @cached_property
    def _device_by_id(self) -> dict[int, torch.device]:
        return {id(tensor): self._devices[name] for name, tensor in named_tensors(self._structure).items()}

    def _device_of(self, parameter: Tensor) -> torch.device:
        return self._device_by_id[id(parameter)]

    def _step(self) -> _Step:
        """Runs forward and backward in train mode; in eval mode where the user's forward only works there."""
        try:
            return self._run(training=True)
        except MemoryError:
            raise
        except Exception as error:  # the edge to the user's code: a forward may work in eval mode only
            name = type(self._structure).__name__
            logger.info("%s: forecast in eval mode, since train mode failed: %s", name, error)
        try:
            return self._run(training=False)
        except Exception as error:  # the edge to the user's code: its own error is the message
            raise forward_error(self._structure, error) from error

    def _run(self, training: bool) -> _Step:
        counter = LiveStorages(scratch_bytes)
        with fake_forward(self._structure, self._step_inputs, training, devices=self._devices) as (fakes, inputs):
            for fake in fakes.values():
                counter.set_apart(fake)
            fixed = counter.apart_bytes
            counter.peak_bytes = counter.total_peak_bytes = 0
            for tensor in _tensors(inputs):
                counter.watch(tensor)
            for fake in fakes.values():
                if fake.requires_grad:
                    hook = partial(_set_gradient_apart, counter)
                    fake.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
            with counter:
                outputs = [leaf for leaf in tree_leaves(inputs.call(self._structure)) if isinstance(leaf, Tensor)]
                roots = [output for output in outputs if output.requires_grad]
                if roots:
                    torch.autograd.backward(roots, [torch.ones_like(root) for root in roots])
            return _Step(counter.peak_bytes, counter.apart_bytes - fixed, counter.total_peak_bytes - fixed)


def _set_gradient_apart(counter: LiveStorages, leaf: Tensor) -> None:
    if leaf.grad is not None and leaf.grad.layout == torch.strided:
        counter.set_apart(leaf.grad)


def _tensors(inputs: ExampleInputs) -> list[Tensor]:
    return [leaf for leaf in tree_leaves((inputs.args, inputs.kwargs)) if isinstance(leaf, Tensor)]


def _batch_size(inputs: ExampleInputs) -> int:
    first = next(iter(_tensors(inputs)), None)
    return int(first.shape[0]) if first is not None and first.dim() else 1


def _with_batch(inputs: ExampleInputs, batch_size: int) -> ExampleInputs:
    """Returns fakes of the inputs with another number of samples."""
    old = _batch_size(inputs)

    def resized(leaf: object) -> object:
        if not isinstance(leaf, Tensor) or not leaf.dim() or leaf.shape[0] != old:
            return leaf
        return torch.empty((batch_size, *leaf.shape[1:]), dtype=leaf.dtype, device=leaf.device)

    with FakeTensorMode():
        args, kwargs = tree_map(resized, (inputs.args, inputs.kwargs))
    return replace(inputs, args=args, kwargs=kwargs)


def _bytes(tensors: Sequence[Tensor]) -> int:
    """Bytes of the storages; those that several tensors share count once."""
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())
