"""The contract between a pass and the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from mlopt.artifact import Artifact
from mlopt.passes.context import RunContext
from mlopt.records.edge import Json
from mlopt.records.run import Finding


@dataclass(frozen=True)
class PassResult:
    """A new artifact, still in its staging directory (the run stamps its `digest`), and
    what is to be said of it.

    `metrics`: figures for scripts, under names of the pass's own; a `before` and an
    `after` with `macs` and `channels` count as compression. `findings`: what a person
    should know, in whole sentences. `summary`: half a line for the progress and the
    report. `declined`: why nothing was done; the artifact is then the input itself.
    """

    artifact: Artifact
    metrics: Json = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    summary: str = ""
    declined: str = ""


class Pass(Protocol):
    """Implementations are frozen dataclasses around their configuration. `version` is
    raised when the code would give another result: that is what makes the store
    forget."""

    version: ClassVar[int]
    config: Any

    def __init__(self, config: Any) -> None: ...

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        """Read `artifact`, write into `stage`, change nothing else. Raises `PassFailed`
        or another `MloptError`."""
        ...
