"""What is said of a pruning: how it was asked, what was reached, on which rung, and
every width before and after.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import nn

from mlopt.model.surgery import Surgery
from mlopt.pruning.budget import Amount
from mlopt.pruning.choice import Choice, NotRounded, Rounding
from mlopt.pruning.counting import Counts
from mlopt.pruning.cut import changed_statistics
from mlopt.pruning.ladder.climb import Reached
from mlopt.pruning.nodes import enclosing
from mlopt.pruning.options import CLOSE
from mlopt.pruning.plan_file import Plan
from mlopt.pruning.proof import Proof


@dataclass(frozen=True)
class WidthReport:
    """One width of the network, in indices (`unit` of them go together: 1 for a
    channel, the head width for a head).
    """

    name: str
    kind: str
    before: int
    after: int
    unit: int


@dataclass(frozen=True)
class BlockReport:
    """One residual block: `after` is 0 if it was left out. `importance`: relative
    change of the output without it.
    """

    name: str
    kind: str
    before: int
    after: int
    unit: int
    importance: float


@dataclass(frozen=True)
class PruneReport:
    """What was asked, what was reached, and how it was checked. Shares are of the dense
    module.

    `statistics`: how many normalisations average over a dimension that was cut (0 where
    that could be avoided). `layers`: MACs of each layer for one sample, before and
    after, by module path.
    """

    amount: str
    importance: str
    asked: float
    reached: float
    rung: str
    rung_reason: str
    before: Counts
    after: Counts
    proof: Proof
    groups: list[WidthReport] | list[BlockReport]
    unknown_operators: dict[str, int]
    statistics: int = 0
    rounding: Rounding | NotRounded = field(default_factory=NotRounded)
    note: str = ""
    layers: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pruned:
    """A pruned copy, the decisions, the report, and the cut as data. On the graph rung
    `module` is a `torch.fx.GraphModule`.
    """

    module: nn.Module
    plan: Plan
    report: PruneReport
    surgery: Surgery


def report_of(reached: Reached, budget: Amount, importance: str) -> PruneReport:
    """The report on a cut of widths."""
    choice = reached.choice
    widths = zip(choice.groups, choice.widths.kept.tolist(), strict=True)
    return PruneReport(
        amount=str(budget),
        importance=importance,
        asked=choice.widths.asked,
        reached=choice.reached,
        rung=reached.rung,
        rung_reason=reached.reason,
        before=choice.before,
        after=choice.after,
        proof=reached.proved.proof,
        groups=[
            WidthReport(g.name, g.kind, len(g.classes) * g.unit, int(kept) * g.unit, g.unit)
            for g, kept in widths
        ],
        unknown_operators=choice.analysis.flow.unknown,
        statistics=len(changed_statistics(choice.cut)),
        rounding=choice.rounding,
        note=_missed(choice, budget),
        layers=_macs_by_module(choice),
    )


def _missed(choice: Choice, budget: Amount) -> str:
    """A sentence where the budget was missed."""
    if choice.miss <= CLOSE:
        return ""
    widths = choice.widths
    limits = (
        "the nearest that the couplings, the floor and the rounding of widths allow (the least is"
        f" {widths.floor:.3f})"
    )
    return f"asked for {widths.asked:.3f} of the {budget.metric}, reached {choice.reached:.3f}: {limits}"


def _macs_by_module(choice: Choice) -> dict[str, tuple[float, float]]:
    """MACs of every module that does any, before and after the cut, for one sample."""
    flow, cut, batch = choice.analysis.flow, choice.cut, choice.analysis.batch
    path_of = {node.name: (enclosing(node) or [""])[0] for node in flow.values}
    out: dict[str, tuple[float, float]] = {}
    for term in flow.macs:
        before, after = out.get(path_of[term.node], (0.0, 0.0))
        whole = term.constant * math.prod(len(dim) for dim in term.dims) / batch
        left = term.constant * math.prod(cut.kept(dim) for dim in term.dims) / batch
        out[path_of[term.node]] = (before + whole, after + left)
    return out
