"""The table of operator rules: one function an operator, looked up by the operator's base name.

A rule takes a ``Call`` and returns either the spaces of the first output (all others then get pinned spaces of their
own), or a list with the spaces of every output tensor. In-place variants (``add_``) share the rule of their operator.
Operators that torch itself tags as pointwise share one rule, unless they have their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from neuroexapt.graph.space import Space
from neuroexapt.graph.values import Call

Dims = Sequence[Space]
RuleResult = Dims | Sequence[Dims]
Rule = Callable[[Call], RuleResult]


@dataclass(frozen=True, slots=True)
class DimensionMap:
    """Wrapper result of a view rule: output spaces plus which input dimensions each output dimension runs over."""

    dims: tuple[Space, ...]
    sources: tuple[frozenset[int], ...]


ViewRule = Callable[[Call], DimensionMap | list[DimensionMap]]

RULES: dict[str, Rule] = {}
VIEW_RULES: dict[str, ViewRule] = {}
POINTWISE = "pointwise"  # the name of the rule that torch's tag stands for


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Registers a rule for operators such as ``"convolution"``."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES[operator] = function
        return function

    return register


def view_rule(*operators: str) -> Callable[[ViewRule], ViewRule]:
    """Registers a rule for operators that only look at their first tensor in another way."""

    def register(function: ViewRule) -> ViewRule:
        for operator in operators:
            VIEW_RULES[operator] = function
        return function

    return register


def base_name(operator: str) -> str:
    """Returns the name under which an operator's rule is kept: ``add_`` -> ``add``, ``_softmax`` stays."""
    if operator in RULES or operator in VIEW_RULES:
        return operator
    return operator[:-1] if operator.endswith("_") and not operator.startswith("__") else operator


def rule_name(func: torch._ops.OpOverload) -> str:
    """Returns the name of the rule for an operator, ``""`` for one from outside torch's own library."""
    if func.namespace != "aten":
        return ""
    name = base_name(func._schema.name.split("::")[1])
    known = name in RULES or name in VIEW_RULES
    return POINTWISE if not known and torch.Tag.pointwise in func.tags else name
