"""From the options of `compress` and `export` to a recipe. Imports no torch."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

from mlopt.errors import UnknownBackend, UsageError
from mlopt.recipe.schema import Aoti, Bench, Distill, Finetune, Model, Onnx, Prune, Quantize, Recipe, TensorRT, TorchScript, amount_problem

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
    problem = amount_problem(text)
    if problem is not None:
        raise UsageError(f"--prune {text}: {problem[0]}", problem[1])


def _recovery(finetune: int, distill: int, extra: dict[str, Any], index: int, count: int) -> list[Any]:
    """Part `index` of `count` of the training that follows pruning; all parts are one learning-rate schedule."""

    def epochs(total: int) -> int:
        return total * (index + 1) // count - total * index // count

    kinds: list[tuple[type[Finetune] | type[Distill], int]] = [(Finetune, finetune), (Distill, distill)]
    part = (index / count, (index + 1) / count)
    return [kind(epochs=epochs(total), part=part, **extra) for kind, total in kinds if epochs(total)]


def _pruning(amount: str, settings: dict[str, Any], iterations: int, finetune: int, distill: int, extra: dict[str, Any]) -> list[Any]:
    """One cut and its recovery, or several smaller ones that reach the same share together."""
    metric, _, number = amount.partition(":")
    if iterations > 1 and (metric in ("layers", "latency") or settings.get("kind", "structured") != "structured"):
        raise UsageError(f"--iterations is not for --prune {amount}", "use macs, params or channels, or leave out --iterations")
    steps: list[Any] = []
    for index in range(iterations):
        each = amount if iterations == 1 else f"{metric}:{1 - (1 - float(number)) ** (1 / iterations):.6g}"
        steps.append(Prune(amount=each, **settings))
        steps += _recovery(finetune, distill, extra, index, iterations)
    return steps


def build_recipe(
    model: Model,
    *,
    prune: str | None = None,
    pruning: dict[str, Any] | None = None,
    iterations: int = 1,
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
        settings = {"runtime": "onnx" if "onnx" in export or not export else "torchscript", **(pruning or {})}
        steps += _pruning(prune if ":" in prune else f"macs:{prune}", settings, iterations, finetune, distill, extra)
    elif pruning and pruning.get("plan"):
        steps += _pruning("macs:0.5", pruning, 1, finetune, distill, extra)
    else:
        steps += _recovery(finetune, distill, extra, 0, 1)
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
