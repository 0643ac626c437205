"""Running the user's own ``forward`` on fake tensors, with nothing of the model's size allocated.

Every ``(module, name)`` slot of a parameter or buffer holds a fake for the duration and its own tensor again after it,
whatever happens. Fakes are made from sizes and strides alone, so no weak reference to a parameter remains.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_map

from neuroexapt.errors import TraceError
from neuroexapt.graph.compiled import eagerly
from neuroexapt.graph.free_attention import attention_freed
from neuroexapt.graph.isolation import attributes_kept, generators_kept


@dataclass(frozen=True, slots=True)
class ExampleInputs:
    """Arguments for one call of ``forward``."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @staticmethod
    def of(inputs: Any) -> ExampleInputs:
        """Reads a tensor, a tuple of positional or a dictionary of keyword arguments."""
        if isinstance(inputs, ExampleInputs):
            return inputs
        if isinstance(inputs, dict):
            return ExampleInputs((), dict(inputs))
        if isinstance(inputs, (tuple, list)):
            return ExampleInputs(tuple(inputs), {})
        return ExampleInputs((inputs,), {})

    def to(self, device: torch.device) -> ExampleInputs:
        """Returns the inputs with every tensor on a device."""
        return ExampleInputs(
            *tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, (self.args, self.kwargs))
        )

    def call(self, model: nn.Module) -> Any:
        """Runs the model on these inputs, as it is written: nothing compiled."""
        with eagerly():
            return model(*self.args, **self.kwargs)


def canonical_names(model: nn.Module) -> dict[int, str]:
    """Returns the first name of every parameter and buffer by the tensor's id; tied tensors have one name."""
    names: dict[int, str] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        names.setdefault(id(tensor), name)
    return names


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Returns every parameter and buffer once, by its first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@contextlib.contextmanager
def slots_holding(model: nn.Module, replacements: Mapping[str, Tensor]) -> Iterator[None]:
    """Puts other tensors into the slots of parameters and buffers, by canonical name, and the own ones back on exit.

    The user's tensors are never written to, so nothing that happens inside can change them.
    """
    names = canonical_names(model)
    slots: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        for module in model.modules():
            stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for store in stores:
                for key, tensor in list(store.items()):
                    if tensor is not None and names[id(tensor)] in replacements:
                        slots.append((store, key, tensor))
                        store[key] = replacements[names[id(tensor)]]
        yield
    finally:
        for store, key, tensor in slots:
            store[key] = tensor


@contextlib.contextmanager
def faked(
    model: nn.Module,
    mode: FakeTensorMode,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    devices: Mapping[str, torch.device] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Puts fakes into every slot; yields them by canonical name.

    Args:
        model: The model; its slots are restored on exit.
        mode: The fake mode that the fakes belong to.
        shapes: Other sizes for some of them, by canonical name.
        devices: Other devices for some of them, by canonical name.
    """
    fakes = {
        name: _fake_like(tensor, mode, (shapes or {}).get(name), (devices or {}).get(name))
        for name, tensor in named_tensors(model).items()
    }
    with slots_holding(model, fakes):
        yield fakes


def _fake_like(
    tensor: Tensor, mode: FakeTensorMode, shape: tuple[int, ...] | None = None, device: torch.device | None = None
) -> Tensor:
    """Makes a fake as ``nn.Parameter`` and the mode would, without the several dispatches that those take."""
    if shape is None or tuple(shape) == tuple(tensor.shape):
        meta = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="meta")
    else:
        meta = torch.empty_permuted(tuple(shape), memory_order(tensor), dtype=tensor.dtype, device="meta")
    fake = FakeTensor(mode, meta, device or tensor.device)
    if isinstance(tensor, nn.Parameter):
        fake.requires_grad_(tensor.requires_grad)
        fake._is_param = True
    return fake


def memory_order(tensor: Tensor) -> tuple[int, ...]:
    """Returns a tensor's dimensions from the slowest to the fastest in memory: ``channels_last`` is (0, 2, 3, 1)."""
    return tuple(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))


@contextlib.contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Puts the model into train or eval mode and every module back into its own afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training


@contextlib.contextmanager
def undisturbed(
    model: nn.Module, training: bool, tensors: Mapping[str, Tensor] | None = None
) -> Iterator[Callable[[], bool]]:
    """Lets the user's forward run, on real tensors, and leaves nothing of what it did.

    It runs on copies of the buffers. Attributes, train or eval mode and the global generators, which are seeded inside,
    are put back.

    Args:
        model: What is run inside.
        training: In which mode.
        tensors: What else is in the slots of parameters and buffers meanwhile, by canonical name.

    Yields:
        A function that says whether a global generator has been drawn from since.
    """
    given = tensors or {}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers() if name not in given}
    with (
        attributes_kept(model),
        slots_holding(model, {**buffers, **given}),
        in_mode(model, training),
        generators_kept(seed=0) as drawn,
    ):
        yield drawn


@contextlib.contextmanager
def _plain_paths() -> Iterator[None]:
    """Switches off fused inference paths, which hide operators, and torch's log of fake operators that fail.

    A failing operator is an answer here, and it reaches the user as the reason of a refusal.
    """
    fast, log = torch.backends.mha.get_fastpath_enabled(), logging.getLogger("torch._subclasses.fake_tensor")
    was_disabled = log.disabled
    torch.backends.mha.set_fastpath_enabled(False)
    log.disabled = True
    try:
        with torch.enable_grad():
            yield
    finally:
        log.disabled = was_disabled
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def fake_forward(
    model: nn.Module,
    inputs: ExampleInputs,
    training: bool,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    devices: Mapping[str, torch.device] | None = None,
) -> Iterator[tuple[dict[str, Tensor], ExampleInputs]]:
    """Prepares everything for one fake run: yields the fakes and the fake inputs; see ``faked``."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake_args, fake_kwargs = tree_map(
        lambda x: _fake_like(x, mode) if isinstance(x, Tensor) else x, (inputs.args, inputs.kwargs)
    )
    with (
        attention_freed(model),
        attributes_kept(model),
        generators_kept(),
        faked(model, mode, shapes, devices) as fakes,
        in_mode(model, training),
        _plain_paths(),
        mode,
    ):
        yield fakes, ExampleInputs(fake_args, fake_kwargs)


def forward_error(model: nn.Module, error: Exception) -> TraceError:
    """Returns the error to raise when the user's ``forward`` failed; it shows what the model itself said."""
    own = str(error).rstrip(". ")
    return TraceError(
        f"{type(model).__name__}: forward failed on the example inputs with {type(error).__name__}: {own}. "
        "Give inputs that the model accepts, or mend its forward."
    )
