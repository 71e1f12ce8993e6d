"""Structured pruning of one module, from capture to proof: where to begin reading, and
all that others import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mlopt.errors import PassFailed, UsageError
from mlopt.pruning.analysis import Analysis, Dense, analyse
from mlopt.pruning.budget import Amount
from mlopt.pruning.choice import Choice, Chooser, choice_of
from mlopt.pruning.copies import own_tensors
from mlopt.pruning.cut import Cut
from mlopt.pruning.depth import leave_out
from mlopt.pruning.importance import mean_gradients
from mlopt.pruning.ladder.climb import (
    GRAPH,
    LADDER,
    MODULE,
    PARTLY,
    PLAN_LADDER,
    Candidates,
    Failed,
    Reached,
    because,
    climb,
)
from mlopt.pruning.options import CLOSE, Declined, Options
from mlopt.pruning.plan_entries import entries_of
from mlopt.pruning.plan_file import Plan
from mlopt.pruning.report import Pruned, PruneReport, report_of

__all__ = [
    "CLOSE",
    "GRAPH",
    "MODULE",
    "PARTLY",
    "Declined",
    "Options",
    "PruneReport",
    "Pruned",
    "Pruner",
    "analyse",
    "prune_module",
]


class Pruner:
    """One module captured once, pruned to any budget."""

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[Any, ...],
        options: Options | None = None,
        losses: Iterable[Callable[[], torch.Tensor]] = (),
    ) -> None:
        """`inputs`: positional example inputs, on which the proof runs. `losses`:
        closures for `importance="taylor"`.

        Raises `PassFailed` when the module cannot be captured, `UsageError` for one
        without weights or a `keep` that matches nothing.
        """
        self.options = options or Options()
        self.dense = Dense(module, inputs, self.options.keep)
        gradients = mean_gradients(module, losses) if self.options.importance == "taylor" else None
        self.chooser = Chooser(self.dense, self.options, gradients)

    @property
    def module(self) -> nn.Module:
        """The dense module."""
        return self.dense.module

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """Its parameters and buffers by every name they have."""
        return self.dense.weights

    def analysis(self, cut_statistics: bool = False) -> Analysis:
        """The groups; `cut_statistics`: also those that a normalisation averages
        over."""
        return self.dense.analysis(cut_statistics)

    def choose(self, amount: str | Amount) -> Choice:
        """Which widths and labels would go for a budget; nothing is cut. Raises
        `Declined`, and `UsageError` for a bad amount.
        """
        return self.chooser.best(Amount.parse(amount) if isinstance(amount, str) else amount)

    def prune(self, amount: str | Amount) -> Pruned:
        """Cut a copy to the budget and prove it.

        Raises `UsageError` for a bad amount, `Declined` when there is nothing to cut,
        `PassFailed` when no rung of the ladder can be proved.
        """
        budget = Amount.parse(amount) if isinstance(amount, str) else amount
        if budget.metric == "layers":
            return leave_out(self.dense, int(budget.remove))
        if budget.metric == "latency":
            raise UsageError(
                "a latency has to be measured", "prune_to_latency does; here, name what to count: macs:0.5"
            )
        reached = climb(LADDER, self.dense, Candidates(self.chooser, self.choose(budget), budget))
        if isinstance(reached, Failed):
            raise PassFailed(
                f"the pruned module could not be proved equal to the masked one: {reached.problem}",
                "please report the model's architecture",
            )
        return self._pruned(reached, budget)

    def apply_plan(self, plan: Plan) -> Pruned:
        """Cut as a plan says, and prove it.

        Raises `UsageError` when the plan does not fit, `Declined` when it cuts nothing,
        `PassFailed` when the result cannot be proved.
        """
        plan.check(self.dense.shapes())
        if plan.blocks():
            return leave_out(self.dense, plan.blocks())
        analysis = self.dense.analysis(plan.statistics)
        cut = Cut(analysis.flow, plan.dropped(analysis.flow))
        if not cut.dropped.any():
            raise Declined("the plan cuts nothing")
        choice = choice_of(self.dense, cut, analysis)
        budget = Amount("macs", 1 - choice.reached)
        reached = climb(PLAN_LADDER, self.dense, Candidates(self.chooser, choice, budget))
        if isinstance(reached, Failed):
            raise PassFailed(
                f"the plan gives a network that cannot be proved: {because(reached.last)}",
                "prune this checkpoint by a budget instead",
            )
        made = self._pruned(reached, budget)
        return replace(
            made, plan=plan, report=replace(made.report, amount=plan.amount, importance=plan.importance)
        )

    def _pruned(self, reached: Reached, budget: Amount) -> Pruned:
        own_tensors(reached.proved.module, self.dense.weights.values())
        choice, importance = reached.choice, self.options.importance
        plan = Plan(
            amount=str(budget),
            importance=importance,
            statistics=choice.cut.flow.cut_statistics,
            architecture=self.dense.shapes(),
            groups=list(
                entries_of(choice.cut, choice.groups, choice.scores, f"lowest {importance} for {budget}")
            ),
        )
        return Pruned(
            reached.proved.module, plan, report_of(reached, budget, importance), reached.proved.surgery
        )


def prune_module(
    module: nn.Module,
    inputs: tuple[Any, ...],
    amount: str = "macs:0.5",
    options: Options | None = None,
    losses: Iterable[Callable[[], torch.Tensor]] = (),
) -> Pruned:
    """Cut a copy of `module` to the budget and prove it: `Pruner` for one budget.
    Raises what it raises.
    """
    budget = Amount.parse(amount)
    return Pruner(module, inputs, options, losses).prune(budget)
