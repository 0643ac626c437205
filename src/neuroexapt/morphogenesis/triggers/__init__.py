"""When to change something: triggers, and the gates that all of them pass."""

from neuroexapt.morphogenesis.triggers.base import Moment, Trigger
from neuroexapt.morphogenesis.triggers.firing import Firing, why_now
from neuroexapt.morphogenesis.triggers.registry import TRIGGERS

__all__ = ["TRIGGERS", "Firing", "Moment", "Trigger", "why_now"]
