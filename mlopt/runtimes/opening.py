"""From an artifact to its runtime; only the one that is needed is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlopt.artifact import Format
from mlopt.errors import UsageError
from mlopt.runtimes.base import Runtime


def open_runtime(
    format: Format, path: Path, *, threads: int = 1, device: str = "cpu", precision: str = "fp32", trust: Any = None, cuda_graph: bool = False
) -> Runtime:
    """Load an artifact that mlopt made, or that the user trusts.

    Raises `BackendMissing` when its runtime is not installed, `UsageError` for an engine.
    """
    if format is Format.MODULE:
        from mlopt.runtimes.torch_runtimes import Eager

        return Eager(path, threads, device, trust)
    if format is Format.TORCHSCRIPT:
        from mlopt.runtimes.torch_runtimes import TorchScript

        return TorchScript(path, threads, device)
    if format is Format.AOTI:
        from mlopt.runtimes.torch_runtimes import Aoti

        return Aoti(path, threads)
    if format is Format.ONNX:
        from mlopt.runtimes.onnx_runtime import OnnxRuntime

        return OnnxRuntime(path, threads, device, precision, cuda_graph)
    if format is Format.TENSORRT:
        raise UsageError("mlopt builds TensorRT engines and cannot run them yet", "measure the engine with trtexec or tensorrt_rtx")
    raise UsageError(f"no runtime for {format}")
