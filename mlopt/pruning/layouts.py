"""Walking the graph, and walking it again where a view lets us choose which of its
factors can be cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from mlopt.pruning import rules
from mlopt.pruning.factors import Layout
from mlopt.pruning.propagation import Propagation

assert rules.__all__  # importing the package fills the table of rules

MAX_ROUNDS = 4
MAX_WALKS = 120


def cuttable_weights(flow: Propagation) -> float:
    """How much of the network could be cut: the score by which layouts are compared."""
    total = 0.0
    for labels in flow.weights.values():
        if labels:
            free = sum(np.count_nonzero(flow.labels.find(dim)) / max(1, len(dim)) for dim in labels)
            total += free * math.prod(len(dim) for dim in labels)
    return total


def propagate(
    program: torch.export.ExportedProgram,
    cut_statistics: bool = False,
    constrain: Callable[[Propagation], None] | None = None,
) -> Propagation:
    """Walk the graph, and choose at every kind of split site the factor that leaves
    most to cut.

    Sites of one class are tried together, then each alone, last in the graph first; a
    change is kept only if more of the network becomes cuttable. This is what finds that
    heads can be cut where head widths cannot. `cut_statistics`: as in `Propagation`.
    `constrain`: unites or pins labels for reasons that the graph does not show; called
    after every walk.
    """

    def walk(layout: Layout) -> Propagation:
        flow = Propagation(program, layout, cut_statistics)
        if constrain is not None:
            constrain(flow)
        return flow

    layout: Layout = {}
    best = walk(layout)
    score = cuttable_weights(best)
    walks = 0
    for _ in range(MAX_ROUNDS):
        improved = False
        last_first = list(reversed(best.splits.values()))
        closed = {
            split.site: len(split.options) for split in last_first if not best.labels.cuttable(split.labels)
        }
        every = dict.fromkeys(split.site for split in last_first)
        # Queries have more heads than keys where they are grouped: all sites of such a
        # class change together or not at all.
        together = [
            [site for site in every if site.owner == owner]
            for owner in dict.fromkeys(site.owner for site in closed)
        ]
        alone = [[site] for site, options in closed.items() for _ in range(1, options)]
        for sites in [*(sites for sites in together if len(sites) > 1), *alone]:
            if walks >= MAX_WALKS:
                return best
            trial = {**layout, **{site: layout.get(site, 0) + 1 for site in sites}}
            flow, walks = walk(trial), walks + 1
            reached = cuttable_weights(flow)
            if reached > score:
                best, score, layout, improved = flow, reached, trial, True
        if not improved:
            return best
    return best
