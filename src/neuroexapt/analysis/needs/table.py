"""Which signals speak for which need: a new need or signal is a line here.

Every signal enters as its percentile among the model's layers, and a need is the mean of its signals' percentiles: all
count alike, because nothing measured so far says that one deserves more. A quantity that was measured of no layer is
left out; a layer that lacks one that others have stands in the middle of it.

- wider: the units are all in use, the loss hangs on them, and the weights cannot give what the gradient asks for.
- deeper: what is asked for is not linear in the inputs; the label is in them and cannot be read off the units yet.
- path: information about the label is lost on the way in or out, while the samples still ask for one change.
- attention: what is asked for depends on other positions than the layer sees, and the samples ask for one change.
- less: other units can replace its units, some never change, and the loss does not feel them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True)
class Signal:
    """One quantity that speaks for a need.

    Attributes:
        quantity: Its name in ``quantities``.
        side: Which end of its scale speaks for the need.
        idea: Why, in words that compare the layer with the others.
        null: What it is where there is nothing to find; it counts only where its interval excludes that.
        is_support: Whether it only adds to others: a need that nothing else speaks for is absent.
    """

    quantity: str
    side: Literal["high", "low"]
    idea: str
    null: float | None = None
    is_support: bool = False


_ASKED = Signal(
    "gradient_agreement", "high", "the samples agree more on the change that they ask for", null=0.0, is_support=True
)

NEEDS: Mapping[str, tuple[Signal, ...]] = MappingProxyType(
    {
        "wider": (
            Signal("effective_rank_fraction", "high", "its units are used more fully"),
            Signal("predictability", "low", "its units are harder to replace by one another"),
            Signal("expressivity_gap", "high", "its weights can give less of what the gradient asks for", null=0.0),
            Signal("fisher_sensitivity", "high", "the loss hangs more on each of its units"),
        ),
        "deeper": (
            Signal(
                "expressivity_gap", "high", "more of what the gradient asks for is not linear in its inputs", null=0.0
            ),
            Signal(
                "unread_information",
                "high",
                "more of the label is there but cannot be read off its units yet",
                null=0.0,
            ),
            _ASKED,
        ),
        "path": (
            Signal("information_lost", "high", "more information about the label is lost on an edge of it", null=0.0),
            _ASKED,
        ),
        "attention": (
            Signal(
                "context_fraction",
                "high",
                "more of what the gradient asks for depends on what it does not see",
                null=0.0,
            ),
            _ASKED,
        ),
        "less": (
            Signal("effective_rank_fraction", "low", "its units span fewer directions"),
            Signal("predictability", "high", "its units are easier to replace by one another"),
            Signal("near_duplicate_fraction", "high", "more of its units say the same"),
            Signal("idle_fraction", "high", "more of its units never change"),
            Signal("fisher_sensitivity", "low", "the loss feels its units less"),
        ),
    }
)
OF_UNITS = frozenset({"wider", "less"})  # of no use at the model's outputs, whose number is fixed
