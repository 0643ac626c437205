"""``ARMS``: what is compared, by name; the letters are those of the protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import neuroexapt as nx
from growth.fixed import train_final, train_fixed
from growth.ours import grow_ours
from growth.peer import grow_by_gromo, grow_by_recipe
from growth.scheduled import Change, grow_scheduled
from growth.task import Data, Task

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train.

    Attributes:
        letter: In the protocol.
        meaning: In words.
        run: (task, data, seed, row of the arm that it is made equal to) -> facts of a row.
        equal_to: The arm whose FLOPs it spends, everything counted.
        needs: A package that is none of the project's.
    """

    letter: str
    meaning: str
    run: Callable[[Task, Data, int, Row], dict[str, Any]]
    equal_to: str = ""
    needs: str = ""


def _ours(letter: str, meaning: str, **settings: Any) -> Arm:
    def run(task: Task, data: Data, seed: int, _: Row) -> dict[str, Any]:
        return grow_ours(task, data, seed, dataclasses.replace(task.ours, **settings))

    return Arm(letter, meaning, run)


def _changed(meaning: str, **change: Any) -> Arm:
    def run(task: Task, data: Data, seed: int, _: Row) -> dict[str, Any]:
        return grow_scheduled(task, data, seed, Change(**change))

    return Arm("F", meaning, run)


def _equal(letter: str, which: str, other: str) -> Arm:
    def run(task: Task, data: Data, seed: int, row: Row) -> dict[str, Any]:
        if which == "final":
            return train_final(task, data, seed, row)
        return train_fixed(task, data, seed, task.small, row["total_flops"])

    network = "the seed network" if which == "small" else f'the final network of "{other}", from scratch'
    return Arm(letter, f'{network}, for the FLOPs that "{other}" spent with this seed', run, other)


def _peer(method: str, how: Callable[..., dict[str, Any]], meaning: str) -> Arm:
    return Arm("G", meaning, lambda task, data, seed, _: how(task, data, seed, method), needs="gromo")


ARMS: dict[str, Arm] = {
    "scratch": Arm(
        "A", "the full network, from scratch, all steps", lambda t, d, seed, _: train_fixed(t, d, seed, t.full)
    ),
    "small": Arm("D", "the seed network, all steps", lambda t, d, seed, _: train_fixed(t, d, seed, t.small)),
    "ours": _ours(
        "E",
        "`nx.Morphogenesis` with the suite's settings: every event is tried against a control, unless its settings say "
        "trial_epochs 0 (B3, B4)",
    ),
    "scratch = ours": _equal("B", "final", "ours"),
    "small = ours": _equal("C", "small", "ours"),
    "ours, untried": _ours("F", "the same events, edits made without a trial", trial_epochs=0.0),
    "ours, defaults": Arm(
        "E",
        "`nx.Morphogenesis` with no setting of the suite",
        lambda task, data, seed, _: grow_ours(task, data, seed, nx.MorphogenesisConfig()),
    ),
    "score-based where": _ours("F", "ours, places by growth score per added FLOP", policy="greedy"),
    "scheduled": _changed("growth by the schedule, nothing tried: zero fan-out, optimizer kept"),
    "scratch = scheduled": _equal("B", "final", "scheduled"),
    "small = scheduled": _equal("C", "small", "scheduled"),
    "optimizer rebuilt": _changed("scheduled, a new optimizer after each event", rebuilds_optimizer=True),
    "pairs": _changed("scheduled, new units in pairs (V, V), (Z, -Z)", init="pair"),
    "copies": _changed("scheduled, new units are copies (Net2Net)", init="copy"),
    "informed": _changed("scheduled, incoming weights chosen by the residual gradient", init="informed"),
    "random": _changed("scheduled, new units random on both sides: the function changes", is_random=True),
    **{
        f"gromo {method}": _peer(method, grow_by_gromo, f"gromo 0.1.0, {meaning}, at the same events")
        for method, meaning in (
            ("TINY", "units that lower the loss at once, with line search"),
            ("GradMax", "zero incoming weights, largest gradient"),
            ("VT", "pairs, rescaled"),
            ("random", "random units"),
        )
    },
    "gromo TINY, recipe": _peer(
        "TINY", grow_by_recipe, "gromo 0.1.0 as in its tutorials: Adam 0.003, constant, late events"
    ),
}
