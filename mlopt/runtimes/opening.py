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

    Raises `BackendMissing` when its runtime is not installed, `UsageError` for an engine, and when it runs on another device than was asked for:
    a figure of the CPU must not stand in the place of one of a GPU.
    """
    runtime = _open(format, path, threads, device, precision, trust, cuda_graph)
    if runtime.device != device:
        raise UsageError(f"{path.name} was asked to run on {device}, and runs on {runtime.device}", f"measure it with --device {runtime.device}")
    return runtime


def _open(format: Format, path: Path, threads: int, device: str, precision: str, trust: Any, cuda_graph: bool) -> Runtime:
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
