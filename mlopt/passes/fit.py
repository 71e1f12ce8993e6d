"""`train`, `finetune`, `distill`: module to trained module."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from safetensors.torch import load_file
from torch import nn

from mlopt.artifact import Artifact
from mlopt.checking.accuracy import predict
from mlopt.data.sets import check_labels
from mlopt.errors import DataError
from mlopt.model import bundle
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.recipe.configs import Distill
from mlopt.records.edge import Json
from mlopt.training.distributed import train_in_processes
from mlopt.training.loop import Trainer, fit
from mlopt.training.objectives import Objective, distillation, supervised


@dataclass(frozen=True)
class FitPass:
    config: Trainer
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        name = self.config.pass_
        if run.data.train is None:
            raise DataError(f"{name} needs training data", "give --data, or leave out this pass")
        module, head = run.modules.take(artifact)
        outputs, _ = predict(module, run.data.evaluation, run.device) if run.device == "cpu" else (None, None)
        if outputs is not None:
            check_labels(run.data.train, outputs)
        if run.nproc > 1:
            metrics = self._in_processes(module, artifact, stage, run)
        else:
            module.to(run.device)
            done = fit(module, run.data.train, self._objective(run), self.config, run.seed, run.device, progress=run.say, sparse=head.sparse)
            module.cpu()
            metrics = {"steps": done.steps, "losses": list(done.losses), "seconds": done.seconds}
        module.eval()
        bundle.write(stage, module, head)
        losses = metrics["losses"]
        assert isinstance(losses, list)
        summary = f"{metrics['steps']} steps, loss {losses[-1]:.4f}"
        return PassResult(replace(artifact, root=stage, digest=""), {**metrics, "processes": run.nproc}, (), summary)

    def _in_processes(self, module: nn.Module, artifact: Artifact, stage: Path, run: RunContext) -> Json:
        """Train under DistributedDataParallel; the weights come back through a file."""
        if run.data_spec is None:
            raise DataError("training in several processes needs data that each can load", "give data as a path or package.module:factory")
        out = stage / "trained.safetensors"
        job = {
            "bundle": str(artifact.path),
            "teacher": str(run.dense.path),
            "trust": run.trust.to_json(),
            "config": self.config.model_dump(mode="json", by_alias=True),
            "data": run.data_spec,
            "seed": run.seed,
            "device": run.device,
            "threads": 1,
            "out": str(out),
        }
        metrics = train_in_processes(job, run.nproc, run.say)
        bundle.fill(module, load_file(out))
        out.unlink()
        return metrics

    def _objective(self, run: RunContext) -> Objective:
        if not isinstance(self.config, Distill):
            return supervised
        teacher, _ = run.modules.take(run.dense)
        return distillation(teacher.to(run.device), self.config.temperature, self.config.alpha)
