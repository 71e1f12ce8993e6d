"""What a pruning is asked to save."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.errors import UsageError
from mlopt.recipe.configs import amount_problem


@dataclass(frozen=True)
class Amount:
    """`metric` is what is counted, `remove` the share of it that goes, in (0, 1); of
    `layers`, how many blocks go.
    """

    metric: str
    remove: float

    @classmethod
    def parse(cls, text: str) -> Amount:
        """`0.5`, `macs:0.5`, `params:0.5`, `channels:0.5`, `latency:0.5`, `layers:2`.
        Raises `UsageError`.
        """
        problem = amount_problem(str(text))
        if problem is not None:
            raise UsageError(*problem)
        metric, _, number = str(text).rpartition(":")
        return cls(metric or "macs", float(number))

    def __str__(self) -> str:
        return f"{self.metric}:{self.remove:g}"
