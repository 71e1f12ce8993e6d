"""The table of rules: one function an operator, which says how labels flow through
it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.fx import Node

from mlopt.pruning.labels import Array
from mlopt.pruning.nodes import operator_name

if TYPE_CHECKING:
    from mlopt.pruning.propagation import Propagation

TensorLabels = list[Array]
"""The labels of one tensor: one array a dimension."""
Value: TypeAlias = "TensorLabels | tuple[Value, ...] | None"
"""The labels of what a node gives: of a tensor, of several (a tuple), or None for what
is no tensor.
"""

Rule = Callable[["Propagation", Node], Value]
RULES: dict[str, Rule] = {}
"""Rules by the operator's name without its namespace and overload: `linear` for
`aten.linear.default`.
"""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the operators of these names (all overloads, any namespace).

    A rule takes the propagation and the node, and returns the labels of the node's
    output. `docs/pruning.md` ("Add an operator") shows one.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def rule_of(target: object) -> Rule | None:
    """The rule of an operator, or None. One that works in place (`relu_`) has the rule
    of the one that does not.
    """
    if not isinstance(target, torch._ops.OpOverload):
        return None
    name = operator_name(target)
    found = RULES.get(name) or RULES.get(name.removesuffix("_"))
    return RULES["pointwise"] if found is None and torch.Tag.pointwise in target.tags else found


def tensors_of(value: Value) -> Iterator[TensorLabels]:
    """The tensors in what a node gives, in order."""
    if isinstance(value, tuple):
        for item in value:
            yield from tensors_of(item)
    elif value is not None:
        yield value
