"""`tensorrt`: ONNX file to engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from mlopt.artifact import Artifact, Format
from mlopt.exporting.tensorrt import build_engine
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.recipe.configs import TensorRT


@dataclass(frozen=True)
class TensorRTPass:
    config: TensorRT
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        config, file = self.config, self.config.gives()
        done = build_engine(artifact, config.flavour, stage / file, config.max_batch, config.timeout_s)
        made = Artifact(
            file, Format.TENSORRT, stage, file, "", artifact.inputs, artifact.precision, config.flavour
        )
        metrics = {"source": artifact.name, **asdict(done)}
        return PassResult(made, metrics, (), f"{done.version} from {artifact.name}; built, not run here")
