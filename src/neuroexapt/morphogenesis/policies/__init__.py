"""Where to change something: policies order the candidates of an event."""

from neuroexapt.morphogenesis.policies.base import Context, Policy
from neuroexapt.morphogenesis.policies.greedy import greedy, predicted, score
from neuroexapt.morphogenesis.policies.registry import POLICIES
from neuroexapt.morphogenesis.policies.scheduled import scheduled
from neuroexapt.morphogenesis.policies.thompson import thompson
from neuroexapt.morphogenesis.policies.uniform import uniform

__all__ = ["POLICIES", "Context", "Policy", "greedy", "predicted", "scheduled", "score", "thompson", "uniform"]
