"""What may be asked of a pruning, and the answer that there is nothing to cut."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.errors import UsageError
from mlopt.pruning.importance import KINDS

ROUND_TO = 8
CLOSE = 0.03
"""A budget counts as hit within 3 points."""


@dataclass(frozen=True)
class Options:
    """How channels are ranked and how narrow a group may become; see `recipe.Prune`.

    `round_to` None: multiples of 8, and finer only where the budget would be missed by
    more than 3 points.
    """

    importance: str = "l2"
    spread: str = "uniform"
    round_to: int | None = None
    floor: float = 0.1
    keep: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.importance not in KINDS:
            raise UsageError(f"'{self.importance}' is not an importance", f"choose from {', '.join(KINDS)}")
        if self.spread not in ("uniform", "global"):
            raise UsageError(f"'{self.spread}' is not a spread", "choose uniform or global")


@dataclass
class Declined(Exception):
    """There was nothing to cut; `reason` says why, as data for the record."""

    reason: str
