"""`tensorrt`: ONNX file to engine, built in a child process: a builder that crashes is one failed pass."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from mlopt import recipe
from mlopt.artifact import Artifact, Format
from mlopt.context import RunContext
from mlopt.errors import BackendMissing, PassFailed
from mlopt.passes.base import PassResult

PACKAGES = {"rtx": ("tensorrt_rtx", "pip install 'mlopt[rtx]'"), "tensorrt": ("tensorrt", "pip install 'mlopt[tensorrt]'")}


def require(flavour: str) -> None:
    """Raises `BackendMissing` when the bindings are not installed."""
    package, install = PACKAGES[flavour]
    if find_spec(package) is None:
        raise BackendMissing("TensorRT-RTX" if flavour == "rtx" else "TensorRT", install)


@dataclass(frozen=True)
class TensorRTPass:
    config: recipe.TensorRT
    takes: ClassVar[Format] = Format.ONNX
    gives: ClassVar[Format] = Format.TENSORRT
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        require(self.config.flavour)
        name = f"model.{self.config.flavour}.engine"
        profile = {
            spec.name: [[dim if isinstance(dim, int) else limit for dim in spec.dims] for limit in (1, 1, self.config.max_batch)]
            for spec in artifact.inputs
            if any(isinstance(dim, str) for dim in spec.dims)
        }
        job = {"package": PACKAGES[self.config.flavour][0], "onnx": str(artifact.path), "out": str(stage / name), "profile": profile}
        command = [sys.executable, "-m", "mlopt.runtimes.tensorrt_builder", json.dumps(job)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self.config.timeout_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise PassFailed(f"the TensorRT build took longer than {self.config.timeout_s:.0f} s", "raise timeout_s in the recipe") from error
        lines = done.stdout.strip().splitlines()
        answer: dict[str, Any] = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        if done.returncode or "error" in answer or not (stage / name).is_file():
            tail = answer.get("error") or " | ".join(done.stderr.strip().splitlines()[-3:]) or f"the builder died with {done.returncode}"
            raise PassFailed(f"TensorRT refused {artifact.name}: {tail}", "look at the node it names with `mlopt view`")
        made = Artifact(name, Format.TENSORRT, stage, name, "", artifact.inputs, artifact.precision, self.config.flavour)
        summary = f"{answer['version']} from {artifact.name}; built, not run here"
        return PassResult(made, {"source": artifact.name, **answer, "summary": summary})
