"""The table of mutations: a new one is a file in this folder and a line here."""

from neuroexapt.surgery.mutation import Mutation
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
from neuroexapt.surgery.mutations.remove_layer import RemoveLayer
from neuroexapt.surgery.mutations.split_units import SplitUnits
from neuroexapt.surgery.mutations.swap_operation import SwapOperation
from neuroexapt.surgery.mutations.widen import Widen

MUTATIONS: dict[str, type[Mutation]] = {
    "Widen": Widen,
    "SplitUnits": SplitUnits,
    "ExpandBottleneck": ExpandBottleneck,
    "InsertLayer": InsertLayer,
    "AddBranch": AddBranch,
    "AddResidual": AddResidual,
    "PruneUnits": PruneUnits,
    "PruneWeights": PruneWeights,
    "HybridDivision": HybridDivision,
    "AddAttention": AddAttention,
    "AddPooling": AddPooling,
    "AddRegularization": AddRegularization,
    "SwapOperation": SwapOperation,
    "RemoveLayer": RemoveLayer,
}
