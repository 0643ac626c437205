"""How much each unit of a channel group matters: one file for each way to tell."""

from neuroexapt.surgery.removal.importance.registry import IMPORTANCES, Importance, importance

__all__ = ["IMPORTANCES", "Importance", "importance"]
