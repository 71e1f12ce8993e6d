"""From the options of `compress` and `export` to a recipe. Imports no torch."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

from mlopt.errors import UnknownBackend, UsageError
from mlopt.recipe import Aoti, Bench, Distill, Finetune, Model, Onnx, Prune, Quantize, Recipe, TensorRT, TorchScript

EXPORTS = ("torchscript", "onnx", "aoti", "tensorrt")
PRECISIONS = ("int8", "fp16")
TARGETS = ("cpu", "tensorrt")


def _check(kind: str, values: tuple[str, ...], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            if kind == "--export":
                raise UnknownBackend(value, known)
            raise UsageError(f"{kind} {value} is not known", f"choose from {', '.join(known)}")


def tensorrt_flavours() -> list[Literal["rtx", "tensorrt"]]:
    """An engine for each TensorRT that is installed; RTX, with its install line, when none is."""
    packages: dict[Literal["rtx", "tensorrt"], str] = {"rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
    return [flavour for flavour, package in packages.items() if find_spec(package) is not None] or ["rtx"]


def check_amount(text: str) -> None:
    """Refuse a bad amount before anything is loaded. Raises `UsageError`."""
    metric, _, number = text.rpartition(":")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if metric not in ("", "macs", "params", "channels", "latency"):
        raise UsageError(f"--prune {text}: '{metric}' is not a budget", "use 0.5, macs:0.5, params:0.5 or channels:0.5")
    if metric == "latency":
        raise UsageError("--prune latency:... is not built yet", f"name what to cut instead: --prune macs:{number}")
    if not 0 < value < 1:
        raise UsageError(f"--prune {text}: the amount must lie between 0 and 1", "--prune 0.5 removes half of the MACs")


def build_recipe(
    model: Model,
    *,
    prune: str | None = None,
    importance: str = "l2",
    round_to: int = 8,
    finetune: int = 0,
    distill: int = 0,
    training: dict[str, Any] | None = None,
    quantize: tuple[str, ...] = (),
    export: tuple[str, ...] = (),
    target: tuple[str, ...] = ("cpu",),
    input: tuple[str, ...] = (),
    data: str | None = None,
    max_drop: float | None = None,
    nproc: int = 1,
    seed: int = 0,
    threads: int = 1,
    batch: tuple[int, ...] = (1,),
    device: str = "auto",
    bench: bool = True,
    budget_s: float = 10.0,
    opset: int = 20,
) -> Recipe:
    """The recipe that `compress` runs. Raises `UsageError`, or `UnknownBackend` for an export that does not exist."""
    _check("--quantize", quantize, PRECISIONS)
    _check("--export", export, EXPORTS)
    _check("--target", target, TARGETS)
    steps: list[Any] = []
    extra = training or {}
    if prune is not None:
        check_amount(prune)
        steps.append(Prune(amount=prune if ":" in prune else f"macs:{prune}", importance=importance, round_to=round_to))
    if finetune:
        steps.append(Finetune(epochs=finetune, **extra))
    if distill:
        steps.append(Distill(epochs=distill, **extra))
    if "torchscript" in export:
        steps.append(TorchScript())
    wants_onnx = "onnx" in export or "tensorrt" in export or bool(quantize)
    if wants_onnx and not model.path.endswith(".onnx"):
        steps.append(Onnx(opset=opset))
    tensorrt = "tensorrt" in export
    targets = dict.fromkeys([*target, "tensorrt"] if tensorrt else target)
    for precision in quantize:
        if precision == "fp16":
            steps.append(Quantize(precision="fp16"))
        else:
            steps += [Quantize(precision="int8", target=name) for name in targets]
    if "aoti" in export:
        steps.append(Aoti())
    if tensorrt:
        source = "int8" if "int8" in quantize else "fp16" if "fp16" in quantize else "fp32"
        steps += [TensorRT(flavour=flavour, source=source) for flavour in tensorrt_flavours()]
    if not steps:
        raise UsageError("there is nothing to do", "give at least one of --prune, --finetune, --distill, --quantize, --export")
    return Recipe(
        model=model,
        input=input,
        data=data,
        seed=seed,
        device=device,
        nproc=nproc,
        max_drop=max_drop,
        passes=tuple(steps),
        bench=Bench(threads=threads, batch=batch, enabled=bench, budget_s=budget_s),
    )
