"""What edits of each kind have been worth: a posterior that only measured outcomes change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch

from neuroexapt.errors import InputError

WORST, BEST = -1.0, 1.0  # net gains beyond are clipped: one run that blew up is one bad outcome, not a thousand


@dataclass(frozen=True, slots=True)
class Belief:
    """A normal-inverse-gamma distribution of mean and variance of the net gain of an edit.

    The defaults are the prior: a kind is worth 0 +- 0.05 of the loss, edits of a kind scatter by 0.05 about that, and
    this counts for as much as one trial does.

    Attributes:
        mean: Expected net gain, a fraction of the loss.
        strength: Trials that the mean counts for, > 0.
        shape: Of the inverse gamma distribution of the variance, > 1.
        scale: Of the same, > 0; the expected variance is ``scale / (shape - 1)``.
        count: Outcomes learnt.
    """

    mean: float = 0.0
    strength: float = 1.0
    shape: float = 2.0
    scale: float = 0.05**2
    count: int = 0

    @property
    def spread(self) -> float:
        """Standard deviation of the distribution of the mean."""
        return math.sqrt(self.scale / (self.shape - 1) / self.strength)

    def after(self, net_gain: float, weight: float) -> Belief:
        """Returns the posterior after one outcome that counts for ``weight`` of them."""
        strength = self.strength + weight
        surprise = net_gain - self.mean
        return Belief(
            self.mean + weight * surprise / strength,
            strength,
            self.shape + weight / 2,
            self.scale + 0.5 * self.strength * weight * surprise**2 / strength,
            self.count + 1,
        )


@dataclass(slots=True)
class Experience:
    """A posterior of the net gain of an edit, for each mutation kind.

    Conjugate updates of mean and variance of a Gaussian, both unknown (Murphy 2007, "Conjugate Bayesian analysis of the
    Gaussian distribution", section 6), for Thompson sampling (Thompson 1933; Russo et al. 2018). The posterior of an
    earlier run is the prior of the next: save ``to_json``, begin with ``from_json``.

    Memory: five numbers for each kind.
    """

    beliefs: dict[str, Belief] = field(default_factory=dict)

    def learn(self, kind: str, net_gain: float, weight: float = 1.0) -> None:
        """Takes one measured outcome in.

        Minus infinity, a trial that was not finite, counts as ``WORST``. Plus infinity, a control that was not, says
        nothing of the edit, and what is not a number was not measured: these teach nothing.

        Args:
            kind: Class name of the mutation.
            net_gain: As in a verdict, a fraction of the loss; its k-th part for each of k edits that were tried
                together. Clipped to [``WORST``, ``BEST``].
            weight: Of this outcome, > 0; 1 / k for each of k such edits.
        """
        if math.isnan(net_gain) or net_gain == math.inf:
            return
        self.beliefs[kind] = self.of(kind).after(min(max(net_gain, WORST), BEST), weight)

    def of(self, kind: str) -> Belief:
        """Returns what is believed of a kind: the prior where nothing has been learnt."""
        return self.beliefs.get(kind, Belief())

    def sample(self, kind: str, generator: torch.Generator, risk_aversion: float = 0.0) -> float:
        """Draws what an edit of a kind is worth; from the generator alone.

        A variance is drawn, then a mean given it, and ``mean - risk_aversion * standard deviation`` is returned: the
        joint draw of Zhu & Tan 2020 ("Thompson sampling algorithms for mean-variance bandits", algorithm MVTS), with
        the standard deviation in place of the variance, so that the aversion has no unit. Without aversion this is a
        draw of Student's t with ``2 shape`` degrees of freedom.
        """
        belief = self.of(kind)
        deviation = math.sqrt(belief.scale / _gamma(belief.shape, generator))
        return belief.mean + deviation * (_normal(generator) / math.sqrt(belief.strength) - risk_aversion)

    def mean(self, kind: str) -> float:
        """Returns the expected net gain of an edit of a kind."""
        return self.of(kind).mean

    def spread(self, kind: str) -> float:
        """Returns the posterior standard deviation of that expectation."""
        return self.of(kind).spread

    def count(self, kind: str) -> int:
        """Returns how many outcomes of a kind have been learnt."""
        return self.of(kind).count

    def to_json(self) -> dict[str, Any]:
        """Returns everything as a JSON-ready dictionary."""
        return {kind: asdict(belief) for kind, belief in self.beliefs.items()}

    @staticmethod
    def from_json(record: Any) -> Experience:
        """Rebuilds what ``to_json`` returned.

        Raises:
            InputError: It is something else.
        """
        if not isinstance(record, Mapping):
            raise InputError(f"experience: found a {type(record).__name__}, needed an object with a belief per kind.")
        return Experience({str(kind): _belief(str(kind), values) for kind, values in record.items()})


def _belief(kind: str, values: Any) -> Belief:
    names = [f.name for f in fields(Belief)]
    if not isinstance(values, Mapping) or sorted(values) != sorted(names):
        found = f"the keys {sorted(values)}" if isinstance(values, Mapping) else f"a {type(values).__name__}"
        raise InputError(f"experience: {kind}: found {found}, needed {', '.join(names)}. Use a file of `to_json`.")
    numbers = [v for v in values.values() if isinstance(v, int | float) and math.isfinite(v)]
    least = {"mean": -math.inf, "strength": 0.0, "shape": 1.0, "scale": 0.0, "count": -1}
    if len(numbers) < len(names) or any(values[name] <= least[name] for name in names):
        raise InputError(
            f"experience: {kind}: found {dict(values)}, needed finite numbers, strength and scale above 0, shape above "
            "1, count at least 0. Use a file of `to_json`."
        )
    return Belief(**values)


def _normal(generator: torch.Generator) -> float:
    return float(torch.randn((), generator=generator, dtype=torch.float64))


def _gamma(shape: float, generator: torch.Generator) -> float:
    """Draws from a gamma distribution of scale 1 and shape >= 1 (Marsaglia & Tsang 2000)."""
    d = shape - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        x = _normal(generator)
        v = (1 + c * x) ** 3
        u = 1 - float(torch.rand((), generator=generator, dtype=torch.float64))
        if v > 0 and math.log(u) < 0.5 * x * x + d - d * v + d * math.log(v):
            return d * v
