"""The Python interface: `load`, `prune`, `compress`, `bench`, `gate`. What the command
line does, on live objects."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack, get_args

import torch
from torch import nn

from mlopt.artifact import Artifact, Format, TensorSpec
from mlopt.data.sets import Data, DataSet, adopt, load_data
from mlopt.errors import UsageError
from mlopt.judging import policy as policies
from mlopt.judging.run import Gate
from mlopt.judging.verdict import Verdict
from mlopt.measuring.compare import Serving
from mlopt.measuring.files import as_artifact
from mlopt.measuring.run import BenchProtocol, bench_side_by_side
from mlopt.model import bundle
from mlopt.model.inputs import specs_of_tensors
from mlopt.model.live import Inputs, Tensors, as_bundle, as_tuple, own_classes, positional
from mlopt.model.sources import adopt as adopt_module
from mlopt.model.trust import Trust
from mlopt.pruning.budget import Amount
from mlopt.pruning.latency import as_share_of_time, prune_to_latency
from mlopt.pruning.plan_file import Plan
from mlopt.pruning.pruner import Declined, Options, Pruned, Pruner
from mlopt.recipe.configs import Prune
from mlopt.recipe.from_options import Wanted, build_recipe
from mlopt.recipe.schema import Bench, Model
from mlopt.records.bench import BenchRow, Conditions
from mlopt.run.intake import put
from mlopt.run.runner import Run
from mlopt.run.runner import run as run_recipe
from mlopt.run.store import Store, default_place
from mlopt.training.loop import recalibrate_batch_norm
from mlopt.training.objectives import taylor_losses


def load(path: str | Path, *, arch: str | None = None, allow_class: str | Sequence[str] = ()) -> nn.Module:
    """The module of a bundle (or of a run directory's `model/`), pruned as it is, in
    evaluation mode. No pickle is involved.

    `arch`: the factory, when the bundle names one. `allow_class`: classes outside the
    allow-list. Raises `ModelRefused`.
    """
    directory = Path(path)
    if (directory / "run.json").is_file():
        directory = directory / "model"
    module, _ = bundle.read(directory, Trust(arch=arch, allow_class=_words(allow_class)))
    return module.eval()


class PruneOptions(TypedDict, total=False):
    """Options of `prune`; `recipe.configs.Prune` says what they mean and what they are
    without."""

    importance: str
    spread: str
    round_to: int | None
    floor: float
    keep: str | Sequence[str]
    seed: int
    runtime: str


RUNTIMES = get_args(Prune.model_fields["runtime"].annotation)


def _words(value: str | Sequence[str]) -> tuple[str, ...]:
    """One word is a list of one: nobody who writes `export="onnx"` means four
    letters."""
    return (value,) if isinstance(value, str) else tuple(value)


def _known(function: str, options: Mapping[str, Any], known: type) -> None:
    """Refuse a misspelt option as Python would. Raises `TypeError`."""
    unknown = sorted(set(options) - set(known.__annotations__))
    if unknown:
        raise TypeError(
            f"mlopt.{function} has no option {', '.join(unknown)}; it has {', '.join(known.__annotations__)}"
        )


def _pruning_options(options: PruneOptions) -> Options:
    plain = Options()
    return Options(
        options.get("importance", plain.importance),
        options.get("spread", plain.spread),
        options.get("round_to", plain.round_to),
        options.get("floor", plain.floor),
        _words(options.get("keep", plain.keep)),
        options.get("seed", plain.seed),
    )


def prune(
    module: nn.Module,
    inputs: Inputs,
    amount: str | float = "macs:0.5",
    data: Data | str | None = None,
    **options: Unpack[PruneOptions],
) -> Pruned:
    """Cut a copy of `module` to a named budget, and prove it on `inputs` (batch first).

    With `data`, batch-norm statistics are estimated again on its training part;
    `importance="taylor"` needs its labels. `amount`: `macs:0.5`, `params:0.5`,
    `channels:0.5`, `latency:0.5` (timed on `runtime`: onnx, torchscript or eager) or
    `layers:2`. `options`: see `PruneOptions`. Returns `Pruned(module, plan, report,
    surgery)`. Raises `UsageError` for a bad amount or when there is nothing to cut,
    `PassFailed` when the result cannot be proved.
    """
    _known("prune", options, PruneOptions)
    runtime = options.get("runtime", "onnx")
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime {runtime} is not known", f"choose from {', '.join(RUNTIMES)}")
    importance = options.get("importance", "l2")
    tensors = positional(module, inputs)
    budget = Amount.parse(str(amount))
    specs = specs_of_tensors(tuple(tensor for tensor in tensors if isinstance(tensor, torch.Tensor)))
    loaded = _data(data, specs)
    train = loaded.train if loaded is not None else None
    losses = taylor_losses(module, train) if importance == "taylor" else ()
    try:
        pruner = Pruner(module, tensors, _pruning_options(options), losses)
        pruned = (
            pruner.prune(budget)
            if budget.metric != "latency"
            else _to_latency(pruner, budget, specs, runtime)
        )
    except Declined as declined:
        raise UsageError(f"nothing to prune: {declined.reason}") from declined
    if train is not None:
        recalibrate_batch_norm(pruned.module, train)
    return pruned


def _to_latency(pruner: Pruner, budget: Amount, specs: tuple[TensorSpec, ...], runtime: str) -> Pruned:
    trust = Trust(allow_class=tuple(sorted(own_classes(pruner.module))))
    with tempfile.TemporaryDirectory(prefix="mlopt-prune-") as scratch:
        dense, head = as_bundle("module", pruner.module, Path(scratch), specs)
        with Serving(dense, runtime, trust, Conditions(), seed=pruner.options.seed) as serving:
            pruned, trials = prune_to_latency(
                pruner,
                1.0 - budget.remove,
                lambda made: serving.time_ratio(made.module, head.after(made.module, made.surgery)),
            )
    return as_share_of_time(pruned, trials, 1.0 - budget.remove)[0]


def apply_plan(module: nn.Module, inputs: Inputs, plan: str | Path | Plan) -> Pruned:
    """Cut a copy of `module` as a `plan.json` (or the `plan` of another pruning) says,
    and prove it on `inputs`.

    Raises `UsageError` when the plan is for another architecture, `PassFailed` when the
    result cannot be proved.
    """
    try:
        return Pruner(module, positional(module, inputs)).apply_plan(
            plan if isinstance(plan, Plan) else Plan.read(Path(plan))
        )
    except Declined as declined:
        raise UsageError(f"nothing to prune: {declined.reason}") from declined


def _data(data: Data | str | None, specs: tuple[TensorSpec, ...]) -> DataSet | None:
    return adopt(data) if isinstance(data, Data) else load_data(data, specs) if data is not None else None


class CompressOptions(TypedDict, total=False):
    """Options of `compress`: those of the command line, under the same names.

    `factory`, `factory_args`: what builds the module, when its attributes are not plain
    data. `bench`: whether latency is measured.
    """

    prune: str | float | None
    finetune: int
    distill: int
    quantize: str | Sequence[str]
    export: str | Sequence[str]
    target: str | Sequence[str]
    factory: str | None
    factory_args: dict[str, Any] | None
    allow_class: str | Sequence[str]
    max_drop: float | None
    seed: int
    threads: int
    bench: bool
    store: str | Path | None


def compress(
    model: nn.Module,
    inputs: Tensors,
    *,
    out: str | Path = "mlopt-run",
    data: Data | str | None = None,
    **options: Unpack[CompressOptions],
) -> Run:
    """The main job on a live module; the batch dimension of `inputs` is taken as
    dynamic.

    The module is first written as a bundle into the store. The module's own classes are
    allowed: you hold them already. `options`: see `CompressOptions`; without `export`,
    TorchScript and ONNX. Returns the run; raises what the command line would report.
    """
    _known("compress", options, CompressOptions)
    factory, arguments = options.get("factory"), options.get("factory_args") or {}
    own = set() if factory else own_classes(model)
    source = adopt_module(model, factory, arguments)
    specs = specs_of_tensors(as_tuple(inputs))
    place = options.get("store")
    kept = Store(Path(place) if place is not None else default_place())
    _, head = source.trunk()
    described = Artifact("module", Format.MODULE, Path(), "", "", specs)
    with kept.opened():
        dense = put(
            kept, described, lambda stage: bundle.write(stage, model, bundle.Bundle(head.origin, specs))
        )
    named = tuple(sorted(own | set(_words(options.get("allow_class", ())))))
    loaded = _data(data, specs)
    amount = options.get("prune")
    wanted = Wanted(
        prune=None if amount is None else str(amount),
        finetune=options.get("finetune", 0),
        distill=options.get("distill", 0),
        quantize=_words(options.get("quantize", ())),
        export=_words(options.get("export", ("torchscript", "onnx"))),
        target=_words(options.get("target", ("cpu",))),
        data=data if isinstance(data, str) else ("live" if loaded is not None else None),
        max_drop=options.get("max_drop"),
        seed=options.get("seed", 0),
        bench=Bench(threads=options.get("threads", 1), enabled=options.get("bench", True)),
    )
    given = Model(path=str(dense.root), arch=factory, arch_args=arguments, allow_class=named)
    return run_recipe(build_recipe(given, wanted), Path(out), kept, data=loaded)


@dataclass(frozen=True)
class Comparison:
    """Rows as `bench` in `run.json`; the first is the baseline, the others have a
    `speedup` against it with its interval."""

    rows: list[BenchRow]

    def speedup(self, index: int = 1) -> float:
        """How many times faster than the baseline a row is."""
        found = self.rows[index].speedup
        return 1.0 if found is None else found.estimate


def bench(
    models: Sequence[nn.Module | str | Path],
    inputs: Tensors | None = None,
    *,
    threads: int = 1,
    batch: Sequence[int] = (1,),
    budget_s: float = 10.0,
    trust: Trust | None = None,
) -> Comparison:
    """Measure modules and artifacts side by side, each in a process of its own; the
    first is the baseline.

    `inputs`: example tensors, batch first, from which the shapes are taken; not needed
    when a model knows its own. Raises `UsageError`.
    """
    specs = () if inputs is None else specs_of_tensors(as_tuple(inputs))
    base = trust or Trust()
    own = {name for model in models if isinstance(model, nn.Module) for name in own_classes(model)}
    allowed = Trust(base.arch, base.arch_args, (*base.allow_class, *sorted(own)), base.trust_code)
    with tempfile.TemporaryDirectory(prefix="mlopt-bench-") as scratch:
        artifacts = []
        for number, model in enumerate(models):
            if isinstance(model, nn.Module):
                root = Path(scratch) / f"module-{number}"
                root.mkdir()
                artifacts.append(as_bundle(f"{type(model).__name__} {number}", model, root, specs)[0])
            else:
                artifacts.append(as_artifact(str(model), allowed.for_model(str(model)), specs, Path(scratch)))
        rows, failed = bench_side_by_side(
            artifacts, allowed, tuple(batch), BenchProtocol(budget_s, Conditions(threads))
        )
        for error in failed:
            raise error
        return Comparison(rows)


def gate(
    candidate: nn.Module | str | Path,
    baseline: nn.Module | str | Path,
    policy: policies.Policy | str | Path = "default",
    *,
    inputs: Tensors | None = None,
    data: Data | str | None = None,
    out: str | Path | None = None,
    trust: Trust | None = None,
    artifact: str | None = None,
) -> Verdict:
    """Is the candidate as good as the baseline? Both are run, interleaved, in fresh
    processes.

    `policy`: a `Policy`, the path of a YAML file, or `default`, `strict`, `coarse`.
    `inputs`: example tensors, for modules. `data`: labels, where accuracy is judged.
    `out`: a directory for every sample. `artifact`: which one of a run directory.
    Returns `Verdict(verdict, kind, rows, ...)`, whose `exit_code` is that of `mlopt
    gate`. Raises `UsageError` for what cannot be compared.
    """
    base = trust or Trust()
    own = {
        name for model in (candidate, baseline) if isinstance(model, nn.Module) for name in own_classes(model)
    }
    allowed = Trust(base.arch, base.arch_args, (*base.allow_class, *sorted(own)), base.trust_code)
    specs = () if inputs is None else specs_of_tensors(as_tuple(inputs))
    with tempfile.TemporaryDirectory(prefix="mlopt-gate-") as scratch:
        sides = []
        for name, model in (("candidate", candidate), ("baseline", baseline)):
            if isinstance(model, nn.Module):
                root = Path(scratch) / name
                root.mkdir()
                as_bundle(name, model, root, specs)
                sides.append(str(root))
            else:
                sides.append(str(model))
        judge = Gate(
            policies.named(policy), allowed, specs, _data(data, specs), None if out is None else Path(out)
        )
        return judge.judge(sides[0], sides[1], artifact)
