"""How large a bundle is."""

from __future__ import annotations

from mlopt.artifact import Artifact
from mlopt.passes.context import RunContext


def sizes_of(artifact: Artifact, run: RunContext) -> tuple[int, int]:
    """(parameters, bytes of the weights) of a bundle."""
    module, _ = run.modules.borrow(artifact)
    return sum(p.numel() for p in module.parameters()), (artifact.root / "weights.safetensors").stat().st_size
