"""`prune`: module to smaller module, or to one with zeros in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from mlopt.artifact import Artifact
from mlopt.errors import MloptError, first_line
from mlopt.measuring.compare import Serving
from mlopt.measuring.layers import SlowLayer, slow_layers
from mlopt.model import bundle
from mlopt.passes.base import PassResult
from mlopt.passes.context import RunContext
from mlopt.pruning.budget import Amount
from mlopt.pruning.choice import Rounding
from mlopt.pruning.importance import mean_gradients
from mlopt.pruning.latency import TimeRatio, Trial, as_share_of_time, prune_to_latency
from mlopt.pruning.plan_file import Plan
from mlopt.pruning.pruner import CLOSE, Declined, Options, Pruned, Pruner
from mlopt.pruning.report import PruneReport
from mlopt.pruning.sparsity import sparsify
from mlopt.recipe.configs import Prune
from mlopt.records.bench import Conditions
from mlopt.records.edge import Json
from mlopt.records.run import Finding
from mlopt.training.loop import recalibrate_batch_norm
from mlopt.training.objectives import taylor_losses

PROOF_SAMPLES = 8
PLAN = "plan.json"
SHOWN_LAYERS = 5
NOTABLE = 0.005
"""What rounding changes by less than half a point is not worth a sentence."""


def _shown(amount: str) -> str:
    """`macs:0.5` as people write it."""
    metric = amount.partition(":")[0]
    return {"macs": "MACs", "params": "parameters", "latency": "time", "layers": "residual blocks"}.get(
        metric, metric
    )


@dataclass(frozen=True)
class PrunePass:
    config: Prune
    version: ClassVar[int] = 2

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        config = self.config
        if config.kind != "structured":
            return self._zeros(artifact, stage, run)
        # Gradients for Taylor importance change statistics of the module: then it must
        # be nobody else's.
        own = config.importance == "taylor"
        module, head = run.modules.take(artifact) if own else run.modules.borrow(artifact)
        inputs, _ = run.samples(artifact, PROOF_SAMPLES)
        losses = taylor_losses(module, run.data.train, run.seed) if own else []
        options = Options(
            config.importance, config.spread, config.round_to, config.floor, config.keep, run.seed
        )
        trials: list[Trial] = []
        try:
            pruner = Pruner(module, inputs, options, losses)
            pruned, trials = self._prune(pruner, head, artifact, run)
        except Declined as declined:
            return PassResult(artifact, declined=declined.reason)
        recalibrated = False
        if config.recalibrate and run.data.train is not None:
            recalibrated = recalibrate_batch_norm(pruned.module, run.data.train, seed=run.seed)
        bundle.write(stage, pruned.module, head.after(pruned.module, pruned.surgery))
        pruned.plan.write(stage / PLAN)
        report = pruned.report
        slow, untimed = _slow_layers(module, pruned, inputs, run.threads)
        metrics = _metrics(report) | {
            "recalibrated": recalibrated,
            "slow_layers": [asdict(row) for row in slow],
        }
        summary = (
            f"{report.reached:.1%} of the {_shown(report.amount)} remain; proof error"
            f" {report.proof.error:.1e}"
        )
        if trials:
            timed, summary = _latency_metrics(pruned, Amount.parse(config.amount), config.runtime, trials)
            metrics |= timed
        findings = (*_findings(config.pass_, str(metrics["note"]), slow, report), *untimed)
        return PassResult(replace(artifact, root=stage, digest=""), metrics, findings, summary)

    def _prune(
        self, pruner: Pruner, head: bundle.Bundle, artifact: Artifact, run: RunContext
    ) -> tuple[Pruned, list[Trial]]:
        if self.config.plan is not None:
            return pruner.apply_plan(Plan.read(Path(self.config.plan))), []
        budget = Amount.parse(self.config.amount)
        if budget.metric != "latency":
            return pruner.prune(budget), []
        with self._serving(artifact, run) as serving:

            def measured(candidate: Pruned) -> TimeRatio:
                ratio = serving.time_ratio(candidate.module, head.after(candidate.module, candidate.surgery))
                run.say(
                    f"{candidate.report.reached:.3f} of the MACs take {ratio.estimate:.3f} of the dense time"
                    f" ({ratio.low:.3f}-{ratio.high:.3f})"
                )
                return ratio

            return prune_to_latency(pruner, 1.0 - budget.remove, measured)

    def _serving(self, artifact: Artifact, run: RunContext) -> Serving:
        return Serving(
            artifact, self.config.runtime, run.trust, Conditions(run.threads, run.device), run.data, run.seed
        )

    def _zeros(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        """Unstructured and 2:4: the same shapes, with zeros that training keeps."""
        config = self.config
        module, head = run.modules.take(artifact)
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
            return PassResult(
                artifact,
                declined="the model has no linear or convolution layer whose weights could be zeroed",
            )
        marked = replace(head, sparse=tuple(sorted({*head.sparse, *sparse.names})))
        bundle.write(stage, module, marked)
        gain = self._gain(module, marked, artifact, run)
        metrics: Json = {
            "kind": config.kind,
            "zeros": sparse.zeros,
            "weights": sparse.weights,
            "skipped": dict(sparse.skipped),
            "gain": gain,
        }
        findings = (Finding("note", config.pass_, gain),)
        summary = f"{sparse.zeros / sparse.weights:.1%} of the weights are zero"
        return PassResult(replace(artifact, root=stage, digest=""), metrics, findings, summary)

    def _gain(self, module: nn.Module, head: bundle.Bundle, artifact: Artifact, run: RunContext) -> str:
        """One measured sentence on what the zeros are worth here."""
        hope = {
            "2:4": (
                "Sparse tensor cores (NVIDIA Ampere and later, TensorRT with sparse weights) can use 2:4"
                " zeros; that was not measured here"
            ),
            "unstructured": (
                "Only sparse kernels can use single zeros, and no runtime that mlopt exports to has them; the"
                " files compress better"
            ),
        }[self.config.kind]
        try:
            with self._serving(artifact, run) as serving:
                ratio = serving.speedup(module, head)
        except MloptError as error:
            return f"What the zeros are worth could not be measured ({error.message}). {hope}."
        word = "no gain" if ratio.low < 1.03 else "a gain"
        name = {"onnx": "ONNX Runtime", "torchscript": "TorchScript", "eager": "eager PyTorch"}[
            self.config.runtime
        ]
        return (
            f"{name} on this {run.device} runs it {ratio.estimate:.2f}x ({ratio.low:.2f}-{ratio.high:.2f}) as"
            f" fast as without zeros: {word}. {hope}."
        )


def _slow_layers(
    module: nn.Module, pruned: Pruned, inputs: tuple[torch.Tensor, ...], threads: int
) -> tuple[list[SlowLayer], tuple[Finding, ...]]:
    """Layers that lost MACs and kept their time. Only an explanation: what cannot be
    timed so costs a sentence, not the cut."""
    one = tuple(x[:1] for x in inputs)
    try:
        return slow_layers(module, pruned.module, one, pruned.report.layers, threads), ()
    except Exception as error:  # a forward that takes no single sample raises what it likes
        why = (
            f"its layers could not be timed one by one, on one sample ({type(error).__name__}:"
            f" {first_line(error)})."
        )
        return [], (Finding("note", "prune", why),)


def _metrics(report: PruneReport) -> Json:
    """The report's figures, but for those of single layers."""
    hidden = ("before", "after", "proof", "layers")
    out = {key: value for key, value in asdict(report).items() if key not in hidden}
    return {
        **out,
        "before": asdict(report.before),
        "after": asdict(report.after),
        "proof": asdict(report.proof),
    }


