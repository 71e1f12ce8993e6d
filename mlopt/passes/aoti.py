"""`aoti`: module to AOTInductor package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlopt.artifact import Artifact, Format
from mlopt.exporting.aoti import export_aoti
from mlopt.model import bundle
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.recipe import schema as recipe

FILE = "model.aoti.pt2"


@dataclass(frozen=True)
class AotiPass:
    config: recipe.Aoti
    takes: ClassVar[Format] = Format.MODULE
    gives: ClassVar[Format] = Format.AOTI
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        module, _ = bundle.read(artifact.path, run.trust)
        export_aoti(module.eval().requires_grad_(False), artifact.inputs, stage / FILE)
        return PassResult(Artifact(FILE, Format.AOTI, stage, FILE, "", artifact.inputs), {"summary": "compiled"})
