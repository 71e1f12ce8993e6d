"""Runtimes that are PyTorch: eager, TorchScript, AOTInductor."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlopt.model import bundle
from mlopt.model.trust import Trust
from mlopt.pruning.proof import first_tensors
from mlopt.runtimes.base import Arrays


class Torch:
    """Any callable on tensors."""

    provider = "torch"

    def __init__(self, name: str, function: Any, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        self.name, self.device, self._function = name, device, function

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        with torch.inference_mode():
            tensors = [torch.from_numpy(np.asarray(array)) for array in inputs]
            if self.device != "cpu":
                tensors = [tensor.to(self.device) for tensor in tensors]
            return [tensor.cpu().numpy() for tensor in first_tensors(self._function(*tensors))]


class Eager(Torch):
    """The module as PyTorch runs it, from its bundle."""

    def __init__(self, path: Path, threads: int, device: str, trust: Trust | None) -> None:
        module, _ = bundle.read(path, trust or Trust())
        super().__init__("eager", module.eval().to(device), threads, device)


class TorchScript(Torch):
    """A TorchScript program that mlopt wrote."""

    def __init__(self, path: Path, threads: int, device: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            script = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
        super().__init__("torchscript", script, threads, device)


class Aoti(Torch):
    """An AOTInductor package that mlopt wrote."""

    def __init__(self, path: Path, threads: int) -> None:
        from torch._inductor import aoti_load_package

        super().__init__("aoti", aoti_load_package(str(path)), threads, "cpu")
