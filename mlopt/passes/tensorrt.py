"""`tensorrt`: ONNX file to engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from mlopt.artifact import Artifact, Format
from mlopt.exporting.tensorrt import build_engine
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.recipe import schema as recipe


@dataclass(frozen=True)
class TensorRTPass:
    config: recipe.TensorRT
    takes: ClassVar[Format] = Format.ONNX
    gives: ClassVar[Format] = Format.TENSORRT
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        config = self.config
        name = f"model.{config.flavour}.engine"
        done = build_engine(artifact, config.flavour, stage / name, config.max_batch, config.timeout_s)
        made = Artifact(name, Format.TENSORRT, stage, name, "", artifact.inputs, artifact.precision, config.flavour)
        summary = f"{done.version} from {artifact.name}; built, not run here"
        return PassResult(made, {"source": artifact.name, **asdict(done), "summary": summary})
