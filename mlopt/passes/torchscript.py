"""`torchscript`: module to TorchScript file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from mlopt.artifact import Artifact, Format
from mlopt.exporting.torchscript import export_torchscript
from mlopt.model import bundle
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.recipe import schema as recipe

FILE = "model.torchscript.pt"


@dataclass(frozen=True)
class TorchScriptPass:
    config: recipe.TorchScript
    takes: ClassVar[Format] = Format.MODULE
    gives: ClassVar[Format] = Format.TORCHSCRIPT
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        module, _ = bundle.read(artifact.path, run.trust)
        inputs, _ = run.samples(artifact, 2)
        done = export_torchscript(module.eval().requires_grad_(False), inputs, stage / FILE)
        made = Artifact(FILE, Format.TORCHSCRIPT, stage, FILE, "", artifact.inputs)
        return PassResult(made, {**asdict(done), "summary": done.how})
