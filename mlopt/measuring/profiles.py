"""Profiles of operators: typed, and the precision that an artifact really runs in."""

from __future__ import annotations

from collections.abc import Sequence

from mlopt.records.bench import Operator

MATRIX_SHARE = 0.05
"""An operator below this share of the time says nothing of the precision that an
artifact runs in."""


def realised_precision(operators: Sequence[Operator]) -> str | None:
    """The precision in which most of the profiled time is spent; None when the profile
    does not say."""
    total = sum(operator.seconds for operator in operators)
    spent: dict[str, float] = {}
    for operator in operators:
        if operator.precision and operator.seconds >= MATRIX_SHARE * total:
            spent[operator.precision] = spent.get(operator.precision, 0.0) + operator.seconds
    return max(spent, key=lambda key: spent[key]) if spent else None
