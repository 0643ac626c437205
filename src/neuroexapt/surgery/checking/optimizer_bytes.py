"""Bytes of an optimizer's state, known before it has made a step: its own code says so, on tiny parameters.

Each param group's settings are tried on a parameter of a few entries. State of the parameter's shape is one number for
each entry (SGD with momentum keeps one, Adam two, AMSGrad three), a shape with ones in it is a row or column
(Adafactor), and everything else is a constant. What a step takes only for its duration is found in the same way.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from neuroexapt.errors import SurgeryError
from neuroexapt.resources import LiveStorages

_SIDES = (2, 3, 5, 7, 11, 13)  # of a probe: different, so that a state's dimension says which one it is
_NUM_ENTRIES = (
    4096  # of the largest probe where short-lived tensors are measured: beside so many, constants are nothing
)

DeviceOf = Callable[[Tensor], torch.device]


def shadow_of(optimizer: Optimizer, twins: Mapping[int, Tensor]) -> Optimizer:
    """Returns an optimizer of the same kind and settings over other parameters, without state or hooks.

    Args:
        optimizer: Is not changed.
        twins: The other parameter by the id of the own; parameters that have none stay away.
    """
    groups = [
        {**_settings(group), "params": [twins[id(p)] for p in group["params"] if id(p) in twins]}
        for group in optimizer.param_groups
    ]
    return _with_groups(optimizer, groups)


def state_bytes(optimizer: Optimizer, device_of: DeviceOf) -> int:
    """Returns the bytes of state once every parameter that is trained has had a step."""
    total = 0
    for group in optimizer.param_groups:
        known: dict[tuple[object, ...], list[tuple[tuple[int, ...], int]]] = {}
        for parameter in _trained(group):
            kind = (parameter.dim(), parameter.dtype, device_of(parameter))
            if kind not in known:
                known[kind] = _state_of_probe(optimizer, group, parameter, device_of(parameter))
            total += sum(_scaled(shape, parameter) * size for shape, size in known[kind])
    return total


def transient_bytes(optimizer: Optimizer, device_of: DeviceOf) -> int:
    """Returns the bytes that a step takes and gives back, from a step on parameters all smaller by one factor.

    So it shows by itself whether the code goes parameter by parameter or takes a whole group at once.
    """
    largest = max((p.numel() for group in optimizer.param_groups for p in _trained(group)), default=0)
    factor = max(largest / _NUM_ENTRIES, 1.0)
    groups = [
        {**_settings(group), "params": [_smaller(p, factor, device_of(p)) for p in _trained(group)]}
        for group in optimizer.param_groups
    ]
    probes = [probe for group in groups for probe in group["params"]]
    if not probes:
        return 0
    shadow = _with_groups(optimizer, groups)
    _step(shadow)
    count = LiveStorages()
    for leaf in tree_leaves((probes, [probe.grad for probe in probes], list(shadow.state.values()))):
        if isinstance(leaf, Tensor):
            count.set_apart(leaf)
    count.peak_bytes = 0
    with count:
        _step(shadow)
    return int(count.peak_bytes * factor)


def _smaller(parameter: Tensor, factor: float, device: torch.device) -> nn.Parameter:
    """Returns a probe with so many times fewer entries; of a matrix, rows and columns shrink alike."""
    wanted = parameter.numel() / factor
    if parameter.dim() < 2:
        return _probe((max(round(wanted), 1),) if parameter.dim() else (), parameter, device)
    rows = max(round(parameter.shape[0] / sqrt(factor)), 1)
    columns = max(round(wanted / rows), 1)
    return _probe((rows, columns, *[1] * (parameter.dim() - 2)), parameter, device)


def _trained(group: Mapping[str, Any]) -> list[Tensor]:
    return [p for p in group["params"] if p.requires_grad]


def _scaled(shape: tuple[int, ...], parameter: Tensor) -> int:
    """Entries of state of a shape that was seen at the probe, at a parameter."""
    if len(shape) != parameter.dim():
        return prod(shape)
    sides = _SIDES[: len(shape)]
    return prod(p if s == side else s for s, side, p in zip(shape, sides, parameter.shape, strict=True))


def _state_of_probe(
    optimizer: Optimizer, group: Mapping[str, Any], like: Tensor, device: torch.device
) -> list[tuple[tuple[int, ...], int]]:
    """Returns shape and bytes per entry of everything that is kept for one parameter."""
    probe = _probe(_SIDES[: like.dim()], like, device)
    shadow = _with_groups(optimizer, [{**_settings(group), "params": [probe]}])
    _step(shadow)
    kept = [leaf for leaf in tree_leaves(shadow.state[probe]) if isinstance(leaf, Tensor)]
    return [(tuple(leaf.shape), leaf.element_size()) for leaf in kept]


def _step(shadow: Optimizer) -> None:
    try:
        type(shadow).step(shadow)  # not the instance's, which a scheduler may have replaced
    except Exception as error:  # the edge to the user's code: anybody's optimizer
        raise SurgeryError(
            f"{type(shadow).__name__}: a step on a few entries, which shows how much it keeps, failed with "
            f"{type(error).__name__}: {error}. Needed one that steps without a closure; give a budget without bytes."
        ) from error


def _probe(sides: Iterable[int], like: Tensor, device: torch.device) -> nn.Parameter:
    where = torch.device("cpu") if device.type == "meta" else device
    probe = nn.Parameter(torch.ones(tuple(sides), dtype=like.dtype, device=where))
    probe.grad = torch.ones_like(probe)
    return probe


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}


def _with_groups(optimizer: Optimizer, groups: list[dict[str, Any]]) -> Optimizer:
    shadow: Optimizer = object.__new__(type(optimizer))
    vars(shadow).update(vars(optimizer))
    for name in [name for name in vars(shadow) if name.endswith("_hooks")]:
        vars(shadow)[name] = OrderedDict()
    shadow.state, shadow.param_groups = defaultdict(dict), groups
    return shadow
