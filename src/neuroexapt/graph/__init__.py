"""Reading a model: index spaces over the user's own forward, channel groups, cost."""

from neuroexapt.graph.attributes import AttributeEdit, set_attribute
from neuroexapt.graph.compiled import forget_compiled_code, without_compiler
from neuroexapt.graph.copies import Copies
from neuroexapt.graph.cost import Cost
from neuroexapt.graph.difference import Difference, Layer, LayerChange, Status, difference, folded
from neuroexapt.graph.fakes import (
    ExampleInputs,
    canonical_names,
    fake_forward,
    forward_error,
    in_mode,
    memory_order,
    named_tensors,
    slots_holding,
    undisturbed,
)
from neuroexapt.graph.flops import FlopCount
from neuroexapt.graph.free_attention import FreeAttention, is_freeable
from neuroexapt.graph.groups import ChannelGroup, Member
from neuroexapt.graph.growth import Growth, Silent, division
from neuroexapt.graph.isolation import attributes_kept, generators_kept, settings_of
from neuroexapt.graph.makers import FACTORS, Maker, scaling, vanishing
from neuroexapt.graph.model_graph import ModelGraph
from neuroexapt.graph.permutation import distrusted_groups, is_inexact, permutation_error, relative_change
from neuroexapt.graph.positions import NEW
from neuroexapt.graph.recorder import ModuleCall
from neuroexapt.graph.regions import region
from neuroexapt.graph.resizing import Resizing
from neuroexapt.graph.scalars import ScaleChange
from neuroexapt.graph.sizes import resized
from neuroexapt.graph.space import Space, is_pinned, leaves, resolve
from neuroexapt.graph.tape import Operation
from neuroexapt.graph.tracing import trace
from neuroexapt.graph.values import Role
from neuroexapt.graph.wrappers import is_meta, unwrapped

__all__ = [
    "FACTORS",
    "NEW",
    "AttributeEdit",
    "ChannelGroup",
    "Copies",
    "Cost",
    "Difference",
    "ExampleInputs",
    "FlopCount",
    "FreeAttention",
    "Growth",
    "Layer",
    "LayerChange",
    "Maker",
    "Member",
    "ModelGraph",
    "ModuleCall",
    "Operation",
    "Resizing",
    "Role",
    "ScaleChange",
    "Silent",
    "Space",
    "Status",
    "attributes_kept",
    "canonical_names",
    "difference",
    "distrusted_groups",
    "division",
    "fake_forward",
    "folded",
    "forget_compiled_code",
    "forward_error",
    "generators_kept",
    "in_mode",
    "is_freeable",
    "is_inexact",
    "is_meta",
    "is_pinned",
    "leaves",
    "memory_order",
    "named_tensors",
    "permutation_error",
    "region",
    "relative_change",
    "resized",
    "resolve",
    "scaling",
    "set_attribute",
    "settings_of",
    "slots_holding",
    "trace",
    "undisturbed",
    "unwrapped",
    "vanishing",
    "without_compiler",
]
