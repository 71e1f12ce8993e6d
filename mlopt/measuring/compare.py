"""Two modules on the runtime that will serve them: the ratio of their times."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from torch import nn

from mlopt.artifact import Artifact, Format
from mlopt.data.samples import samples_for
from mlopt.data.sets import NO_DATA, DataSet
from mlopt.exporting.onnx import export_onnx
from mlopt.exporting.torchscript import export_torchscript
from mlopt.measuring.rows import speedup
from mlopt.measuring.run import workload_for
from mlopt.measuring.sampling import Contender, Sampler
from mlopt.model import bundle
from mlopt.model.trust import Trust
from mlopt.pruning.latency import TimeRatio
from mlopt.records.bench import Conditions, Ratio

BUDGET_S = 2.0
OPSET = 20


class Serving:
    """A dense module exported once, against which others are timed on the same runtime.

    `runtime`: `onnx` (ONNX Runtime), `torchscript`, or `eager`. Use as a context
    manager: the exports live in a scratch directory.
    """

    def __init__(
        self,
        dense: Artifact,
        runtime: str,
        trust: Trust,
        conditions: Conditions,
        data: DataSet = NO_DATA,
        seed: int = 0,
    ) -> None:
        self._dense, self._runtime, self._trust = dense, runtime, trust
        self._conditions, self._data, self._seed = conditions, data, seed
        self._stack = contextlib.ExitStack()
        self._scratch, self._base = Path(), dense

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
        module = bundle.read(artifact.path, self._trust)[0].eval().requires_grad_(False)
        if self._runtime == "onnx":
            done = export_onnx(module, artifact.inputs, place / "model.onnx", OPSET)
            return Artifact("model.onnx", Format.ONNX, place, "model.onnx", "", done.inputs)
        inputs, _ = samples_for(artifact, 2, self._data, self._seed)
        export_torchscript(module, inputs, place / "model.pt")
        return Artifact("model.pt", Format.TORCHSCRIPT, place, "model.pt", "", artifact.inputs)

    def time_ratio(self, module: nn.Module, head: bundle.Bundle) -> TimeRatio:
        """The time of `module` over the time of the dense one."""
        faster = self.speedup(module, head)
        return TimeRatio(1 / faster.estimate, 1 / faster.high, 1 / faster.low)

    def speedup(self, module: nn.Module, head: bundle.Bundle) -> Ratio:
        """How many times faster `module` is than the dense one, with its 95% interval.
        Raises what exporting or running raises."""
        number = sum(1 for _ in self._scratch.iterdir())
        root = self._scratch / f"module-{number}"
        root.mkdir()
        bundle.write(root, module, head)
        candidate = self._exported(
            Artifact("candidate", Format.MODULE, root, "", "", self._dense.inputs), f"export-{number}"
        )
        contenders = [
            Contender(name, a, self._trust) for name, a in (("dense", self._base), ("candidate", candidate))
        ]
        workload = workload_for(self._base, self._base.fixed_batch or 1, self._data)
        with Sampler(contenders, [workload], self._conditions, self._seed) as sampler:
            (generations,) = sampler.collect(BUDGET_S)
        for error in sampler.lost.values():
            raise error
        return speedup(generations, 1)
