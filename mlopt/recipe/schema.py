"""The recipe: what is done to a model, as YAML and as frozen pydantic models.

One class a pass, told apart by its `pass:` key.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator

from mlopt.recipe import typed_yaml
from mlopt.recipe.typed_yaml import Frozen

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class Model(Frozen):
    """Where the model comes from, and what its file may name. See `docs/security.md`."""

    path: str = Field(description="A file, a bundle, or package.module:factory. A relative path is read from the working directory.")
    arch: str | None = Field(None, description="package.module:factory that builds the module a state dict belongs to.")
    arch_args: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the factory.")
    allow_class: tuple[str, ...] = Field((), description="Classes that a pickled module may name: package.module.Class or package.module.*")
    trust_code: bool = Field(False, description="Run whatever the file contains. Only for files you made yourself.")


class _Trainer(Frozen):
    epochs: Annotated[int, Field(ge=1)] = 5
    batch_size: Positive = 64
    lr: Annotated[float, Field(gt=0)] = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="Share of the steps over which the rate rises; cosine decay follows.")
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Positive | None = None
    part: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = Field(
        (0.0, 1.0), description="The part of one learning-rate schedule that this step covers: iterative pruning restarts it at great cost."
    )


class Train(_Trainer):
    """Train on the labels."""

    pass_: Literal["train"] = Field("train", alias="pass")


class Finetune(_Trainer):
    """Train further on the labels, to recover what pruning cost."""

    pass_: Literal["finetune"] = Field("finetune", alias="pass")


class Distill(_Trainer):
    """Train further with the unpruned model as teacher (Hinton et al., arXiv 1503.02531)."""

    pass_: Literal["distill"] = Field("distill", alias="pass")
    temperature: Annotated[float, Field(gt=0)] = 2.0
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(0.5, description="Weight of the teacher's term; the labels get the rest.")


BUDGETS = ("macs", "params", "channels", "latency", "layers")


def amount_problem(text: str) -> tuple[str, str] | None:
    """What is wrong with an amount to prune, and what to write instead; None when nothing is."""
    metric, _, number = text.rpartition(":")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if metric not in ("", *BUDGETS):
        return f"'{metric}' is not a budget", "use 0.5, macs:0.5, params:0.5, channels:0.5, latency:0.5 or layers:2"
    if metric == "layers":
        return None if value >= 1 and value.is_integer() else (f"'{number}' is not a number of blocks", "layers:2 drops the two that matter least")
    if not 0 < value < 1:
        return f"the amount to prune is {number}: it must lie between 0 and 1", "--prune 0.5 removes half of the MACs"
    return None


class Prune(Frozen):
    """Pruning to a named budget: whole channels, heads and blocks; or zeros without smaller shapes."""

    pass_: Literal["prune"] = Field("prune", alias="pass")
    kind: Literal["structured", "unstructured", "2:4"] = "structured"
    amount: str = Field(
        "macs:0.5",
        description="The share that goes: macs:0.5, params:0.5, channels:0.5, latency:0.5 (measured), layers:2 (blocks). Zeros: a share of weights.",
    )
    importance: Literal["l2", "l1", "taylor", "bn", "random"] = "l2"
    spread: Literal["uniform", "global"] = Field("uniform", description="The same share of every width, or the lowest scores wherever they are.")
    keep: tuple[str, ...] = Field((), description="Regular expressions: weights whose names match keep their width.")
    plan: str | None = Field(None, description="A plan.json to apply, instead of an amount.")
    runtime: Literal["onnx", "torchscript", "eager"] = Field("onnx", description="Where latency:... is measured, and what zeros gain.")
    round_to: Positive | None = Field(None, description="Widths stay multiples of this. Without: of 8, and finer where the budget needs it.")
    floor: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="No width falls below this share of itself.")
    recalibrate: bool = Field(True, description="Estimate batch-norm statistics again on training data, before any training.")

    @field_validator("keep")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression: {error}") from error
        return value

    @field_validator("amount", mode="before")
    @classmethod
    def _amount(cls, value: Any) -> str:
        problem = amount_problem(str(value))
        if problem is not None:
            raise ValueError("; ".join(problem))
        return str(value)


class TorchScript(Frozen):
    """A TorchScript file: scripted, or traced where scripting fails."""

    pass_: Literal["torchscript"] = Field("torchscript", alias="pass")


class Onnx(Frozen):
    """An ONNX file, through torch.export."""

    pass_: Literal["onnx"] = Field("onnx", alias="pass")
    opset: Annotated[int, Field(ge=18, le=23)] = 20


class Aoti(Frozen):
    """An AOTInductor package. Slow to compile: tens of seconds to minutes."""

    pass_: Literal["aoti"] = Field("aoti", alias="pass")


class Quantize(Frozen):
    """A copy of the ONNX file in another precision, for one target."""

    pass_: Literal["quantize"] = Field("quantize", alias="pass")
    precision: Literal["int8", "fp16"] = "int8"
    target: Literal["cpu", "tensorrt"] = "cpu"
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    samples: Positive = 256


class TensorRT(Frozen):
    """A TensorRT engine: of TensorRT-RTX (built without a GPU) or of datacenter TensorRT."""

    pass_: Literal["tensorrt"] = Field("tensorrt", alias="pass")
    flavour: Literal["rtx", "tensorrt"] = "rtx"
    source: Literal["fp32", "fp16", "int8"] = Field("fp32", description="Which ONNX file it is built from.")
    max_batch: Positive = Field(8, description="Upper end of the profile of dynamic dimensions.")
    timeout_s: Annotated[float, Field(gt=0)] = 600.0


Step = Annotated[
    Train | Finetune | Distill | Prune | TorchScript | Onnx | Aoti | Quantize | TensorRT,
    Field(discriminator="pass_"),
]


class Tolerance(Frozen):
    """How far an artifact may be from the module it came from. `max_error` is relative to the largest reference output."""

    max_error: Annotated[float, Field(gt=0)]
    min_cosine: Annotated[float, Field(gt=0, le=1)]


class Parity(Frozen):
    """One tolerance a precision; a NaN or an Inf always fails."""

    samples: Positive = 64
    fp32: Tolerance = Tolerance(max_error=1e-3, min_cosine=0.99999)
    fp16: Tolerance = Tolerance(max_error=5e-2, min_cosine=0.999)
    int8: Tolerance = Tolerance(max_error=1.0, min_cosine=0.9)


class Bench(Frozen):
    """How latency is measured: blocks of calls, interleaved over all artifacts, each in a process of its own."""

    threads: Positive = 1
    batch: tuple[Positive, ...] = (1,)
    budget_s: Annotated[float, Field(gt=0)] = Field(10.0, description="Seconds of sampling for each batch size, at most.")
    enabled: bool = True


class Recipe(Frozen):
    """A whole run."""

    version: Literal[1] = 1
    model: Model
    input: tuple[str, ...] = Field((), description="[name=]dims[:dtype], in positional order; a word is a dynamic dimension.")
    data: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    nproc: Positive = 1
    max_drop: Annotated[float, Field(ge=0)] | None = Field(None, description="Accuracy points that may be lost.")
    passes: Annotated[tuple[Step, ...], Field(min_length=1)]
    parity: Parity = Parity()
    bench: Bench = Bench()

    def to_yaml(self) -> str:
        """The recipe as a file that gives this recipe again; defaults are written out, so that later defaults change nothing."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


TRUNK = ("train", "prune", "finetune", "distill")
"""Passes that take a module and give a module; all others are leaves."""

_TAGS = {"train", "finetune", "distill", "prune", "torchscript", "onnx", "aoti", "quantize", "tensorrt"}
_HINT = "`mlopt schema` prints what a recipe may hold; recipes/ has some to start from"


def parse(text: str, where: str = "recipe") -> Recipe:
    """A recipe from YAML. Raises `RecipeError` naming the line."""
    return typed_yaml.parse(Recipe, text, where, "recipe", _HINT, _TAGS)


def load(path: Path) -> Recipe:
    """A recipe from a file of at most 256 kB. Raises `RecipeError`, or `UsageError` when it cannot be read."""
    return typed_yaml.load(Recipe, path, "recipe", _HINT, _TAGS)
