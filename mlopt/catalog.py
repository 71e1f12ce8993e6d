"""The one list of backends, without importing any: what runs which format, and how it
is installed."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.errors import UsageError


@dataclass(frozen=True)
class BackendSpec:
    """A runtime. `formats`: the artifacts that it runs; `packages`: what must be
    importable; `install`: the line that installs them.

    `can_run`: false for what mlopt builds and cannot run. `opener`: `module:callable`
    that takes `runtimes.base.OpenOptions` and gives a `runtimes.base.Runtime`; it comes
    from this table or from a plugin of this process, never from a file.
    """

    name: str
    title: str
    formats: tuple[str, ...]
    devices: tuple[str, ...]
    packages: tuple[str, ...]
    install: str
    can_run: bool
    opener: str


BACKENDS = (
    BackendSpec(
        "eager",
        "eager PyTorch",
        ("module",),
        ("cpu", "cuda"),
        ("torch",),
        "pip install mlopt",
        True,
        "mlopt.runtimes.torch_runtimes:Eager",
    ),
    BackendSpec(
        "torchscript",
        "TorchScript",
        ("torchscript",),
        ("cpu", "cuda"),
        ("torch",),
        "pip install mlopt",
        True,
        "mlopt.runtimes.torch_runtimes:TorchScript",
    ),
    BackendSpec(
        "aoti",
        "AOTInductor",
        ("aoti",),
        ("cpu",),
        ("torch",),
        "apt-get install g++",
        True,
        "mlopt.runtimes.torch_runtimes:Aoti",
    ),
    BackendSpec(
        "onnxruntime",
        "ONNX Runtime",
        ("onnx",),
        ("cpu", "cuda"),
        ("onnxruntime",),
        "pip install 'mlopt[cpu]'",
        True,
        "mlopt.runtimes.onnx_runtime:OnnxRuntime",
    ),
    BackendSpec(
        "tensorrt",
        "TensorRT",
        ("tensorrt",),
        ("cuda",),
        ("tensorrt_rtx", "tensorrt"),
        "pip install 'mlopt[rtx]'",
        False,
        "",
    ),
)


def backend_for(format: str) -> BackendSpec:
    """The backend that runs a format. Raises `UsageError` when there is none."""
    for backend in BACKENDS:
        if format in backend.formats:
            return backend
    raise UsageError(f"no runtime for {format}")
