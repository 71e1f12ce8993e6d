"""`quantize`: ONNX file to ONNX file in another precision, for one target."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from mlopt.artifact import Artifact
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.quantization.ptq import quantize_int8, to_fp16
from mlopt.recipe.configs import Quantize
from mlopt.records.edge import Json
from mlopt.records.run import Finding
from mlopt.runtimes.onnx_runtime import count_matrix_operators

SLOW = {
    "fp16": "CPUs compute in float32: ONNX Runtime converts half precision back and forth",
    "tensorrt": "its Q/DQ placement is TensorRT's, which ONNX Runtime's CPU kernels do not fuse",
}
"""Why such a file is slow where it is measured here, by precision or target."""


@dataclass(frozen=True)
class QuantizePass:
    config: Quantize
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        config, file = self.config, self.config.gives()
        made = replace(artifact, name=file, root=stage, main=file, digest="", precision=config.precision)
        if config.precision == "fp16":
            half = to_fp16(artifact.path, stage / file)
            slow = Finding("slow", file, SLOW["fp16"])
            return PassResult(replace(made, target=""), asdict(half), (slow,), half.scheme)
        made = replace(made, target=config.target)
        tensors, _ = run.samples(artifact, config.samples)
        inputs = [tensor.numpy() for tensor in tensors]
        done = quantize_int8(
            artifact.path, made.path, config.target, config.calibration, inputs, artifact.fixed_batch
        )
        if config.target == "cpu":
            return self._with_what_runs(made, asdict(done))
        return PassResult(made, asdict(done), (Finding("slow", file, SLOW[config.target]),), done.scheme)

    def _with_what_runs(self, made: Artifact, metrics: Json) -> PassResult:
        """What ONNX Runtime makes of it: Q/DQ pairs that it does not fuse cost time
        instead of saving it."""
        with tempfile.TemporaryDirectory(prefix="mlopt-fused-") as scratch:
            counts = count_matrix_operators(made.path, Path(scratch))
        left = counts.floating
        summary = f"{counts.int8} of {counts.int8 + left} matrix operators run in int8"
        warning = (
            f"{left} matrix operators stay in float: expect less speed than int8 promises" if left else ""
        )
        findings = (
            Finding("warning", made.name, f"{warning}."),
            Finding("slow", made.name, f"{left} matrix operators stay in float between Q/DQ pairs"),
        )
        metrics = {**metrics, "int8_operators": counts.int8, "float_operators": left, "warning": warning}
        return PassResult(made, metrics, findings if left else (), summary)
