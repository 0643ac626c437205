"""torch-pruning on the same model, in the same process: time, memory, end to end, and silently wrong results.

No settings per model, as for us; the only setting is not to prune what makes the model's output.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import nn

import neuroexapt as nx
from neuroexapt.errors import NeuroExaptError
from survey import observe
from survey.memory import peak_memory
from survey.model_list import SEED, build

NUM_LAYERS = 12  # layers whose pruning is checked for silent errors
FRACTION = 0.25  # of the units of a layer, in that check
_NO_ANSWER = "no answer"
SAME = 1e-4  # relative, float32; a wrong index moves outputs by their own size


class _TimeUpError(BaseException):
    """Not an ``Exception``, so that no handler inside swallows it."""


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise _TimeUpError

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def peer_build(model: nn.Module, probe: Any, limit: float) -> dict[str, Any]:
    """Returns the time and memory of its graph and all its groups; what crashed or ran out of time says so."""
    return _answered(lambda: _build(model, probe), limit)


def measure_peer(name: str, probe: Any, unseen: Any, build_row: dict[str, Any], limit: float) -> dict[str, Any]:
    """Returns whether pruning half of everything works, and what pruning units that nothing reads does.

    Both begin with the graph: where that had no answer (``build_row``), they are not waited for again.
    """
    if build_row.get("failed", "").startswith(_NO_ANSWER):
        return {"end_to_end": dict(build_row), "checked": dict(build_row)}
    return {
        "end_to_end": _answered(lambda: _end_to_end(name, probe), limit),
        "checked": _answered(lambda: _semantic_check(name, probe, unseen), limit),
    }


def _answered(work: Callable[[], dict[str, Any]], limit: float) -> dict[str, Any]:
    # Another library's crash or endless search is what is counted here.
    try:
        with _alarm(limit):
            return work()
    except _TimeUpError:
        return {"failed": f"{_NO_ANSWER} in {limit:.0f} s"}
    except Exception as error:  # see above
        return {"failed": f"{type(error).__name__}: {str(error)[:160]}"}


def _build(model: nn.Module, probe: Any) -> dict[str, Any]:
    import torch_pruning

    tiny = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1))  # what is imported late is not counted, as for us
    list(torch_pruning.DependencyGraph().build_dependency(tiny, torch.zeros(1, 1, 2, 2)).get_all_groups())
    with peak_memory() as peak:
        started = time.process_time()
        graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=probe, verbose=False)
        groups = list(graph.get_all_groups())
        seconds = time.process_time() - started
    return {
        "seconds": round(seconds, 3),
        "num_groups": len(groups),
        "extra_mib": round(peak.extra_bytes / 2**20, 1),
    }


def _end_to_end(name: str, probe: Any) -> dict[str, Any]:
    import torch_pruning

    model = build(name)
    before = observe.outputs(model, probe, training=False)
    count = sum(p.numel() for p in model.parameters())
    pruner = torch_pruning.pruner.BasePruner(
        model,
        probe,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=_classifiers(model, before),
    )
    pruner.step()
    after = observe.outputs(model, probe, training=False)
    if [t.shape for t in before] != [t.shape for t in after]:
        return {"failed": "the output has another shape"}
    removed = 1 - sum(p.numel() for p in model.parameters()) / count
    return {"removed": round(removed, 3)} if removed > 0 else {"failed": "nothing was pruned"}


def _classifiers(model: nn.Module, outputs: list[torch.Tensor]) -> list[nn.Module]:
    """Layers that are as wide as an output: the one setting that pruning always needs."""
    sizes = {output.shape[dim] for output in outputs for dim in (1, -1) if output.dim() > 1}
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    widths = [(m, m.weight.shape[0]) for m in model.modules() if isinstance(m, kinds)]
    return [module for module, width in widths if width in sizes]


def _semantic_check(name: str, probe: Any, unseen: Any) -> dict[str, Any]:
    """Prunes units that nothing reads any more: whatever the library does, the output must not move."""
    model = build(name)
    undecidable = _read_across(model, probe)
    ignored = set(map(id, _classifiers(model, observe.outputs(model, probe, training=False))))
    paths = [
        path
        for path, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)) and id(module) not in ignored
    ]
    counts: Counter[str] = Counter()
    wrong = []
    for path in random.Random(f"{SEED} {name}").sample(paths, min(NUM_LAYERS, len(paths))):
        verdict = "not decidable" if path in undecidable else _prune_unread(build(name), path, probe, unseen)
        counts[verdict] += 1
        if verdict == "changed the output":
            wrong.append(path)
    return {"counts": dict(counts), "wrong": wrong}


def _read_across(model: nn.Module, probe: Any) -> set[str]:
    """Layers whose units a norm, softmax or mean reads: taking units away changes the others there by right."""
    try:
        groups = nx.trace(model, probe).groups
    except NeuroExaptError:
        return set()
    return {member.module for group in groups if group.readers for member in group.members}


def _prune_unread(model: nn.Module, path: str, probe: Any, unseen: Any) -> str:
    import torch_pruning

    function = torch_pruning.pruner.function
    layer = model.get_submodule(path)
    # Its own exceptions are its answers: counted, not raised.
    try:
        graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=probe, verbose=False)
        if layer not in graph.module2node:
            return "refused"
        prune = graph.get_pruner_of_module(layer)
        chosen = random.Random(SEED).sample(range(layer.weight.shape[0]), max(1, int(FRACTION * layer.weight.shape[0])))
        group = graph.get_pruning_group(layer, prune.prune_out_channels, sorted(chosen))
        if not graph.check_pruning_group(group):
            return "refused"
        consumers = [
            (dep.target.module, idxs)
            for dep, idxs in group
            if dep.handler in (function.prune_conv_in_channels, function.prune_linear_in_channels)
        ]
        if not consumers or any(getattr(module, "groups", 1) > 1 for module, _ in consumers):
            return "not decidable"
        with torch.no_grad():
            for module, idxs in consumers:
                module.weight[:, idxs] = 0
        before = observe.outputs(model, unseen, training=False)
        group.prune()
        change = observe.relative_change(before, observe.outputs(model, unseen, training=False))
    except Exception as error:  # see above
        return f"crash: {type(error).__name__}"
    return "exact" if change <= SAME else "changed the output"
