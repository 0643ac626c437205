"""The family of mutations, one file each."""

from neuroexapt.surgery.mutations.hybrid_division import HybridDivision
from neuroexapt.surgery.mutations.insert_layer import InsertLayer
from neuroexapt.surgery.mutations.registry import MUTATIONS
from neuroexapt.surgery.mutations.widen import Widen

__all__ = ["MUTATIONS", "HybridDivision", "InsertLayer", "Widen"]
