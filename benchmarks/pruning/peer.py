"""torch-pruning as its documentation uses it, without configuration per model: the last
linear layer is ignored, widths round to 8."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

STEPS = 7


def last_layer(module: nn.Module) -> list[nn.Module]:
    """The classifier, whose outputs are classes."""
    layers = [child for child in module.modules() if isinstance(child, (nn.Linear, nn.Conv2d))]
    return layers[-1:]


def importance_of(name: str) -> Any:
    """torch-pruning's group importances by the names that mlopt uses."""
    return {
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
        "bn": lambda: tp.importance.BNScaleImportance(),
        "taylor": lambda: tp.importance.GroupTaylorImportance(),
        "random": lambda: tp.importance.RandomImportance(),
    }[name]()


def prune_at(
    module: nn.Module,
    inputs: tuple[Any, ...],
    ratio: float,
    importance: str = "l2",
    spread: str = "uniform",
    losses: Any = (),
    round_to: int = 8,
) -> nn.Module:
    """One pass at a ratio of channels, on a copy."""
    made = copy.deepcopy(module).eval()
    if importance == "taylor":
        made.zero_grad()
        for loss in losses:
            loss(made).backward()
    pruner = tp.pruner.BasePruner(
        made,
        inputs,
        importance=importance_of(importance),
        pruning_ratio=ratio,
        global_pruning=spread == "global",
        ignored_layers=last_layer(made),
        round_to=round_to,
        pruning_ratio_dict={},
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
        customized_pruners={},
        unwrapped_parameters=[],
    )
    pruner.step()
    made.zero_grad(set_to_none=True)
    return made


def macs_of(module: nn.Module, inputs: tuple[Any, ...]) -> float:
    """MACs as torch-pruning counts them."""
    return float(tp.utils.count_ops_and_params(module, inputs)[0])


def prune_to(
    module: nn.Module, inputs: tuple[Any, ...], remain: float, **options: Any
) -> tuple[nn.Module, float]:
    """The ratio of channels is searched until the MACs that remain are nearest to
    `remain`: (module, share that remains).

    Widths round to 8, and finer where that misses by more than 3 points, as mlopt does.
    """
    dense = macs_of(module, inputs)
    best: tuple[float, nn.Module, float] | None = None
    for round_to in (8, 4, 2, 1):
        low, high = 0.0, 0.98
        for _ in range(STEPS):
            ratio = (low + high) / 2
            try:
                made = prune_at(module, inputs, ratio, round_to=round_to, **options)
                share = macs_of(made, inputs) / dense
            except Exception:
                if best is None:
                    raise
                return best[1], best[2]  # what a coarser width gave
            if best is None or abs(share - remain) < best[0]:
                best = abs(share - remain), made, share
            low, high = (ratio, high) if share > remain else (low, ratio)
        assert best is not None
        if best[0] <= 0.03:
            break
    assert best is not None
    return best[1], best[2]


def works(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Forward and one backward step. Raises whatever it raises."""
    output = module(*inputs)
    while not isinstance(output, torch.Tensor):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    output.float().square().mean().backward()
