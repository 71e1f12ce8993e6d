"""`quantize`: ONNX file to ONNX file in another precision, for one target."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from mlopt.artifact import Artifact, Format
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.quantization.ptq import quantize_int8, to_fp16
from mlopt.recipe import schema as recipe
from mlopt.runtimes.onnx_runtime import count_matrix_operators


@dataclass(frozen=True)
class QuantizePass:
    config: recipe.Quantize
    takes: ClassVar[Format] = Format.ONNX
    gives: ClassVar[Format] = Format.ONNX
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        config = self.config
        if config.precision == "fp16":
            name = "model.fp16.onnx"
            half = to_fp16(artifact.path, stage / name)
            metrics = {**asdict(half), "summary": half.scheme}
        else:
            name = f"model.int8-{config.target}.onnx"
            tensors, _ = run.samples(artifact, config.samples)
            inputs = [tensor.numpy() for tensor in tensors]
            done = quantize_int8(artifact.path, stage / name, config.target, config.calibration, inputs, artifact.fixed_batch)
            metrics = {**asdict(done), "summary": done.scheme}
            if config.target == "cpu":
                metrics |= self._realised(stage / name)
        made = replace(artifact, name=name, root=stage, main=name, digest="", precision=config.precision, target=self._target())
        return PassResult(made, metrics)

    def _target(self) -> str:
        return self.config.target if self.config.precision == "int8" else ""

    def _realised(self, path: Path) -> dict[str, Any]:
        """What ONNX Runtime makes of it: Q/DQ pairs that it does not fuse cost time instead of saving it."""
        with tempfile.TemporaryDirectory(prefix="mlopt-fused-") as scratch:
            counts = count_matrix_operators(path, Path(scratch))
        total = counts.int8 + counts.floating
        summary = f"{counts.int8} of {total} matrix operators run in int8"
        warning = f"{counts.floating} matrix operators stay in float: expect less speed than int8 promises" if counts.floating else ""
        return {"int8_operators": counts.int8, "float_operators": counts.floating, "warning": warning, "summary": summary}
