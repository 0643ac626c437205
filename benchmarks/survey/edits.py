"""One edit, from the question whether it can be made to the proof that it can be taken back.

An edit ends *exact* (applied, verified, confirmed on other data), *refused* before anything changed, or *taken back*
(the library's own verification failed and the model is as it was). *Wrong* is an edit that the library verified and
other data refute; *fault* a crash or a model that is not restored.
"""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

import neuroexapt as nx
from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ChannelGroup, ModelGraph
from survey import observe

TOLERANCE = 1e-5  # relative, float32
DOUBLE_TOLERANCE = 1e-9  # relative, float64
NUM_AXES = 20


@dataclass
class Outcome:
    """What became of one edit."""

    axis: str
    kind: str
    size: int = 0
    to: int = 0
    resizable: bool = False
    outcome: str = ""
    reason: str = ""
    change: float = 0.0
    second_change: float = 0.0
    in_train_mode: bool = False
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Returns the fields, with measured numbers to three digits."""
        return {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in asdict(self).items()}


@dataclass
class Bench:
    """A model on the bench: with its surgeon, a batch that the surgeon never sees, and what the model gave for it."""

    model: nn.Module
    surgeon: nx.Surgeon
    unseen: Any
    optimizer: Optimizer | None = None

    def __post_init__(self) -> None:
        self.before = observe.both_modes(self.model, self.unseen)
        self.whole = observe.fingerprint(self.model, self.optimizer)

    def unseen_change(self) -> float:
        """Returns the largest relative change of the outputs on the unseen batch, over the modes that ran before."""
        return max(
            observe.relative_change(old, observe.outputs(self.model, self.unseen, training=mode == "train"))
            for mode, old in self.before.items()
        )

    def damage(self) -> str:
        """Names what is not as it was, or returns ``""``."""
        return observe.difference(self.whole, observe.fingerprint(self.model, self.optimizer))


def sample_axes(graph: ModelGraph, name: str, seed: int) -> list[ChannelGroup]:
    """Draws up to 20 of the axes that are not pinned."""
    free = [group for group in graph.groups if not group.pin_reason]
    return random.Random(f"{seed} {name}").sample(free, min(NUM_AXES, len(free)))


def target_sizes(graph: ModelGraph, group: ChannelGroup, index: int) -> tuple[int, int]:
    """Returns two new sizes to try: some units more and twice as many, each first on every other axis.

    Both are the next sizes that the user's code admits: eight heads at any number of channels is no question to ask.
    """
    more, twice = (graph.size_from(group, n) for n in (group.size + (3, 5, 7, 9)[index // 2 % 4], 2 * group.size))
    return (more, twice) if index % 2 == 0 else (twice, more)


def planned(bench: Bench, group: ChannelGroup, index: int) -> tuple[Outcome, nx.Widen | None]:
    """Asks for a plan at either size, on fake tensors; resizable is what can be widened and has a plan."""
    result = Outcome(axis=group.name, kind="Widen", size=group.size)
    refusals = []
    for to in target_sizes(bench.surgeon.graph, group, index):
        result.to = to
        mutation = nx.Widen(axis=group.name, to=to)
        try:
            bench.surgeon.plan(mutation)
        except SurgeryError as error:
            refusals.append(str(error))
        except Exception as error:  # anything else that a plan raises is a fault to be reported
            result.outcome, result.reason = "fault", f"plan: {type(error).__name__}: {error}"
            return result, None
        else:
            result.resizable = group.can_widen
            return result, mutation
    result.outcome, result.reason = "refused", refusals[0]
    return result, None


def tried(bench: Bench, result: Outcome, mutation: nx.Mutation) -> Outcome:
    """Applies a planned edit, checks it on the unseen batch, takes it back, and compares every byte."""
    started = time.perf_counter()
    try:
        patch = bench.surgeon.apply(mutation)
    except SurgeryError as error:
        result.outcome, result.reason = "taken back", str(error)
        return _restored(bench, result)
    except Exception as error:  # a crash is what is looked for here
        result.outcome, result.reason = "fault", f"apply: {type(error).__name__}: {error}"
        return _restored(bench, result)
    result.seconds = time.perf_counter() - started
    result.change, result.in_train_mode = patch.output_change, "train" in bench.before
    try:
        result.second_change = bench.unseen_change()
    except Exception as error:  # the edited model does not run on other data
        result.outcome, result.reason = "wrong", f"forward: {type(error).__name__}: {error}"
    else:
        result.outcome = "exact" if result.second_change <= TOLERANCE else "wrong"
    bench.surgeon.revert(patch)
    return _restored(bench, result)


def _restored(bench: Bench, result: Outcome) -> Outcome:
    damage = bench.damage()
    if damage:
        result.outcome, result.reason = "fault", f"not restored: {damage}"
        bench.whole = observe.fingerprint(bench.model, bench.optimizer)
    return result
