"""A pass and a runtime as somebody outside of mlopt would write them:
`docs/extending.md` shows these lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mlopt.artifact import Artifact
from mlopt.catalog import BackendSpec, PassSpec
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.recipe.configs import PassConfig
from mlopt.records.bench import Operator
from mlopt.records.run import Finding
from mlopt.runtimes.base import Arrays, Call, OpenOptions


class Toy(PassConfig):
    """The weights of a stack of linear layers in a NumPy file."""

    pass_: Literal["toy"] = Field("toy", alias="pass")
    decimals: int = 8

    def gives(self) -> str:
        return "model.toy.npz"


@dataclass(frozen=True)
class ToyPass:
    config: Toy
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        file = self.config.gives()
        module, _ = run.modules.borrow(artifact)
        arrays = {
            name: tensor.detach().numpy().round(self.config.decimals)
            for name, tensor in module.named_parameters()
        }
        np.savez(stage / file, **arrays)
        found = Finding("note", file, f"it holds {len(arrays)} arrays.")
        made = Artifact(file, "toy", stage, file, "", artifact.inputs)
        return PassResult(made, {"arrays": len(arrays)}, (found,), f"{len(arrays)} arrays")


class ToyRuntime:
    """Multiplies the layers out, ReLU between them."""

    name, device, provider, precision = "toy", "cpu", "numpy", "fp32"

    def __init__(self, options: OpenOptions) -> None:
        with np.load(options.path) as archive:
            arrays = [archive[name] for name in archive.files]
        self._layers = list(zip(arrays[::2], arrays[1::2], strict=True))

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        x = inputs[0]
        for index, (weight, bias) in enumerate(self._layers):
            x = x @ weight.T + bias
            x = np.maximum(x, 0) if index < len(self._layers) - 1 else x
        return [x]

    def bind(self, inputs: Arrays, copies: bool, graph: bool) -> Call:
        return lambda: self(inputs)

    def profile(self, inputs: Arrays, calls: int) -> list[Operator]:
        return []


PASS = PassSpec("toy", "tests.toys:Toy", "tests.toys:ToyPass", "leaf", needs=("toy",))
RUNTIME = BackendSpec(
    "toy",
    "the toy",
    formats=("toy",),
    packages=("numpy",),
    install="pip install numpy",
    opener="tests.toys:ToyRuntime",
)
