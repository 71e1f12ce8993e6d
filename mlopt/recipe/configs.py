"""One configuration a pass, as frozen pydantic models: what a recipe says of it, and
how it fits among the others."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from mlopt.recipe.typed_yaml import Frozen

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
MODULE = "module"
"""The name of the module of the trunk among what passes take and give."""


class PassConfig(Frozen):
    """Base of every pass's configuration. A subclass names its pass: `pass_:
    Literal["mine"] = Field("mine", alias="pass")`."""

    pass_: str = Field(alias="pass")

    unnumbered: ClassVar[bool] = False
    """Whether the record calls the pass by what it gives, not by its name and a
    number."""
    makes_dense: ClassVar[bool] = False
    """Whether its result is the dense model that later passes are compared with, as
    long as the shapes are the first ones."""

    def takes(self) -> str:
        """What it is made from: `module`, or the file name of an export."""
        return MODULE

    def gives(self) -> str:
        """What it makes: `module` for the trunk, else a file name."""
        return MODULE

    def needs(self) -> tuple[str, ...]:
        """Backends that it needs beside those of its line in the catalog."""
        return ()

    def reads(self) -> tuple[str, ...]:
        """Files that it reads beside its input."""
        return ()


class TrainerConfig(PassConfig):
    """What all passes that train have in common."""

    epochs: Annotated[int, Field(ge=1)] = 5
    batch_size: Positive = 64
    lr: Annotated[float, Field(gt=0)] = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="Share of the steps over which the rate rises; cosine decay follows."
    )
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Positive | None = None
    part: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = Field(
        (0.0, 1.0),
        description=(
            "The part of one learning-rate schedule that this step covers: iterative pruning restarts it at"
            " great cost."
        ),
    )


class Train(TrainerConfig):
    """Train on the labels."""

    makes_dense: ClassVar[bool] = True
    pass_: Literal["train"] = Field("train", alias="pass")


class Finetune(TrainerConfig):
    """Train further on the labels, to recover what pruning cost."""

    pass_: Literal["finetune"] = Field("finetune", alias="pass")


class Distill(TrainerConfig):
    """Train further with the unpruned model as teacher (Hinton et al., arXiv
    1503.02531)."""

    pass_: Literal["distill"] = Field("distill", alias="pass")
    temperature: Annotated[float, Field(gt=0)] = 2.0
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="Weight of the teacher's term; the labels get the rest."
    )


BUDGETS = ("macs", "params", "channels", "latency", "layers")


def amount_problem(text: str) -> tuple[str, str] | None:
    """What is wrong with an amount to prune, and what to write instead; None when
    nothing is."""
    metric, _, number = text.rpartition(":")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if metric not in ("", *BUDGETS):
        return (
            f"'{metric}' is not a budget",
            "use 0.5, macs:0.5, params:0.5, channels:0.5, latency:0.5 or layers:2",
        )
    if metric == "layers":
        return (
            None
            if value >= 1 and value.is_integer()
            else (f"'{number}' is not a number of blocks", "layers:2 drops the two that matter least")
        )
    if not 0 < value < 1:
        return (
            f"the amount to prune is {number}: it must lie between 0 and 1",
            "--prune 0.5 removes half of the MACs",
        )
    return None


class Prune(PassConfig):
    """Pruning to a named budget: whole channels, heads and blocks; or zeros without
    smaller shapes."""

    pass_: Literal["prune"] = Field("prune", alias="pass")
    kind: Literal["structured", "unstructured", "2:4"] = "structured"
    amount: str = Field(
        "macs:0.5",
        description=(
            "The share that goes: macs:0.5, params:0.5, channels:0.5, latency:0.5 (measured), layers:2"
            " (blocks). Zeros: a share of weights."
        ),
    )
    importance: Literal["l2", "l1", "taylor", "bn", "random"] = "l2"
    spread: Literal["uniform", "global"] = Field(
        "uniform", description="The same share of every width, or the lowest scores wherever they are."
    )
    keep: tuple[str, ...] = Field(
        (), description="Regular expressions: weights whose names match keep their width."
    )
    plan: str | None = Field(None, description="A plan.json to apply, instead of an amount.")
    runtime: Literal["onnx", "torchscript", "eager"] = Field(
        "onnx", description="Where latency:... is measured, and what zeros gain."
    )
    round_to: Positive | None = Field(
        None, description="Widths stay multiples of this. Without: of 8, and finer where the budget needs it."
    )
    floor: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="No width falls below this share of itself."
    )
    recalibrate: bool = Field(
        True, description="Estimate batch-norm statistics again on training data, before any training."
    )

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

    def reads(self) -> tuple[str, ...]:
        return () if self.plan is None else (self.plan,)


class TorchScript(PassConfig):
    """A TorchScript file: scripted, or traced where scripting fails."""

    pass_: Literal["torchscript"] = Field("torchscript", alias="pass")

    def gives(self) -> str:
        return "model.torchscript.pt"


class Onnx(PassConfig):
    """An ONNX file, through torch.export."""

    pass_: Literal["onnx"] = Field("onnx", alias="pass")
    opset: Annotated[int, Field(ge=18, le=23)] = 20

    def gives(self) -> str:
        return "model.onnx"


class Aoti(PassConfig):
    """An AOTInductor package. Slow to compile: tens of seconds to minutes."""

    pass_: Literal["aoti"] = Field("aoti", alias="pass")

    def gives(self) -> str:
        return "model.aoti.pt2"


class Quantize(PassConfig):
    """A copy of the ONNX file in another precision, for one target."""

    pass_: Literal["quantize"] = Field("quantize", alias="pass")
    precision: Literal["int8", "fp16"] = "int8"
    target: Literal["cpu", "tensorrt"] = "cpu"
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    samples: Positive = 256

    unnumbered: ClassVar[bool] = True

    def takes(self) -> str:
        return "model.onnx"

    def gives(self) -> str:
        return "model.fp16.onnx" if self.precision == "fp16" else f"model.int8-{self.target}.onnx"

    def needs(self) -> tuple[str, ...]:
        return ("fp16", "onnxruntime") if self.precision == "fp16" else ("onnxruntime",)


class TensorRT(PassConfig):
    """A TensorRT engine: of TensorRT-RTX (built without a GPU) or of datacenter
    TensorRT."""

    pass_: Literal["tensorrt"] = Field("tensorrt", alias="pass")
    flavour: Literal["rtx", "tensorrt"] = "rtx"
    source: Literal["fp32", "fp16", "int8"] = Field("fp32", description="Which ONNX file it is built from.")
    max_batch: Positive = Field(8, description="Upper end of the profile of dynamic dimensions.")
    timeout_s: Annotated[float, Field(gt=0)] = 600.0

    unnumbered: ClassVar[bool] = True

    def takes(self) -> str:
        return {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8-tensorrt.onnx"}[
            self.source
        ]

    def gives(self) -> str:
        return f"model.{self.flavour}.engine"

    def needs(self) -> tuple[str, ...]:
        return ("onnx", self.flavour)
