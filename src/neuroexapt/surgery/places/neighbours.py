"""Which layer hands its output to which: read off the tape, so that only what runs counts, however it is written."""

from __future__ import annotations

from torch import Tensor, nn

from neuroexapt.graph import ModelGraph, named_tensors
from neuroexapt.surgery.writing.graft import own_class, pieces_of

_UNSEEN = ("detach",)  # fake tensors call it themselves
_NON_NEGATIVE = ("relu", "sigmoid", "hardsigmoid", "abs", "square", "exp", "softmax", "_softmax")


def runs_once(graph: ModelGraph, path: str) -> bool:
    """Whether a module is executed once per forward."""
    return sum(call.path == path for call in graph.calls) == 1


def input_of(graph: ModelGraph, path: str) -> int | None:
    """Returns the number of the one activation that a module takes from outside, if there is one only."""
    taken: dict[int, None] = {}
    for operation in graph.tape:
        if _is_inside(operation.module, path):
            for number in operation.inputs:
                maker = graph.tape.maker.get(number)
                is_from_outside = maker is None or not _is_inside(maker.module, path)
                if is_from_outside and graph.tape.values[number].is_activation:
                    taken[number] = None
    return next(iter(taken)) if len(taken) == 1 else None


def is_non_negative(graph: ModelGraph, number: int | None) -> bool:
    """Whether an activation was made by an operator that gives nothing below zero."""
    maker = graph.tape.maker.get(number) if number is not None else None
    return maker is not None and maker.name in _NON_NEGATIVE


def size_before(graph: ModelGraph, path: str) -> tuple[int, ...]:
    """Returns the shape of what a module takes, ``()`` where that is not one activation."""
    number = input_of(graph, path)
    return () if number is None else tuple(space.size for space in graph.tape.values[number].dims)


def layer_before(graph: ModelGraph, path: str) -> str:
    """Returns the module whose output goes into this one and nowhere else, or ``""``."""
    number = input_of(graph, path)
    maker = graph.tape.maker.get(number) if number is not None else None
    if number is None or maker is None or not runs_once(graph, path) or not runs_once(graph, maker.module):
        return ""
    readers = [o.module for o in graph.tape if number in o.inputs and o.name not in _UNSEEN]
    return maker.module if all(_is_inside(reader, path) for reader in readers) else ""


def layer_after(graph: ModelGraph, path: str) -> str:
    """Returns the module that alone takes this one's output, or ``""``."""
    made = {number for o in graph.tape if _is_inside(o.module, path) for number in o.outputs}
    takers = {o.module for o in graph.tape if not _is_inside(o.module, path) and made & {*o.inputs}}
    taker = takers.pop() if len(takers) == 1 else ""
    return taker if taker and layer_before(graph, taker) == path else ""


def drops_out_between(graph: ModelGraph, first: str, second: str) -> bool:
    """Whether a dropout module runs between two modules; in eval mode it leaves no operator behind."""
    order = [call.path for call in graph.calls]
    between = order[order.index(first) + 1 : order.index(second)]
    modules = [*map(graph.model.get_submodule, between), *pieces_of(graph.model.get_submodule(first))]
    return any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in modules)


def holders_of(graph: ModelGraph, parameter: Tensor | None) -> list[nn.Module]:
    """Returns the modules in whose slots a parameter is, one for each slot."""
    return [module for module in graph.model.modules() for p in module._parameters.values() if p is parameter]


def runs_as_in_torch(module: nn.Module) -> bool:
    """Whether a layer's forward is torch's own: a subclass may standardise the weight first, or activate the output."""
    return own_class(module).forward.__module__.startswith("torch.nn.")


def own_tensor(graph: ModelGraph, path: str, name: str) -> bool:
    """Whether a module keeps a plain parameter of that name which nothing else reads."""
    module, full = graph.model.get_submodule(path), f"{path}.{name}" if path else name
    if module._parameters.get(name) is None or named_tensors(graph.model).get(full) is not module._parameters[name]:
        return False
    readers = {o.module for o in graph.tape for n in o.inputs if graph.tape.values[n].parameter == full}
    return len(holders_of(graph, module._parameters[name])) == 1 and readers <= {path}


def _is_inside(module: str, path: str) -> bool:
    return module == path or module.startswith(f"{path}.")