def _findings(name: str, note: str, slow: list[SlowLayer], report: PruneReport) -> tuple[Finding, ...]:
    """What a person should know of the cut, in sentences."""
    out = [Finding("note", name, f"{note}.")] if note else []
    for row in slow[:SHOWN_LAYERS]:
        shares = (
            f"{row.layer} has {row.macs:.0%} of its MACs and {row.time:.0%} of its time (eager, one sample)"
        )
        out.append(Finding("note", row.layer, f"{shares}: {row.reason}."))
    if len(slow) > SHOWN_LAYERS:
        out.append(Finding("note", name, f"{len(slow) - SHOWN_LAYERS} more such layers are in run.json."))
    rounding = report.rounding
    if isinstance(rounding, Rounding):
        lost = rounding.importance_kept_unrounded - rounding.importance_kept
        moved, step = rounding.reached - rounding.reached_unrounded, rounding.round_to
        if step != 1 and max(abs(lost), abs(moved)) >= NOTABLE:
            changes = f"the budget by {100 * moved:+.1f} points and the importance kept by {-100 * lost:+.1f}"
            out.append(Finding("note", name, f"widths in multiples of {step} moved {changes}."))
    if report.statistics:
        what = f"{report.statistics} normalisations average over fewer channels than before"
        out.append(Finding("note", name, f"{what}; train further to recover what that costs."))
    if report.rung_reason:
        out.append(Finding("note", name, f"{report.rung_reason}."))
    return tuple(out)


def _latency_metrics(pruned: Pruned, budget: Amount, runtime: str, trials: list[Trial]) -> tuple[Json, str]:
    """The budget that was asked for, in time, with every step of the search; and a
    summary."""
    target = 1.0 - budget.remove
    timed, best = as_share_of_time(pruned, trials, target)
    reached = f"reached {best.ratio.estimate:.3f} at {best.macs:.3f} of the MACs"
    rest = "the rest of the time is not in layers that can be narrowed"
    missed = abs(best.ratio.estimate - target) > CLOSE
    metrics = {
        **{key: getattr(timed.report, key) for key in ("amount", "asked", "reached")},
        "latency": {"runtime": runtime, "trials": [asdict(trial) for trial in trials]},
        "note": f"asked for {target:.3f} of the time on {runtime}, {reached}: {rest}" if missed else "",
    }
    return (
        metrics,
        f"{best.ratio.estimate:.1%} of the time on {runtime} and {best.macs:.1%} of the MACs remain",
    )
