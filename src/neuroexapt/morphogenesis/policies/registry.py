"""The table of policies: a new one is a file in this folder and a line here."""

from __future__ import annotations

from neuroexapt.morphogenesis.policies.base import Policy
from neuroexapt.morphogenesis.policies.greedy import greedy
from neuroexapt.morphogenesis.policies.scheduled import scheduled
from neuroexapt.morphogenesis.policies.thompson import thompson
from neuroexapt.morphogenesis.policies.uniform import uniform

POLICIES: dict[str, Policy] = {
    "uniform": uniform,
    "greedy": greedy,
    "scheduled": scheduled,
    "thompson": thompson,
}
