"""``Budget``: what a model may cost; an edit beyond it is refused before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from neuroexapt.errors import BudgetError
from neuroexapt.surgery.checking.forecast import Prospect


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Limits of a model, each at least 1 or ``None`` for none. An edit that lowers what is beyond them is admitted.

    Attributes:
        parameters: Most parameters.
        flops_per_sample: Most forward FLOPs of one sample.
        bytes: Most bytes of one training step, everything together: ``Forecast.peak_bytes``.
        batch_size: Samples in that step; those of the example inputs by default.
    """

    parameters: int | None = None
    flops_per_sample: int | None = None
    bytes: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("parameters", "flops_per_sample", "bytes", "batch_size"):
            limit = getattr(self, name)
            if limit is not None and (type(limit) is not int or limit < 1):
                raise ValueError(f"Budget.{name}: found {limit!r}, needed a whole number from 1 on, or None.")

    def check(self, now: Callable[[], Prospect], after: Prospect, description: str) -> None:
        """Refuses an edit that exceeds a limit.

        Args:
            now: Makes the model without the edit; only called where a limit is exceeded.
            after: The model with it.
            description: Of the edit, for the message.

        Raises:
            BudgetError: Says which limit, and by how much.
            TraceError: A forward fails on fake tensors, so that nothing can be said.
        """
        for limit, quantity, keyword in self._limits():
            found = _value(after, keyword)
            if found > limit and found > _value(now(), keyword):
                raise BudgetError(
                    f"{description}: found {found:,} {quantity} after it, needed at most {limit:,} by the budget "
                    f"({keyword}={limit}). Choose a smaller edit or a larger budget."
                )

    def _limits(self) -> Iterator[tuple[int, str, str]]:
        if self.parameters is not None:
            yield self.parameters, "parameters", "parameters"
        if self.flops_per_sample is not None:
            yield self.flops_per_sample, "forward FLOPs per sample", "flops_per_sample"
        if self.bytes is not None:
            yield self.bytes, "bytes in a training step", "bytes"


def _value(prospect: Prospect, keyword: str) -> int:
    if keyword == "parameters":
        return prospect.num_parameters
    return prospect.flops_per_sample if keyword == "flops_per_sample" else prospect.forecast.peak_bytes
