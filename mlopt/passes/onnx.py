"""`onnx`: module to ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlopt.artifact import Artifact, Format
from mlopt.exporting.onnx import export_onnx
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.recipe.configs import Onnx
from mlopt.records.run import Finding


@dataclass(frozen=True)
class OnnxPass:
    config: Onnx
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        file, opset = self.config.gives(), self.config.opset
        with run.modules.frozen(artifact) as module:
            done = export_onnx(module, artifact.inputs, stage / file, opset)
        words = sorted({dim for spec in done.inputs for dim in spec.dims if isinstance(dim, str)})
        shape = "dynamic " + ", ".join(words) if words else "fixed shape"
        findings = (Finding("note", file, f"{done.why_fixed}."),) if done.why_fixed else ()
        made = Artifact(file, Format.ONNX, stage, file, "", done.inputs)
        return PassResult(
            made, {"opset": opset, "why_fixed": done.why_fixed}, findings, f"opset {opset}, {shape}"
        )
