"""The one list of passes and of backends: what each is called, where its code is, and
what it needs.

To add one from this repository, add its line below; from outside, call `register`.
Nothing here imports torch, a runtime, or the rest of mlopt: code is named as
`module:object` and imported when it is used.
"""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from mlopt.errors import UsageError


@dataclass(frozen=True)
class PassSpec:
    """A pass.

    `config` is its configuration (a `recipe.configs.PassConfig`), `implementation` the
    class that does the work (a `passes.base.Pass`), both as `module:object`. `role`: a
    pass of the `trunk` takes a module and gives a module, a `leaf` writes a file.
    `trains`: it trains on data, keeps the shapes that it was given, and runs on several
    processes where asked. `measures`: what it gives depends on times that it takes, so
    on the machine and on the number of threads. `machine_bound`: what it gives, or what
    is said of it, holds for the processor or card at hand. `needs`: names of the
    backends without which it cannot run; a configuration may add to them.
    """

    name: str
    config: str
    implementation: str
    role: Literal["trunk", "leaf"]
    trains: bool = False
    measures: bool = False
    machine_bound: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class BackendSpec:
    """A runtime, an exporter or another tool that has to be installed.

    `formats`: the artifacts that it runs (`artifact.Format`, or a format of your own);
    empty for what runs none. `packages`: what must be importable, `commands`: of which
    one must be on the PATH. `install`: the line that installs it. `opener`:
    `module:object` that takes `runtimes.base.OpenOptions` and gives a
    `runtimes.base.Runtime`; empty where mlopt cannot run the format yet, then `why_not`
    says so.
    """

    name: str
    title: str
    formats: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    packages: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    install: str = ""
    opener: str = ""
    why_not: str = ""

    @property
    def can_run(self) -> bool:
        """Whether mlopt can run artifacts with it."""
        return bool(self.opener)

    def missing(self) -> str:
        """What is not here: the first package or command that is not found; empty when
        all are."""
        for package in self.packages:
            if find_spec(package) is None:
                return package
        if self.commands and not any(shutil.which(command) for command in self.commands):
            return self.commands[0]
        return ""


_ENGINES = "mlopt builds TensorRT engines and cannot run them yet"

PASSES: dict[str, PassSpec] = {
    spec.name: spec
    for spec in (
        PassSpec("train", "mlopt.recipe.configs:Train", "mlopt.passes.fit:FitPass", "trunk", trains=True),
        PassSpec(
            "finetune", "mlopt.recipe.configs:Finetune", "mlopt.passes.fit:FitPass", "trunk", trains=True
        ),
        PassSpec("distill", "mlopt.recipe.configs:Distill", "mlopt.passes.fit:FitPass", "trunk", trains=True),
        PassSpec(
            "prune", "mlopt.recipe.configs:Prune", "mlopt.passes.prune:PrunePass", "trunk", measures=True
        ),
        PassSpec(
            "torchscript",
            "mlopt.recipe.configs:TorchScript",
            "mlopt.passes.torchscript:TorchScriptPass",
            "leaf",
        ),
        PassSpec(
            "onnx", "mlopt.recipe.configs:Onnx", "mlopt.passes.onnx:OnnxPass", "leaf", needs=("onnx-export",)
        ),
        PassSpec(
            "aoti",
            "mlopt.recipe.configs:Aoti",
            "mlopt.passes.aoti:AotiPass",
            "leaf",
            machine_bound=True,
            needs=("aoti",),
        ),
        PassSpec(
            "quantize",
            "mlopt.recipe.configs:Quantize",
            "mlopt.passes.quantize:QuantizePass",
            "leaf",
            machine_bound=True,
            needs=("onnx",),
        ),
        PassSpec(
            "tensorrt",
            "mlopt.recipe.configs:TensorRT",
            "mlopt.passes.tensorrt:TensorRTPass",
            "leaf",
            machine_bound=True,
        ),
    )
}
"""Every pass by its name in a recipe."""

BACKENDS: dict[str, BackendSpec] = {
    spec.name: spec
    for spec in (
        BackendSpec(
            "eager",
            "eager PyTorch",
            formats=("module",),
            devices=("cpu", "cuda"),
            packages=("torch",),
            install="pip install torch",
            opener="mlopt.runtimes.torch_runtimes:Eager",
        ),
        BackendSpec(
            "torchscript",
            "TorchScript",
            formats=("torchscript",),
            devices=("cpu", "cuda"),
            packages=("torch",),
            install="pip install torch",
            opener="mlopt.runtimes.torch_runtimes:TorchScript",
        ),
        BackendSpec(
            "aoti",
            "AOTInductor",
            formats=("aoti",),
            packages=("torch",),
            commands=("g++", "clang++"),
            install="apt-get install g++",
            opener="mlopt.runtimes.torch_runtimes:Aoti",
        ),
        BackendSpec("onnx", "ONNX files", packages=("onnx",), install="pip install 'mlopt[onnx]'"),
        BackendSpec(
            "onnx-export",
            "ONNX export",
            packages=("onnx", "onnxscript"),
            install="pip install 'mlopt[onnx]'",
        ),
        BackendSpec(
            "onnxruntime",
            "ONNX Runtime",
            formats=("onnx",),
            devices=("cpu", "cuda"),
            packages=("onnxruntime",),
            install="pip install 'mlopt[cpu]'",
            opener="mlopt.runtimes.onnx_runtime:OnnxRuntime",
        ),
        BackendSpec(
            "fp16", "fp16 conversion", packages=("onnxconverter_common",), install="pip install 'mlopt[onnx]'"
        ),
        BackendSpec(
            "rtx",
            "TensorRT-RTX",
            formats=("tensorrt",),
            devices=("cuda",),
            packages=("tensorrt_rtx",),
            install="pip install 'mlopt[rtx]'",
            why_not=_ENGINES,
        ),
        BackendSpec(
            "tensorrt",
            "TensorRT",
            formats=("tensorrt",),
            devices=("cuda",),
            packages=("tensorrt",),
            install="pip install 'mlopt[tensorrt]'",
            why_not=_ENGINES,
        ),
        BackendSpec("netron", "Netron", packages=("netron",), install="pip install 'mlopt[view]'"),
        BackendSpec("images", "image folders", packages=("PIL",), install="pip install 'mlopt[images]'"),
    )
}
"""Every backend by its name."""


def register(spec: PassSpec | BackendSpec) -> None:
    """Add a pass or a backend of your own. Raises `ValueError` when its name is
    taken."""
    table: dict[str, Any] = PASSES if isinstance(spec, PassSpec) else BACKENDS
    if spec.name in table:
        raise ValueError(
            f"there is a {'pass' if table is PASSES else 'backend'} called '{spec.name}' already"
        )
    table[spec.name] = spec


def unregister(spec: PassSpec | BackendSpec) -> None:
    """Take away what `register` added."""
    table: dict[str, Any] = PASSES if isinstance(spec, PassSpec) else BACKENDS
    table.pop(spec.name, None)


def backend_for(format: str) -> BackendSpec:
    """The backend that runs artifacts of a format: the first that can, else the first
    that will. Raises `UsageError` for one that nobody runs."""
    able = [spec for spec in BACKENDS.values() if format in spec.formats]
    if not able:
        raise UsageError(
            f"no backend runs artifacts of the format '{format}'",
            "add one: mlopt.catalog.register(BackendSpec(...))",
        )
    return next((spec for spec in able if spec.can_run), able[0])


def load(reference: str) -> Any:
    """The object that `module:object` names, imported now."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
