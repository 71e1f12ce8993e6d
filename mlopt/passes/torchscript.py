"""`torchscript`: module to TorchScript file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from mlopt.artifact import Artifact, Format
from mlopt.exporting.torchscript import export_torchscript
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.recipe.configs import TorchScript


@dataclass(frozen=True)
class TorchScriptPass:
    config: TorchScript
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        file = self.config.gives()
        inputs, _ = run.samples(artifact, 2)
        with run.modules.frozen(artifact) as module:
            done = export_torchscript(module, inputs, stage / file)
        return PassResult(
            Artifact(file, Format.TORCHSCRIPT, stage, file, "", artifact.inputs), asdict(done), (), done.how
        )
