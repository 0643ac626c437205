"""Averages of a model (EMA, SWA): second copies that follow every edit with weights of their own.

``torch.optim.swa_utils.AveragedModel``, a ``ModelEma`` of timm, or a plain deep copy: whatever holds a module of the
model's own structure. The same plan is carried out on it, so old entries move as the model's do. New entries that are
random are the model's own: the average of a number that has had one value so far.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from neuroexapt.errors import InputError
from neuroexapt.graph import ExampleInputs, named_tensors, without_compiler


def averages_inside(model: nn.Module, given: nn.Module | Sequence[nn.Module]) -> tuple[nn.Module, ...]:
    """Returns for each average the module in it that has the model's structure.

    Raises:
        InputError: One has none, or shares a tensor with the model.
    """
    several = [given] if isinstance(given, nn.Module) else list(given)
    found = []
    for index, average in enumerate(several):
        inside = _inside(model, average, f"averages[{index}]")
        check_same(model, inside, f"averages[{index}]")
        found.append(inside)
    return tuple(found)


def check_same(model: nn.Module, average: nn.Module, where: str) -> None:
    """Refuses an average that no longer is a second copy of the model.

    Raises:
        InputError: A parameter or buffer is missing, has another shape, or is the model's own.
    """
    wanted, found = named_tensors(model), named_tensors(average)
    own = {id(tensor): name for name, tensor in wanted.items()}
    for name in dict.fromkeys([*wanted, *found]):
        if name in wanted and name in found and wanted[name].shape == found[name].shape:
            if id(found[name]) in own:
                raise InputError(
                    f"{where}: {name} is the model's own tensor, needed a second copy. Make it with `copy.deepcopy`."
                )
            continue
        raise InputError(
            f"{where}: found {name} {_shape(found.get(name))}, needed {_shape(wanted.get(name))} as in "
            f"{type(model).__name__}. Make the average from the model as it is now."
        )


def inputs_for(average: nn.Module, inputs: ExampleInputs) -> ExampleInputs:
    """Returns the inputs on the average's device, which may be another than the model's."""
    devices = {tensor.device for tensor in named_tensors(average).values()}
    return inputs.to(devices.pop()) if len(devices) == 1 else inputs


def _inside(model: nn.Module, average: nn.Module, where: str) -> nn.Module:
    """Looks through the shell of the compiler and through ``.module``, where every kind of average keeps its copy."""
    if not isinstance(average, nn.Module):
        raise InputError(f"{where}: found a {type(average).__name__}, needed a module. Give the average itself.")
    wanted, candidate = set(named_tensors(model)), without_compiler(average)
    while set(named_tensors(candidate)) != wanted:
        inner = candidate._modules.get("module")
        if inner is None:
            return without_compiler(average)  # its differences are named by the check
        candidate = without_compiler(inner)
    return candidate


def _shape(tensor: Tensor | None) -> str:
    return "nowhere" if tensor is None else f"of shape {tuple(tensor.shape)}"
