"""The Python interface: `load`, `prune`, `compress`, `bench`. What the command line does, on live objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlopt.artifact import TensorSpec
from mlopt.data import Data, DataSet, adopt, load_data
from mlopt.errors import UsageError
from mlopt.model import bundle
from mlopt.model.sources import adopt as adopt_module
from mlopt.model.trust import Trust
from mlopt.pipeline import Pipeline, Run
from mlopt.pruning.engine import Declined, Pruned, prune_module
from mlopt.recipe import Model, Recipe
from mlopt.store import Store
from mlopt.synthesis import build_recipe

Tensors = torch.Tensor | Sequence[torch.Tensor]


def _tuple(inputs: Tensors) -> tuple[torch.Tensor, ...]:
    return (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)


def load(path: str | Path, *, arch: str | None = None, allow_class: Sequence[str] = ()) -> nn.Module:
    """The module of a bundle (or of a run directory's `model/`), pruned as it is, in evaluation mode. No pickle is involved.

    `arch`: the factory, when the bundle names one. `allow_class`: classes outside the allow-list. Raises `ModelRefused`.
    """
    directory = Path(path)
    if (directory / "run.json").is_file():
        directory = directory / "model"
    module, _ = bundle.read(directory, Trust(arch=arch, allow_class=tuple(allow_class)))
    return module.eval()


def prune(module: nn.Module, inputs: Tensors, amount: str | float = "macs:0.5", *, importance: str = "l2", spread: str = "uniform",
          round_to: int = 8, floor: float = 0.1) -> Pruned:  # fmt: skip
    """Cut a copy of `module` to a named budget, and prove it on `inputs` (positional tensors, batch first).

    Returns `Pruned(module, plan, report)`. Raises `UsageError` for a bad amount or when there is nothing to cut, `PassFailed` when the result
    cannot be proved.
    """
    try:
        return prune_module(module, _tuple(inputs), str(amount), importance=importance, spread=spread, round_to=round_to, floor=floor)
    except Declined as declined:
        raise UsageError(f"nothing to prune: {declined.reason}") from declined


def compress(
    model: nn.Module,
    inputs: Tensors,
    *,
    out: str | Path = "mlopt-run",
    prune: str | float | None = None,
    finetune: int = 0,
    distill: int = 0,
    quantize: Sequence[str] = (),
    export: Sequence[str] = ("torchscript", "onnx"),
    target: Sequence[str] = ("cpu",),
    data: Data | str | None = None,
    factory: str | None = None,
    factory_args: dict[str, Any] | None = None,
    allow_class: Sequence[str] = (),
    max_drop: float | None = None,
    seed: int = 0,
    threads: int = 1,
    bench: bool = True,
) -> Run:
    """The main job on a live module; the batch dimension of `inputs` is taken as dynamic.

    The module is first written as a bundle below `out`; `factory` (`package.module:factory`) is needed when its attributes are not plain
    data. The module's own classes are allowed: you hold them already. Returns the run; raises what the command line would report.
    """
    own = {f"{type(child).__module__}.{type(child).__qualname__}" for child in model.modules()}
    lost = sorted(name for name in own if name.startswith("__main__.") or "<locals>" in name)
    if lost and factory is None:
        raise UsageError(f"other processes cannot import {', '.join(lost)}", "define the class at the top of a module, not of a script")
    directory = Path(out)
    source = adopt_module(model, factory, factory_args)
    tensors = _tuple(inputs)
    specs = tuple(
        TensorSpec("x" if i == 0 else f"x{i}", ("batch", *tensor.shape[1:]), str(tensor.dtype).removeprefix("torch."))
        for i, tensor in enumerate(tensors)
    )
    store = Store(directory)
    with store.locked():
        stage = store.stage()
        _, head = source.trunk()
        bundle.write(stage, model, bundle.Bundle(head.origin, specs))
        root, _ = store.publish(stage)
    named = tuple(sorted({name for name in own if not name.startswith("torch.nn.")} | set(allow_class)))
    loaded: DataSet | None = adopt(data) if isinstance(data, Data) else load_data(data, specs) if data is not None else None
    recipe: Recipe = build_recipe(
        Model(path=str(root), arch=factory, arch_args=factory_args or {}, allow_class=named),
        prune=None if prune is None else str(prune),
        finetune=finetune,
        distill=distill,
        quantize=tuple(quantize),
        export=tuple(export),
        target=tuple(target),
        data=data if isinstance(data, str) else ("live" if loaded is not None else None),
        max_drop=max_drop,
        seed=seed,
        threads=threads,
        bench=bench,
    )
    return Pipeline(recipe, directory, data=loaded).run()


def bench(models: Sequence[str | Path], *, inputs: Sequence[str] = (), threads: int = 1, batch: Sequence[int] = (1,), budget_s: float = 10.0,
          trust: Trust | None = None) -> list[dict[str, Any]]:  # fmt: skip
    """Measure artifacts side by side; the first is the baseline. Rows as `bench` in `run.json`."""
    from mlopt.bench.files import bench_files

    return bench_files([str(model) for model in models], trust or Trust(), tuple(inputs), threads, tuple(batch), budget_s)
