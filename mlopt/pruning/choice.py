"""Which widths and which labels go for a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mlopt.pruning.analysis import Analysis, Dense
from mlopt.pruning.budget import Amount
from mlopt.pruning.counting import Counter, Counts
from mlopt.pruning.cut import Cut
from mlopt.pruning.groups import Group
from mlopt.pruning.importance import score_classes
from mlopt.pruning.options import CLOSE, ROUND_TO, Declined, Options
from mlopt.pruning.widths import Limits, Widths, choose, solve


@dataclass(frozen=True)
class Rounding:
    """What it cost to round widths to multiples of `round_to`.

    Shares of the dense metric that remain, and shares of the importance that is kept:
    each with the rounded widths and with those that would meet the budget exactly.
    """

    round_to: int
    reached: float
    reached_unrounded: float
    importance_kept: float
    importance_kept_unrounded: float


@dataclass(frozen=True)
class NotRounded:
    """No width was rounded: a plan named the indices, or whole blocks were left out. An
    empty object in JSON.
    """


@dataclass(frozen=True)
class Choice:
    """Widths for one set of groups, and the labels that go."""

    analysis: Analysis
    groups: list[Group]
    widths: Widths
    cut: Cut
    before: Counts
    after: Counts
    reached: float
    rounding: Rounding | NotRounded
    scores: list[NDArray[np.float64]]

    @property
    def miss(self) -> float:
        """How far from the budget, as a share of the dense metric."""
        return abs(self.reached - self.widths.asked)


@dataclass(frozen=True)
class _Scored:
    """Groups with what does not depend on how their widths are rounded."""

    analysis: Analysis
    groups: list[Group]
    counter: Counter
    scores: list[NDArray[np.float64]]


class Chooser:
    """Finds the cut of one dense module for any budget."""

    def __init__(
        self, dense: Dense, options: Options, gradients: dict[str, torch.Tensor] | None = None
    ) -> None:
        """`gradients`: of the loss, by weight, for `importance="taylor"`."""
        self.dense, self.options, self.gradients = dense, options, gradients

    def best(self, budget: Amount) -> Choice:
        """Without touching what normalisations average over, if the budget can be met
        so.

        Raises `Declined` when there is nothing to cut.
        """
        whole = self.dense.analysis()
        best = self.of_groups(whole, whole.groups, budget)
        if best is None or best.reached > best.widths.asked + CLOSE:
            wider = self.dense.analysis(cut_statistics=True)
            other = self.of_groups(wider, wider.groups, budget)
            if other is not None and (best is None or other.reached < best.reached - CLOSE):
                best = other
        if best is None:
            raise Declined(
                why_nothing(self.dense.analysis(cut_statistics=True), self.options.round_to or ROUND_TO)
            )
        return best

    def of_groups(self, analysis: Analysis, groups: list[Group], budget: Amount) -> Choice | None:
        """The cut of these groups alone. None: there is nothing to cut in them."""
        if not groups:
            return None
        options = self.options
        scores = score_classes(
            analysis.flow, groups, self.dense.weights, options.importance, self.gradients, options.seed
        )
        scored = _Scored(analysis, groups, analysis.counter(groups), scores)
        if options.round_to is not None:
            return self._rounded(scored, budget, options.round_to)
        best: Choice | None = None
        for round_to in (ROUND_TO, 4, 2, 1):
            choice = self._rounded(scored, budget, round_to)
            if choice is not None and (best is None or choice.miss < best.miss - CLOSE / 3):
                best = choice
            if best is not None and best.miss <= CLOSE:
                break
        return best

    def _rounded(self, scored: _Scored, budget: Amount, round_to: int) -> Choice | None:
        analysis, groups, counter, scores = scored.analysis, scored.groups, scored.counter, scored.scores
        limits = Limits(round_to, self.options.floor, self.options.spread)
        widths = solve(counter, groups, scores, budget, limits)
        dropped = choose(groups, scores, widths, analysis.flow)
        if not dropped.any():
            return None
        kept = kept_of(groups, dropped)
        before, after = counter.whole(), counter.of_mask(dropped, kept)
        reached = getattr(after, budget.metric) / getattr(before, budget.metric)
        return Choice(
            analysis=analysis,
            groups=groups,
            widths=replace(widths, kept=kept.astype(np.int64)),
            cut=Cut(analysis.flow, dropped),
            before=before,
            after=after,
            reached=reached,
            rounding=Rounding(
                round_to=round_to,
                reached=reached,
                reached_unrounded=widths.unrounded,
                importance_kept=_importance_kept(scores, kept),
                importance_kept_unrounded=_importance_kept(scores, widths.ideal),
            ),
            scores=scores,
        )


def choice_of(dense: Dense, cut: Cut, analysis: Analysis) -> Choice:
    """A cut that was decided elsewhere (by a plan), with what it costs."""
    counter = analysis.counter()
    kept = kept_of(analysis.groups, cut.dropped)
    before, after = counter.whole(), counter.of_mask(cut.dropped, kept)
    reached = after.macs / before.macs
    return Choice(
        analysis=analysis,
        groups=analysis.groups,
        widths=Widths(kept.astype(np.int64), reached, reached, reached, kept),
        cut=cut,
        before=before,
        after=after,
        reached=reached,
        rounding=NotRounded(),
        scores=score_classes(analysis.flow, analysis.groups, dense.weights, "l2"),
    )


def kept_of(groups: list[Group], dropped: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How many classes each group keeps."""
    return np.array([np.count_nonzero(~dropped[group.classes]) for group in groups], dtype=float)


def _importance_kept(scores: list[NDArray[np.float64]], kept: NDArray[np.float64]) -> float:
    """Share of all scores that the best `kept[i]` of each group hold."""
    total = sum(float(score.sum()) for score in scores)
    best = sum(
        float(np.sort(score)[::-1][: round(k)].sum()) for score, k in zip(scores, kept.tolist(), strict=True)
    )
    return best / max(total, 1e-30)


def why_nothing(analysis: Analysis, round_to: int) -> str:
    """The likeliest reason why no group can be cut."""
    flow = analysis.flow
    if not flow.producers:
        return "the model has no convolution, linear layer or embedding"
    if analysis.groups:
        return f"every width is already at its floor or below two multiples of {round_to}; lower round_to"
    if flow.computed:
        remedy = "torch.nn.utils.parametrize.remove_parametrizations makes them plain weights"
        return (
            "every width touches weights that are computed from others or from a hook"
            f" ({', '.join(flow.computed)}); {remedy}"
        )
    if flow.unknown:
        return (
            "every width touches the input, the output or an operator without a rule"
            f" ({', '.join(sorted(flow.unknown))})"
        )
    return "every width is fixed by the network's input, its output, or by what --keep names"
