"""From the options of `compress` and `export` to a recipe. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, Literal

from mlopt.errors import UnknownBackend, UsageError
from mlopt.recipe.configs import (
    Aoti,
    Distill,
    Finetune,
    Onnx,
    PassConfig,
    Prune,
    Quantize,
    TensorRT,
    TorchScript,
    amount_problem,
)
from mlopt.recipe.schema import Bench, Model, Recipe

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
    """An engine for each TensorRT that is installed; RTX, with its install line, when
    none is."""
    packages: dict[Literal["rtx", "tensorrt"], str] = {"rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
    return [flavour for flavour, package in packages.items() if find_spec(package) is not None] or ["rtx"]


def check_amount(text: str) -> None:
    """Refuse a bad amount before anything is loaded. Raises `UsageError`."""
    problem = amount_problem(text)
    if problem is not None:
        raise UsageError(f"--prune {text}: {problem[0]}", problem[1])


@dataclass(frozen=True)
class Wanted:
    """What the options of `compress`, `export` and `prune` ask for. `prune`: an amount;
    `pruning`: settings of the pass; `training`: settings of the passes that recover
    accuracy."""

    prune: str | None = None
    pruning: Mapping[str, Any] = field(default_factory=dict)
    iterations: int = 1
    finetune: int = 0
    distill: int = 0
    training: Mapping[str, Any] = field(default_factory=dict)
    quantize: tuple[str, ...] = ()
    export: tuple[str, ...] = ()
    target: tuple[str, ...] = ("cpu",)
    opset: int = 20
    input: tuple[str, ...] = ()
    data: str | None = None
    max_drop: float | None = None
    nproc: int = 1
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    bench: Bench = field(default_factory=Bench)


def build_recipe(model: Model, wanted: Wanted) -> Recipe:
    """The recipe that `compress` runs. Raises `UsageError`, or `UnknownBackend` for an
    export that does not exist."""
    _check("--quantize", wanted.quantize, PRECISIONS)
    _check("--export", wanted.export, EXPORTS)
    _check("--target", wanted.target, TARGETS)
    steps = [*_trunk(wanted), *_leaves(model, wanted)]
    if not steps:
        raise UsageError(
            "there is nothing to do",
            "give at least one of --prune, --finetune, --distill, --quantize, --export",
        )
    return Recipe(
        model=model,
        input=wanted.input,
        data=wanted.data,
        seed=wanted.seed,
        device=wanted.device,
        nproc=wanted.nproc,
        max_drop=wanted.max_drop,
        passes=tuple(steps),
        bench=wanted.bench,
    )


def _trunk(wanted: Wanted) -> list[PassConfig]:
    """Pruning and the training that follows it."""
    if wanted.prune is not None:
        check_amount(wanted.prune)
        runtime = "onnx" if "onnx" in wanted.export or not wanted.export else "torchscript"
        amount = wanted.prune if ":" in wanted.prune else f"macs:{wanted.prune}"
        return _pruning(amount, {"runtime": runtime, **wanted.pruning}, wanted)
    if wanted.pruning.get("plan"):
        return _pruning("macs:0.5", wanted.pruning, replace(wanted, iterations=1))
    return _recovery(wanted, 0, 1)


def _leaves(model: Model, wanted: Wanted) -> list[PassConfig]:
    """What is exported, quantized and built, in an order that fits."""
    steps: list[PassConfig] = []
    tensorrt = "tensorrt" in wanted.export
    if "torchscript" in wanted.export:
        steps.append(TorchScript())
    if ("onnx" in wanted.export or tensorrt or wanted.quantize) and not model.path.endswith(".onnx"):
        steps.append(Onnx(opset=wanted.opset))
    targets = dict.fromkeys([*wanted.target, "tensorrt"] if tensorrt else wanted.target)
    for precision in wanted.quantize:
        if precision == "fp16":
            steps.append(Quantize(precision="fp16"))
        else:
            steps += [Quantize.model_validate({"precision": "int8", "target": name}) for name in targets]
    if "aoti" in wanted.export:
        steps.append(Aoti())
    if tensorrt:
        source = "int8" if "int8" in wanted.quantize else "fp16" if "fp16" in wanted.quantize else "fp32"
        steps += [
            TensorRT.model_validate({"flavour": flavour, "source": source}) for flavour in tensorrt_flavours()
        ]
    return steps


def _recovery(wanted: Wanted, index: int, count: int) -> list[PassConfig]:
    """Part `index` of `count` of the training that follows pruning; all parts are one
    learning-rate schedule."""

    def epochs(total: int) -> int:
        return total * (index + 1) // count - total * index // count

    kinds: list[tuple[type[Finetune] | type[Distill], int]] = [
        (Finetune, wanted.finetune),
        (Distill, wanted.distill),
    ]
    part = (index / count, (index + 1) / count)
    return [
        kind(epochs=epochs(total), part=part, **wanted.training) for kind, total in kinds if epochs(total)
    ]


def _pruning(amount: str, settings: Mapping[str, Any], wanted: Wanted) -> list[PassConfig]:
    """One cut and its recovery, or several smaller ones that reach the same share
    together."""
    metric, _, number = amount.partition(":")
    rounds = wanted.iterations
    if rounds > 1 and (metric in ("layers", "latency") or settings.get("kind", "structured") != "structured"):
        raise UsageError(
            f"--iterations is not for --prune {amount}",
            "use macs, params or channels, or leave out --iterations",
        )
    steps: list[PassConfig] = []
    for index in range(rounds):
        each = amount if rounds == 1 else f"{metric}:{1 - (1 - float(number)) ** (1 / rounds):.6g}"
        steps += [Prune(amount=each, **settings), *_recovery(wanted, index, rounds)]
    return steps
