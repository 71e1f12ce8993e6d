"""`prune`: module to smaller module, or to one with zeros in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from mlopt.artifact import Artifact, Format
from mlopt.errors import MloptError
from mlopt.measuring.compare import Serving
from mlopt.measuring.layers import slow_layers
from mlopt.model import bundle
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.pruning.budget import Amount
from mlopt.pruning.engine import CLOSE, Declined, Options, Pruned, Pruner
from mlopt.pruning.importance import mean_gradients
from mlopt.pruning.latency import TimeRatio, Trial, in_time, prune_to_latency
from mlopt.pruning.plan_file import Plan
from mlopt.pruning.sparsity import sparsify
from mlopt.recipe import schema as recipe
from mlopt.records.bench import Conditions
from mlopt.training.loop import recalibrate_batch_norm
from mlopt.training.objectives import taylor_losses

PROOF_SAMPLES = 8
PLAN = "plan.json"


def _shown(amount: str) -> str:
    """`macs:0.5` as people write it."""
    metric = amount.partition(":")[0]
    return {"macs": "MACs", "params": "parameters", "latency": "time", "layers": "residual blocks"}.get(metric, metric)


@dataclass(frozen=True)
class PrunePass:
    config: recipe.Prune
    takes: ClassVar[Format] = Format.MODULE
    gives: ClassVar[Format] = Format.MODULE
    version: ClassVar[int] = 2

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        module, head = bundle.read(artifact.path, run.trust)
        module.eval()
        if self.config.kind != "structured":
            return self._zeros(module, head, artifact, stage, run)
        inputs, _ = run.samples(artifact, PROOF_SAMPLES)
        losses = taylor_losses(module, run.data.train, run.seed) if self.config.importance == "taylor" else []
        config = self.config
        pruner = Pruner(module, inputs, Options(config.importance, config.spread, config.round_to, config.floor, config.keep, run.seed), losses)
        trials: list[Trial] = []
        try:
            pruned, trials = self._prune(pruner, head, artifact, run)
        except Declined as declined:
            return PassResult(artifact, declined=declined.reason)
        recalibrated = False
        if config.recalibrate and run.data.train is not None:
            recalibrated = recalibrate_batch_norm(pruned.module, run.data.train, seed=run.seed)
        bundle.write(stage, pruned.module, head.after(pruned.module, pruned.surgery))
        pruned.plan.write(stage / PLAN)
        report = pruned.report
        hidden = ("before", "after", "proof", "layers")
        metrics: dict[str, Any] = {
            **{key: value for key, value in asdict(report).items() if key not in hidden},
            "before": asdict(report.before),
            "after": asdict(report.after),
            "proof": report.proof.to_json(),
            "recalibrated": recalibrated,
            "slow_layers": [asdict(row) for row in slow_layers(module, pruned.module, tuple(x[:1] for x in inputs), report.layers, run.threads)],
            "summary": f"{report.reached:.1%} of the {_shown(report.amount)} remain; proof error {report.proof.error:.1e}",
        }
        if trials:
            metrics |= _latency_metrics(pruned, Amount.parse(config.amount), config.runtime, trials)
        return PassResult(replace(artifact, root=stage, digest=""), metrics)

    def _prune(self, pruner: Pruner, head: bundle.Bundle, artifact: Artifact, run: RunContext) -> tuple[Pruned, list[Trial]]:
        if self.config.plan is not None:
            return pruner.apply_plan(Plan.read(Path(self.config.plan))), []
        budget = Amount.parse(self.config.amount)
        if budget.metric != "latency":
            return pruner.prune(budget), []
        with self._serving(artifact, run) as serving:

            def measured(candidate: Pruned) -> TimeRatio:
                ratio = serving.time_ratio(candidate.module, head.after(candidate.module, candidate.surgery))
                run.say(f"{candidate.report.reached:.3f} of the MACs take {ratio.estimate:.3f} of the dense time ({ratio.low:.3f}-{ratio.high:.3f})")
                return ratio

            return prune_to_latency(pruner, 1.0 - budget.remove, measured)

    def _serving(self, artifact: Artifact, run: RunContext) -> Serving:
        return Serving(artifact, self.config.runtime, run.trust, Conditions(run.threads, run.device), run.data, run.seed)

    def _zeros(self, module: nn.Module, head: bundle.Bundle, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        """Unstructured and 2:4: the same shapes, with zeros that training keeps."""
        config = self.config
        share = 0.5 if config.kind == "2:4" else float(config.amount.rpartition(":")[2])
        scores = None
        if config.importance == "taylor":
            gradients = mean_gradients(module, taylor_losses(module, run.data.train, run.seed))
            named = dict(module.named_parameters())
            scores = {name: (named[name].detach() * gradient).abs() for name, gradient in gradients.items()}
        elif config.importance == "random":
            generator = torch.Generator().manual_seed(run.seed)
            scores = {name: torch.rand(p.shape, generator=generator) for name, p in module.named_parameters()}
        sparse = sparsify(module, config.kind, share, scores)
        if not sparse.names:
            return PassResult(artifact, declined="the model has no linear or convolution layer whose weights could be zeroed")
        marked = replace(head, sparse=tuple(sorted({*head.sparse, *sparse.names})))
        bundle.write(stage, module, marked)
        metrics: dict[str, Any] = {
            "kind": config.kind,
            "zeros": sparse.zeros,
            "weights": sparse.weights,
            "skipped": sparse.skipped,
            "summary": f"{sparse.zeros / sparse.weights:.1%} of the weights are zero",
            "gain": self._gain(module, marked, artifact, run),
        }
        return PassResult(replace(artifact, root=stage, digest=""), metrics)

    def _gain(self, module: nn.Module, head: bundle.Bundle, artifact: Artifact, run: RunContext) -> str:
        """One measured sentence on what the zeros are worth here."""
        hope = {
            "2:4": "Sparse tensor cores (NVIDIA Ampere and later, TensorRT with sparse weights) can use 2:4 zeros; that was not measured here",
            "unstructured": "Only sparse kernels can use single zeros, and no runtime that mlopt exports to has them; the files compress better",
        }[self.config.kind]
        try:
            with self._serving(artifact, run) as serving:
                ratio = serving.speedup(module, head)
        except MloptError as error:
            return f"What the zeros are worth could not be measured ({error.message}). {hope}."
        word = "no gain" if ratio.low < 1.03 else "a gain"
        name = {"onnx": "ONNX Runtime", "torchscript": "TorchScript", "eager": "eager PyTorch"}[self.config.runtime]
        return (
            f"{name} on this {run.device} runs it {ratio.estimate:.2f}x ({ratio.low:.2f}-{ratio.high:.2f}) as fast as without zeros: {word}. {hope}."
        )


def _latency_metrics(pruned: Pruned, budget: Amount, runtime: str, trials: list[Trial]) -> dict[str, Any]:
    """The budget that was asked for, in time, with every step of the search."""
    target = 1.0 - budget.remove
    timed, best = in_time(pruned, trials, target)
    missed = abs(best.ratio.estimate - target) > CLOSE
    note = (
        f"asked for {target:.3f} of the time on {runtime}, reached {best.ratio.estimate:.3f} at {best.macs:.3f} of the MACs: what is left is not in "
    )
    return {
        **{key: getattr(timed.report, key) for key in ("amount", "asked", "reached")},
        "latency": {"runtime": runtime, "trials": [asdict(trial) for trial in trials]},
        "note": note + ": the rest is not in the layers that can be narrowed" if missed else "",
        "summary": f"{best.ratio.estimate:.1%} of the time on {runtime} and {best.macs:.1%} of the MACs remain",
    }
