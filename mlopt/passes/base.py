"""The contract between a pass and the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from mlopt.artifact import Artifact, Format
from mlopt.passes.context import RunContext


@dataclass(frozen=True)
class PassResult:
    """A new artifact still in its staging directory (its `digest` is stamped by the pipeline), and what to put in the record.

    `declined`: why nothing was done; the artifact is then the input itself.
    """

    artifact: Artifact
    metrics: dict[str, Any] = field(default_factory=dict)
    declined: str = ""


class Pass(Protocol):
    """Implementations are frozen dataclasses of hyperparameters. `version` changes when the code would give another result."""

    takes: ClassVar[Format]
    gives: ClassVar[Format]
    version: ClassVar[int]
    config: Any

    def __init__(self, config: Any) -> None: ...

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        """Read `artifact`, write into `stage`, change nothing else. Raises `PassFailed` or another `MloptError`."""
        ...
