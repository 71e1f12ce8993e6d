"""`train`, `finetune`, `distill`: module to trained module."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from safetensors.torch import load_file
from torch import nn

from mlopt.artifact import Artifact
from mlopt.errors import DataError
from mlopt.model import bundle
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.recipe.configs import Distill
from mlopt.records.edge import Json
from mlopt.training.distributed import TrainJob, train_in_processes
from mlopt.training.loop import Fit, Trainer, World, fit
from mlopt.training.objectives import Objective, distillation, supervised


@dataclass(frozen=True)
class FitPass:
    config: Trainer
    version: ClassVar[int] = 2

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        name = self.config.pass_
        if run.data.train is None:
            raise DataError(f"{name} needs training data", "give --data, or leave out this pass")
        module, head = run.modules.take(artifact)
        if run.nproc > 1:
            done = self._in_processes(module, artifact, stage, run)
        else:
            module.to(run.device)
            world = World(device=run.device)
            done = fit(
                module,
                run.data.train,
                self._objective(run),
                self.config,
                run.seed,
                world,
                run.say,
                head.sparse,
            )
            module.cpu()
        module.eval()
        bundle.write(stage, module, head)
        metrics: Json = {
            "steps": done.steps,
            "losses": list(done.losses),
            "seconds": done.seconds,
            "processes": run.nproc,
        }
        summary = f"{done.steps} steps, loss {done.losses[-1]:.4f}"
        return PassResult(replace(artifact, root=stage, digest=""), metrics, (), summary)

    def _in_processes(self, module: nn.Module, artifact: Artifact, stage: Path, run: RunContext) -> Fit:
        """Train under DistributedDataParallel; the weights come back through a file."""
        if run.data_spec is None:
            raise DataError(
                "training in several processes needs data that each can load",
                "give data as a path or package.module:factory",
            )
        out = stage / "trained.safetensors"
        job = TrainJob(
            bundle=artifact.path,
            teacher=run.dense.path,
            trust=run.trust,
            config=self.config,
            data=run.data_spec,
            seed=run.seed,
            device=run.device,
            threads=1,
            out=out,
        )
        done = train_in_processes(job, run.nproc, run.say)
        bundle.fill(module, load_file(out))
        out.unlink()
        return done

    def _objective(self, run: RunContext) -> Objective:
        if not isinstance(self.config, Distill):
            return supervised
        teacher, _ = run.modules.take(run.dense)
        return distillation(teacher.to(run.device), self.config.temperature, self.config.alpha)
