"""The table of triggers: a new one is a file in this folder and a line here."""

from __future__ import annotations

from neuroexapt.morphogenesis.triggers.base import Trigger
from neuroexapt.morphogenesis.triggers.evidence import evidence
from neuroexapt.morphogenesis.triggers.interval import interval
from neuroexapt.morphogenesis.triggers.plateau import plateau
from neuroexapt.morphogenesis.triggers.schedule import schedule

TRIGGERS: dict[str, Trigger] = {
    "interval": interval,
    "schedule": schedule,
    "plateau": plateau,
    "evidence": evidence,
}
