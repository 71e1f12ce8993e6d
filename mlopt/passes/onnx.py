"""`onnx`: module to ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlopt.artifact import Artifact, Format
from mlopt.exporting.onnx import export_onnx
from mlopt.model import bundle
from mlopt.model.inputs import dynamic_shapes
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.recipe import schema as recipe

FILE = "model.onnx"


@dataclass(frozen=True)
class OnnxPass:
    config: recipe.Onnx
    takes: ClassVar[Format] = Format.MODULE
    gives: ClassVar[Format] = Format.ONNX
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        module, _ = bundle.read(artifact.path, run.trust)
        done = export_onnx(module.eval().requires_grad_(False), artifact.inputs, stage / FILE, self.config.opset)
        words = sorted({dim for spec in done.inputs for dim in spec.dims if isinstance(dim, str)})
        shape = "dynamic " + ", ".join(words) if dynamic_shapes(done.inputs) else "fixed shape"
        metrics = {"opset": self.config.opset, "why_fixed": done.why_fixed, "summary": f"opset {self.config.opset}, {shape}"}
        return PassResult(Artifact(FILE, Format.ONNX, stage, FILE, "", done.inputs), metrics)
