"""The family of mutations, one file each."""

from neuroexapt.surgery.mutations.add_attention import AddAttention
from neuroexapt.surgery.mutations.add_branch import AddBranch
from neuroexapt.surgery.mutations.add_pooling import AddPooling
from neuroexapt.surgery.mutations.add_regularization import AddRegularization
from neuroexapt.surgery.mutations.add_residual import AddResidual
from neuroexapt.surgery.mutations.expand_bottleneck import ExpandBottleneck
from neuroexapt.surgery.mutations.hybrid_division import HybridDivision
from neuroexapt.surgery.mutations.insert_layer import InsertLayer
from neuroexapt.surgery.mutations.prune_units import PruneUnits
from neuroexapt.surgery.mutations.prune_weights import PruneWeights
from neuroexapt.surgery.mutations.registry import MUTATIONS
from neuroexapt.surgery.mutations.remove_layer import RemoveLayer
from neuroexapt.surgery.mutations.split_units import SplitUnits
from neuroexapt.surgery.mutations.swap_operation import SwapOperation
from neuroexapt.surgery.mutations.widen import Widen

__all__ = [
    "MUTATIONS",
    "AddAttention",
    "AddBranch",
    "AddPooling",
    "AddRegularization",
    "AddResidual",
    "ExpandBottleneck",
    "HybridDivision",
    "InsertLayer",
    "PruneUnits",
    "PruneWeights",
    "RemoveLayer",
    "SplitUnits",
    "SwapOperation",
    "Widen",
]
