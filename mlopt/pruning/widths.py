"""How wide each group stays, so that a named budget is met."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlopt.pruning.budget import Amount
from mlopt.pruning.counting import Counter
from mlopt.pruning.groups import Group
from mlopt.pruning.propagation import Propagation

FEW = 64
CLOSE_ENOUGH = 0.005
"""Half a point of the dense metric: nearer than that, rounding is not corrected
further.
"""


@dataclass(frozen=True)
class Widths:
    """How many classes each group keeps, and what was asked (a share of the dense
    metric that remains).
    """

    kept: NDArray[np.int64]
    asked: float
    floor: float
    unrounded: float
    ideal: NDArray[np.float64]
    """What would be kept without rounding, and the share of the metric that would
    remain.
    """


def allowed(group: Group, round_to: int, floor: float) -> NDArray[np.int64]:
    """The widths a group may take, ascending: multiples of `round_to` indices, at least
    `floor` of the group, or all of it.
    """
    total, step = len(group.classes), group.step(round_to)
    least = max(step, math.ceil(floor * total / step) * step)
    return np.array([*range(least, total, step), total], dtype=np.int64)


@dataclass(frozen=True)
class Limits:
    """How widths may be chosen: multiples of `round_to`, at least `floor` of the group.

    `spread`: `uniform` (every group loses the same share) or `global` (scores are
    ranked across groups).
    """

    round_to: int
    floor: float
    spread: str


class _Search:
    """The widths that each group may have, and how far each assignment of them is from
    the target.

    An assignment is a position in `allowed` for each group: shape (groups,).
    """

    def __init__(self, counter: Counter, groups: list[Group], amount: Amount, limits: Limits) -> None:
        self.counter, self.metric = counter, amount.metric
        self.allowed = [allowed(group, limits.round_to, limits.floor) for group in groups]
        self.least = np.array([widths[0] for widths in self.allowed], dtype=float)
        self.dense = self.measure(counter.totals)
        self.target = self.dense * (1.0 - amount.remove)

    def measure(self, kept: NDArray[np.float64]) -> float:
        """The metric when each group keeps so many classes."""
        return float(getattr(self.counter.of_widths(kept), self.metric))

    def ideal(self, scores: list[NDArray[np.float64]], spread: str) -> NDArray[np.float64]:
        """Widths that meet the target, without rounding: found by bisection over one
        level for all groups.
        """
        totals = self.counter.totals

        def widths_at(level: float) -> NDArray[np.float64]:
            by_score = spread == "global"
            wanted = (
                np.array([float(np.count_nonzero(score >= level)) for score in scores])
                if by_score
                else totals * (1.0 - level)
            )
            clipped: NDArray[np.float64] = np.clip(wanted, self.least, totals)
            return clipped

        low, high = 0.0, 1.0 if spread == "uniform" else float(max(score.max() for score in scores)) + 1.0
        for _ in range(50):
            middle = (low + high) / 2
            if self.measure(widths_at(middle)) > self.target:
                low = middle
            else:
                high = middle
        return widths_at(high)

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """The widths of an assignment."""
        return np.array(
            [widths[position] for widths, position in zip(self.allowed, positions, strict=True)], dtype=float
        )

    def error(self, positions: NDArray[np.int64]) -> float:
        """How much an assignment leaves above the target."""
        return self.measure(self.at(positions)) - self.target

    def rounded(self, ideal: NDArray[np.float64]) -> NDArray[np.int64]:
        """The assignment nearest to the target among those that a few starts lead
        to."""
        nearest = np.array(
            [
                int(np.abs(widths - wanted).argmin())
                for widths, wanted in zip(self.allowed, ideal, strict=True)
            ]
        )
        best = self._towards_target(nearest, ideal)
        if len(self.allowed) <= FEW:  # few and coarse widths: one start may be stuck far from the target
            widest = np.array([len(widths) - 1 for widths in self.allowed])
            for start in (widest, np.zeros(len(self.allowed), dtype=np.int64)):
                if abs(self.error(best)) > CLOSE_ENOUGH * self.dense:
                    trial = self._towards_target(start, ideal)
                    best = trial if abs(self.error(trial)) < abs(self.error(best)) else best
        return best

    def _towards_target(self, start: NDArray[np.int64], ideal: NDArray[np.float64]) -> NDArray[np.int64]:
        """One step at a time towards the target, first in the groups that rounding
        moved furthest the other way.
        """
        index = start.copy()
        for _ in range(8 * len(self.allowed)):
            error = self.error(index)
            if abs(error) <= CLOSE_ENOUGH * self.dense:
                break
            kept = self.at(index)
            direction = -1 if error > 0 else 1
            slope = self.counter.gradient(kept, self.metric)
            best: tuple[float, int] | None = None
            for position, widths in enumerate(self.allowed):
                moved = index[position] + direction
                if not 0 <= moved < len(widths):
                    continue
                change = slope[position] * (widths[moved] - widths[index[position]])
                if change == 0 or abs(error + change) >= abs(error):
                    continue
                rank = (
                    float(direction * (ideal[position] - kept[position]) / self.counter.totals[position]),
                    position,
                )
                best = rank if best is None or rank > best else best
            if best is None:
                break
            index[best[1]] += direction
        return index


def solve(
    counter: Counter,
    groups: list[Group],
    scores: list[NDArray[np.float64]],
    amount: Amount,
    limits: Limits,
) -> Widths:
    """Choose widths. `scores`: one array a group, one number a class.

    The continuous answer is found by bisection, rounded, and then corrected one step at
    a time where rounding moved it off the target.
    """
    search = _Search(counter, groups, amount, limits)
    ideal = search.ideal(scores, limits.spread)
    kept = search.at(search.rounded(ideal))
    return Widths(
        kept=kept.astype(np.int64),
        asked=1.0 - amount.remove,
        floor=search.measure(search.least) / search.dense,
        unrounded=search.measure(ideal) / search.dense,
        ideal=ideal,
    )


def choose(
    groups: list[Group], scores: list[NDArray[np.float64]], widths: Widths, flow: Propagation
) -> NDArray[np.bool_]:
    """Which labels go: in each group the lowest scores, ties by position; true where
    cut. No dimension of any tensor is left empty.
    """
    dropped = np.zeros(len(flow.labels), dtype=bool)
    rank = np.zeros(len(flow.labels))
    for group, score, kept in zip(groups, scores, widths.kept.tolist(), strict=True):
        order = np.argsort(score, kind="stable")
        dropped[group.classes[order[: len(group.classes) - kept]]] = True
        rank[group.classes] = score
    for labels in flow.dimensions():
        roots = flow.labels.find(labels)
        if len(roots) and dropped[roots].all():
            dropped[roots[rank[roots].argmax()]] = False
    return dropped
