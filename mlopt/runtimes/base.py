"""What every runtime is: a name, the device and provider it really uses, and a call from arrays to arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlopt.artifact import Format
from mlopt.errors import BackendMissing, UsageError

Arrays = Sequence[NDArray[Any]]


class Runtime(Protocol):
    """A loaded artifact. Inputs and outputs are positional NumPy arrays on the host; copies to a device are part of the call."""

    name: str
    device: str
    provider: str

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        """Run once. Shapes are the model's own."""
        ...


def open_runtime(format: Format, path: Path, *, threads: int = 1, device: str = "cpu", precision: str = "fp32", trust: Any = None) -> Runtime:
    """Load an artifact that mlopt made, or that the user trusts. Raises `BackendMissing` when its runtime is not here."""
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

        return OnnxRuntime(path, threads, device, precision)
    if format is Format.TENSORRT:
        raise BackendMissing("a CUDA device for this engine", "run it on a machine with an NVIDIA GPU")
    raise UsageError(f"no runtime for {format}")


class Fake:
    """A runtime with scripted latencies, so that statistics and protocol are tested without a clock.

    `latencies_s` are taken in turn; each call moves `now` on by one of them, and `clock` reads it.
    """

    name, device, provider = "fake", "none", "fake"

    def __init__(self, latencies_s: Sequence[float]) -> None:
        self._latencies = list(latencies_s)
        self._calls = 0
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        self.now += self._latencies[self._calls % len(self._latencies)]
        self._calls += 1
        return [np.asarray(array) for array in inputs]
