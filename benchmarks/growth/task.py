"""``Task``: data, a network of any width, and how it is trained. A suite is one file that builds one, and one line.

Test data are read by nothing but the curves and the last line of a run; what is decided is decided on validation data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import neuroexapt as nx
from growth.bars import Bar

Sizes = Mapping[str, int]  # axis, as ``Widen`` names it -> number of units


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Samples in memory: inputs [n, ...] and targets [n, ...]."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def at(self, rows: Tensor) -> Split:
        """Returns some of them."""
        return Split(self.inputs[rows], self.targets[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Train updates weights, validation decides, test is reported."""

    train: Split
    validation: Split
    test: Split


@dataclass(frozen=True, slots=True)
class Score:
    """What is reported of a model.

    Attributes:
        of: (outputs, targets) -> value of every sample, [n]; the mean of the test samples is the result.
        name: In words, with its unit.
        higher_is_better: Its direction.
    """

    of: Callable[[Tensor, Tensor], Tensor]
    name: str
    higher_is_better: bool = True


def hits(outputs: Tensor, targets: Tensor) -> Tensor:
    """100 where the class is right and 0 elsewhere: the mean is the accuracy in percent."""
    return 100.0 * (outputs.argmax(1) == targets).float()


ACCURACY = Score(of=hits, name="test accuracy, %")


def draw_as_torch_does(model: nn.Module) -> None:
    """Calls ``reset_parameters`` of every module that has it: what torch's layers do when they are made."""
    for module in model.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One comparison of growth.

    Attributes:
        name: Of the suite, and of its files.
        title: One line for the page.
        load: Returns the data, or a sentence that says why there are none here.
        build: Network of given sizes, on the global generator.
        small: Where growth begins: axis -> units.
        full: Where it ends.
        loss: (outputs, targets) -> loss of every sample, [n].
        score: What is reported.
        optimizer: (model, learning rate) -> optimizer; the rate of all groups follows one schedule.
        learning_rates: What the full network was tried with, on validation data.
        learning_rate: The best of them; the same in all arms.
        warmup_steps: Of the learning rate, the same number in all arms.
        batch_size: Samples in one step; the last incomplete batch of an epoch is left out.
        hold: Fraction of an arm's steps before the cosine of the learning rate begins.
        steps: Optimizer steps of the arms that are not made equal in FLOPs to another.
        growth_steps: Those of the arms that grow, where they differ: steps of a small network are cheap. 0: ``steps``.
        events: Positions of scheduled growth, as fractions of ``num_growth_steps``; every axis grows by an equal
            number of units.
        ours: Settings of ``nx.Morphogenesis`` in the arm "ours".
        num_deciding: Validation samples that a trial is decided on; each look at them counts.
        seeds: How many, from 0.
        augment: (inputs, generator) -> inputs, in training only.
        peer: How gromo builds the same network (see ``peer.py``); nothing where it can not.
        without: Names of arms that this suite leaves out.
        bars: What it was asked to show.
        draw: Draws all weights of a network of this task anew, on the global generator.
    """

    name: str
    title: str
    load: Callable[[], Data | str]
    build: Callable[[Sizes], nn.Module]
    small: Sizes
    full: Sizes
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Score = ACCURACY
    optimizer: Callable[[nn.Module, float], Optimizer]
    learning_rates: tuple[float, ...]
    learning_rate: float
    warmup_steps: int
    batch_size: int
    steps: int
    events: tuple[float, ...]
    ours: nx.MorphogenesisConfig
    num_deciding: int
    seeds: int
    hold: float = 0.0
    growth_steps: int = 0
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    peer: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    draw: Callable[[nn.Module], None] = draw_as_torch_does

    @property
    def num_growth_steps(self) -> int:
        """Optimizer steps of the arms that grow."""
        return self.growth_steps or self.steps

    def sizes_after(self, num_events: int) -> dict[str, int]:
        """Returns the sizes of scheduled growth after so many of its events."""
        share = num_events / len(self.events)
        return {axis: round(old + share * (self.full[axis] - old)) for axis, old in self.small.items()}
