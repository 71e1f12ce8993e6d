"""`aoti`: module to AOTInductor package. Needs a C++ compiler, and takes its time."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from mlopt import recipe
from mlopt.artifact import Artifact, Format
from mlopt.context import RunContext
from mlopt.errors import BackendMissing, PassFailed, first_line
from mlopt.model import bundle
from mlopt.model.capture import plainly
from mlopt.model.inputs import dynamic_shapes, synthetic
from mlopt.passes.base import PassResult
from mlopt.quiet import quiet

FILE = "model.aoti.pt2"


@dataclass(frozen=True)
class AotiPass:
    config: recipe.Aoti
    takes: ClassVar[Format] = Format.MODULE
    gives: ClassVar[Format] = Format.AOTI
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        if not (shutil.which("g++") or shutil.which("clang++")):
            raise BackendMissing("a C++ compiler, which AOTInductor needs,", "apt-get install g++")
        module, _ = bundle.read(artifact.path, run.trust)
        module.eval().requires_grad_(False)
        with quiet(), torch.no_grad(), plainly(module):
            try:
                program = torch.export.export(module, synthetic(artifact.inputs), dynamic_shapes=dynamic_shapes(artifact.inputs), strict=False)
                torch._inductor.aoti_compile_and_package(program, package_path=str(stage / FILE))
            except Exception as error:
                line = first_line(error)
                raise PassFailed(f"AOTInductor cannot compile the model: {type(error).__name__}: {line}", "leave out aoti") from error
        return PassResult(Artifact(FILE, Format.AOTI, stage, FILE, "", artifact.inputs), {"summary": "compiled"})
