"""What each width costs when it alone is narrowed: where a network has channels to
spare, and where it has none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mlopt.model.tensors import canonical
from mlopt.pruning.cut import Cut
from mlopt.pruning.importance import score_classes
from mlopt.pruning.masking import masked
from mlopt.pruning.pruner import Pruner
from mlopt.pruning.surgery import cuts_of

RATIOS = (0.25, 0.5, 0.75)
MAX_GROUPS = 64


@dataclass(frozen=True)
class Sensitivity:
    """`values[group][ratio]`: the metric with that share of the group masked, and
    nothing else. `left_out`: groups not tried.
    """

    metric: str
    dense: float
    ratios: tuple[float, ...]
    groups: tuple[str, ...]
    widths: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]
    left_out: int


def measure(
    metric: str, pruner: Pruner, judge: Callable[[nn.Module], float], ratios: tuple[float, ...] = RATIOS
) -> Sensitivity:
    """Mask, judge, unmask: the channels with the lowest scores of one group at a time.
    `judge` maps the module to the metric's value.

    At most 64 groups, those with the most MACs behind them. The module is left as it
    was.
    """
    analysis = pruner.analysis()
    scores = score_classes(analysis.flow, analysis.groups, pruner.weights, pruner.options.importance)
    counter = analysis.counter()
    worth = counter.gradient(counter.totals, "macs") * counter.totals
    tried = sorted(np.argsort(-worth, kind="stable")[:MAX_GROUPS].tolist())
    state = canonical(pruner.module)
    by_id = {id(tensor): name for name, tensor in state.items()}
    dense = judge(pruner.module)
    values = []
    for index in tried:
        group, row = analysis.groups[index], []
        order = np.argsort(scores[index], kind="stable")
        for ratio in ratios:
            dropped = np.zeros(len(analysis.flow.labels), dtype=bool)
            dropped[group.classes[order[: max(1, min(len(order) - 1, round(ratio * len(order))))]]] = True
            changed = {}
            for name, keeps in cuts_of(Cut(analysis.flow, dropped)).weights.items():
                changed[by_id[id(pruner.weights[name])]] = masked(pruner.weights[name], keeps)
            with swapped(pruner.module, changed):
                row.append(judge(pruner.module))
        values.append(tuple(row))
    names = tuple(analysis.groups[i].name for i in tried)
    widths = tuple(len(analysis.groups[i].classes) * analysis.groups[i].unit for i in tried)
    return Sensitivity(metric, dense, ratios, names, widths, tuple(values), len(analysis.groups) - len(tried))


@contextlib.contextmanager
def swapped(module: nn.Module, values: dict[str, torch.Tensor]) -> Iterator[None]:
    """Other values in some tensors for a while, in place, so that whatever shares them
    sees them too.
    """
    state = canonical(module)
    kept = {name: state[name].detach().clone() for name in values}
    for name, value in values.items():
        state[name].data.copy_(value)
    try:
        yield
    finally:
        for name, value in kept.items():
            state[name].data.copy_(value)
