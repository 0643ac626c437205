"""What every ATen operator does to index spaces, one file a family.

To teach the graph a new operator, write its rule in the family's file; the registration is the decorator's one line.
"""

from neuroexapt.graph.rules import (
    attention,
    contractions,
    convolutions,
    creation,
    elementwise,
    joins,
    lookup,
    norms,
    ordering,
    patches,
    pooling,
    recurrent,
    reductions,
    reshape,
    slices,
    views,
)
from neuroexapt.graph.rules.registry import RULES, VIEW_RULES, DimensionMap, base_name, rule, rule_name, view_rule

__all__ = [
    "RULES",
    "VIEW_RULES",
    "DimensionMap",
    "attention",
    "base_name",
    "contractions",
    "convolutions",
    "creation",
    "elementwise",
    "joins",
    "lookup",
    "norms",
    "ordering",
    "patches",
    "pooling",
    "recurrent",
    "reductions",
    "reshape",
    "rule",
    "rule_name",
    "slices",
    "view_rule",
    "views",
]
