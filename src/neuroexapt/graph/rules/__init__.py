"""What every ATen operator does to index spaces, one file a family.

To teach the graph a new operator, write its rule in the family's file; the registration is the decorator's one line.
"""

from neuroexapt.graph.rules import (
    attention,
    contractions,
    elementwise,
    joins,
    lookup,
    norms,
    pooling,
    reductions,
    views,
)
from neuroexapt.graph.rules.registry import RULES, VIEW_RULES, DimensionMap, base_name, rule, view_rule

__all__ = [
    "RULES",
    "VIEW_RULES",
    "DimensionMap",
    "attention",
    "base_name",
    "contractions",
    "elementwise",
    "joins",
    "lookup",
    "norms",
    "pooling",
    "reductions",
    "rule",
    "view_rule",
    "views",
]
