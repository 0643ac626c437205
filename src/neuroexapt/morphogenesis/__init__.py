"""Deciding: triggers, policies, budget, trial and verdict (dynamic neural morphogenesis)."""

from neuroexapt.morphogenesis.assay import Batches
from neuroexapt.morphogenesis.engine import Morphogenesis
from neuroexapt.morphogenesis.policies import POLICIES
from neuroexapt.morphogenesis.snapshot import Snapshot

__all__ = ["POLICIES", "Batches", "Morphogenesis", "Snapshot"]
