"""What comes of one attempt to build a pruned network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mlopt.model.surgery import Surgery
from mlopt.pruning.proof import Proof


@dataclass(frozen=True)
class Proved:
    """A pruned module, the cut as data, and the proof that the module computes what the
    masked dense one does.
    """

    module: nn.Module
    surgery: Surgery
    proof: Proof


@dataclass(frozen=True)
class Refused:
    """Nothing could be proved; `reason` says why."""

    reason: str


Attempt = Proved | Refused
