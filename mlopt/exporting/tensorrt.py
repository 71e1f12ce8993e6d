"""ONNX file to TensorRT engine, built in a child process: a builder that crashes is one
failed build."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mlopt.artifact import Artifact
from mlopt.errors import BackendMissing, PassFailed, last_lines
from mlopt.exporting.tensorrt_builder import EngineAnswer, EngineJob

PACKAGES = {
    "rtx": ("tensorrt_rtx", "pip install 'mlopt[rtx]'"),
    "tensorrt": ("tensorrt", "pip install 'mlopt[tensorrt]'"),
}


@dataclass(frozen=True)
class EngineBuild:
    """What was built: by which package and version, and how large the engine is."""

    version: str
    bytes: int


def build_engine(onnx: Artifact, flavour: str, path: Path, max_batch: int, timeout_s: float) -> EngineBuild:
    """Build an engine from an ONNX artifact.

    `flavour`: `rtx` or `tensorrt`. `max_batch`: the largest size of a dynamic
    dimension. Raises `BackendMissing`, and `PassFailed` when the builder refuses the
    graph, crashes, or takes longer than `timeout_s`.
    """
    package, install = PACKAGES[flavour]
    if find_spec(package) is None:
        raise BackendMissing("TensorRT-RTX" if flavour == "rtx" else "TensorRT", install)
    profile = {
        spec.name: [list(spec.sizes(limit)) for limit in (1, 1, max_batch)]
        for spec in onnx.inputs
        if any(isinstance(dim, str) for dim in spec.dims)
    }
    job = EngineJob(package, onnx.path, path, profile)
    command = [sys.executable, "-m", "mlopt.exporting.tensorrt_builder", job.to_text()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise PassFailed(
            f"the TensorRT build took longer than {timeout_s:.0f} s", "raise timeout_s in the recipe"
        ) from error
    lines = done.stdout.strip().splitlines()
    answer = EngineAnswer.from_text(lines[-1]) if lines and lines[-1].startswith("{") else EngineAnswer()
    if done.returncode or answer.error or not path.is_file():
        tail = answer.error or last_lines(done.stderr) or f"the builder died with {done.returncode}"
        raise PassFailed(
            f"TensorRT refused {onnx.name}: {tail}", "look at the node it names with `mlopt view`"
        )
    return EngineBuild(answer.version, answer.bytes)
