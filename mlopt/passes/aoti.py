"""`aoti`: module to AOTInductor package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlopt.artifact import Artifact, Format
from mlopt.exporting.aoti import export_aoti
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.recipe.configs import Aoti


@dataclass(frozen=True)
class AotiPass:
    config: Aoti
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        file = self.config.gives()
        with run.modules.frozen(artifact) as module:
            export_aoti(module, artifact.inputs, stage / file)
        return PassResult(Artifact(file, Format.AOTI, stage, file, "", artifact.inputs), summary="compiled")
