"""`prune`: module to smaller module."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from mlopt import recipe
from mlopt.artifact import Artifact, Format
from mlopt.context import RunContext
from mlopt.model import bundle
from mlopt.passes.base import PassResult
from mlopt.pruning.engine import Declined, Options, prune_module
from mlopt.training.loop import recalibrate_batch_norm
from mlopt.training.objectives import taylor_losses

PROOF_SAMPLES = 8


def _shown(amount: str) -> str:
    """`macs:0.5` as people write it."""
    metric = amount.partition(":")[0]
    return {"macs": "MACs", "params": "parameters"}.get(metric, metric)


@dataclass(frozen=True)
class PrunePass:
    config: recipe.Prune
    takes: ClassVar[Format] = Format.MODULE
    gives: ClassVar[Format] = Format.MODULE
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        module, head = bundle.read(artifact.path, run.trust)
        module.eval()
        inputs, _ = run.samples(artifact, PROOF_SAMPLES)
        losses = taylor_losses(module, run.data.train, run.seed) if self.config.importance == "taylor" else []
        try:
            pruned = prune_module(
                module,
                inputs,
                self.config.amount,
                Options(self.config.importance, self.config.spread, self.config.round_to, self.config.floor),
                losses,
            )
        except Declined as declined:
            return PassResult(artifact, declined=declined.reason)
        report = pruned.report
        recalibrated = False
        if self.config.recalibrate and run.data.train is not None:
            recalibrated = recalibrate_batch_norm(pruned.module, run.data.train, seed=run.seed)
        bundle.write(stage, pruned.module, head.cut(pruned.plan))
        metrics = {
            **{key: value for key, value in asdict(report).items() if key not in ("before", "after", "proof")},
            "before": asdict(report.before),
            "after": asdict(report.after),
            "proof": report.proof.to_json(),
            "recalibrated": recalibrated,
            "summary": f"{report.reached:.1%} of the {_shown(report.amount)} remain; proof error {report.proof.error:.1e}",
        }
        return PassResult(replace(artifact, root=stage, digest=""), metrics)
