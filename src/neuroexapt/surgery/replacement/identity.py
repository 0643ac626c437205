"""Whether a module gives what it gets: tried inside a run of the model, on what flows there and on random numbers.

Numbers that happen to pass (positive ones through a ReLU) prove nothing, so the module is also run on random ones of
the same shape; on none below zero where the operator before gives none. Nothing of the model is changed by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, is_meta, undisturbed
from neuroexapt.surgery.places.neighbours import input_of, is_non_negative
from neuroexapt.surgery.plan import DECLARED, Mode
from neuroexapt.surgery.writing.graft import is_piece_path

_PROBES = 2
_SPREAD = 3.0  # of the random numbers


@dataclass(eq=False)
class Passage:
    """What a module was given and gave, in one run of the model.

    Attributes:
        refusal: Why an identity could not stand in its place, ``""`` where it could.
        changes: Modes in which it does something, as far as is known; on the meta device nothing is.
    """

    refusal: str = ""
    changes: frozenset[Mode] = field(default=DECLARED)


def passages(graph: ModelGraph, paths: Sequence[str]) -> dict[str, Passage]:
    """Runs the model once in each mode and looks at modules that run once per forward."""
    modes: dict[Mode, bool] = {"eval": False, "train": True}
    found = {path: Passage(changes=frozenset()) for path in paths}
    for mode, training in modes.items() if paths else ():
        try:
            seen = _run(graph, paths, training)
        except (ValueError, RuntimeError) as error:  # batch norm on one sample has no train mode
            seen = dict.fromkeys(paths, (False, f"the model does not run: {error}" if mode == "eval" else ""))
        for path, (is_same, reason) in seen.items():
            known = found[path]
            changes = known.changes if is_same else known.changes | {mode}
            found[path] = Passage(known.refusal or reason, changes)
    return found


def _run(graph: ModelGraph, paths: Sequence[str], training: bool) -> dict[str, tuple[bool, str]]:
    """Returns for each module whether it is an identity in this mode, and why another could not be."""
    model, probing = graph.model, list[bool]()
    results: dict[str, list[tuple[bool, str]]] = {path: [] for path in paths}
    hooks: list[Callable[[], None]] = []
    with (
        undisturbed(model, training),
        torch.no_grad(),
    ):
        try:
            for path in paths:
                hooks += _watching(graph, path, results[path], probing)
            graph.inputs.call(model)
        finally:
            for remove in hooks:
                remove()
    missing = "it runs {} times per forward, needed once"
    return {path: seen[0] if len(seen) == 1 else (False, missing.format(len(seen))) for path, seen in results.items()}


def _watching(
    graph: ModelGraph, path: str, results: list[tuple[bool, str]], probing: list[bool]
) -> list[Callable[[], None]]:
    """Hangs hooks on a module; while one of all watched modules is probed (``probing``), the others look away."""
    module, is_piece, is_empty = graph.model.get_submodule(path), is_piece_path(path), is_meta(graph.model)
    non_negative = is_non_negative(graph, input_of(graph, path))
    given: list[Tensor] = []
    state: dict[str, Tensor] = {}  # the module's buffers when it was called: a ramp counts the calls

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        if not probing and args and isinstance(args[0], Tensor):
            given.append(args[0].clone())  # the module may write into it
            state.update({name: buffer.clone() for name, buffer in module.named_buffers()})

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if probing:
            return
        reason = _refusal(args, {} if is_piece else kwargs, output, is_piece)
        is_same = False
        if not reason and not is_empty and torch.equal(given[-1], output):
            probing.append(True)
            again = partial(_called_again, module, state, args[1:], kwargs)
            is_same = _passes_random_numbers(again, given[-1], non_negative)
            probing.clear()
        results.append((is_same, reason))

    first = module.register_forward_pre_hook(before, with_kwargs=True, prepend=True)
    second = module.register_forward_hook(after, with_kwargs=True)
    return [first.remove, second.remove]


def _called_again(
    module: nn.Module, state: dict[str, Tensor], others: tuple[Any, ...], named: dict[str, Any], first: Tensor
) -> Any:
    for name, buffer in module.named_buffers():
        buffer.copy_(state[name])
    return module(first, *others, **named)


def _passes_random_numbers(module: Callable[[Tensor], Any], like: Tensor, non_negative: bool) -> bool:
    generator = torch.Generator().manual_seed(0)
    for _ in range(_PROBES):
        probe = _SPREAD * torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)
        probe = probe.abs() if non_negative else probe
        try:
            if not torch.equal(module(probe.clone()), probe):
                return False
        except SurgeryError:  # one end of a skip connection does not run alone
            return False
    return True


def _refusal(args: Any, kwargs: Any, output: Any, is_piece: bool) -> str:
    if not args or not isinstance(args[0], Tensor) or kwargs or (len(args) != 1 and not is_piece):
        return "it is given more than one tensor, and nn.Identity takes one"
    if not isinstance(output, Tensor):
        return "it returns more than one tensor"
    if output.shape != args[0].shape or output.dtype != args[0].dtype:
        return f"it makes {tuple(output.shape)} of {tuple(args[0].shape)}, and without it the next module would not fit"
    return ""
