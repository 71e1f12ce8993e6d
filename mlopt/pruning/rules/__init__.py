"""One small function an operator: how labels flow through it. Importing this package
fills the table `rule_table.RULES`.
"""

from mlopt.pruning.rule_table import rule_of
from mlopt.pruning.rules import (
    attention,
    elementwise,
    indexing,
    linear,
    normalisation,
    recurrent,
    reduction,
    reshaping,
)

__all__ = [
    "attention",
    "elementwise",
    "has_rule",
    "indexing",
    "linear",
    "normalisation",
    "recurrent",
    "reduction",
    "reshaping",
]


def has_rule(target: object) -> bool:
    """Whether an operator may stay whole in the captured graph."""
    return rule_of(target) is not None
