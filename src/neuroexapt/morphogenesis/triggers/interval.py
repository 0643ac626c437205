"""Trigger "interval": so long after the latest event."""

from __future__ import annotations

from neuroexapt.morphogenesis.triggers.base import Moment


def interval(moment: Moment) -> str:
    """Fires ``interval_epochs`` times the strictness after the latest event ended, or after the beginning."""
    epochs = moment.config.interval_epochs * moment.strictness
    return f"every {epochs:.3g} epochs" if moment.has_passed(epochs) else ""
