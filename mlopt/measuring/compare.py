"""Two modules on the runtime that will serve them: the ratio of their times."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from mlopt.artifact import Artifact, Format
from mlopt.context import RunContext, fixed_batch
from mlopt.measuring.protocol import Conditions
from mlopt.measuring.rows import speedup
from mlopt.measuring.run import timed_shape
from mlopt.measuring.sampling import Entry, Sampler
from mlopt.measuring.statistics import Ratio
from mlopt.model import bundle
from mlopt.passes import pass_class
from mlopt.pruning.latency import TimeRatio
from mlopt.recipe import Onnx, TorchScript

EXPORTS: dict[str, Any] = {"onnx": Onnx(), "torchscript": TorchScript()}


class Serving:
    """A dense module exported once, against which others are timed on the same runtime.

    `runtime`: `onnx` (ONNX Runtime), `torchscript`, or `eager`. Use as a context manager: the exports live in a scratch directory.
    """

    def __init__(self, dense: Artifact, runtime: str, run: RunContext, budget_s: float = 2.0) -> None:
        self._dense, self._runtime, self._run, self._budget = dense, runtime, run, budget_s
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Serving:
        self._scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mlopt-serving-")))
        self._base = self._exported(self._dense, "dense")
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _exported(self, artifact: Artifact, name: str) -> Artifact:
        if self._runtime == "eager":
            return artifact
        place = self._scratch / name
        place.mkdir()
        step = EXPORTS[self._runtime]
        return pass_class(step.pass_)(step)(artifact, place, self._run).artifact

    def time_ratio(self, module: nn.Module, head: bundle.Bundle) -> TimeRatio:
        """The time of `module` over the time of the dense one."""
        faster = self.speedup(module, head)
        return TimeRatio(1 / faster.estimate, 1 / faster.high, 1 / faster.low)

    def speedup(self, module: nn.Module, head: bundle.Bundle) -> Ratio:
        """How many times faster `module` is than the dense one, with its 95% interval. Raises what exporting or running raises."""
        number = sum(1 for _ in self._scratch.iterdir())
        root = self._scratch / f"module-{number}"
        root.mkdir()
        bundle.write(root, module, head)
        candidate = self._exported(Artifact("candidate", Format.MODULE, root, "", "", self._dense.inputs), f"export-{number}")
        batch = fixed_batch(self._base) or 1
        entries = [Entry(name, a, self._run.trust) for name, a in (("dense", self._base), ("candidate", candidate))]
        shape = timed_shape(self._base, batch, self._run.data)
        with Sampler(entries, [shape], Conditions(self._run.threads, self._run.device), self._run.seed) as sampler:
            (epochs,) = sampler.collect(self._budget)
        for error in sampler.lost.values():
            raise error
        return speedup(epochs, 1)
