"""How wide each group stays, so that a named budget is met."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlopt.errors import UsageError
from mlopt.pruning.coupling import Counter, Counts, Group
from mlopt.pruning.propagation import Propagation
from mlopt.recipe.configs import amount_problem

FEW = 64
CLOSE_ENOUGH = 0.005
"""Half a point of the dense metric: nearer than that, rounding is not mended further."""


@dataclass(frozen=True)
class Amount:
    """`metric` is what is counted, `remove` the share of it that goes, in (0, 1); of `layers`, how many blocks go."""

    metric: str
    remove: float

    @classmethod
    def parse(cls, text: str) -> Amount:
        """`0.5`, `macs:0.5`, `params:0.5`, `channels:0.5`, `latency:0.5`, `layers:2`. Raises `UsageError`."""
        problem = amount_problem(str(text))
        if problem is not None:
            raise UsageError(*problem)
        metric, _, number = str(text).rpartition(":")
        return cls(metric or "macs", float(number))

    def __str__(self) -> str:
        return f"{self.metric}:{self.remove:g}"


@dataclass(frozen=True)
class Widths:
    """How many classes each group keeps, and what was asked and reached (shares of the dense metric that remain)."""

    kept: NDArray[np.int64]
    asked: float
    reached: float
    floor: float
    unrounded: float
    ideal: NDArray[np.float64]
    """What would be kept without rounding, and the share of the metric that would remain."""


def allowed(group: Group, round_to: int, floor: float) -> NDArray[np.int64]:
    """The widths a group may take, ascending: multiples of `round_to` indices, at least `floor` of the group, or all of it."""
    total, step = len(group.classes), group.step(round_to)
    least = max(step, math.ceil(floor * total / step) * step)
    return np.array([*range(least, total, step), total], dtype=np.int64)


def solve(
    counter: Counter, groups: list[Group], scores: list[NDArray[np.float64]], amount: Amount, round_to: int, floor: float, spread: str
) -> Widths:
    """Choose widths. `spread`: `uniform` (every group loses the same share) or `global` (scores are ranked across groups).

    The continuous answer is found by bisection, rounded, and then mended one step at a time where rounding moved it off the target.
    """
    totals = counter.totals
    choices = [allowed(group, round_to, floor) for group in groups]
    least = np.array([choice[0] for choice in choices], dtype=float)

    def measure(counts: Counts) -> float:
        return float(getattr(counts, amount.metric))

    dense = measure(counter.whole())
    target = dense * (1.0 - amount.remove)

    def widths_at(level: float) -> NDArray[np.float64]:
        wanted = np.array([float(np.count_nonzero(score >= level)) for score in scores]) if spread == "global" else totals * (1.0 - level)
        clipped: NDArray[np.float64] = np.clip(wanted, least, totals)
        return clipped

    low, high = 0.0, 1.0 if spread == "uniform" else float(max(score.max() for score in scores)) + 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if measure(counter.of_widths(widths_at(middle))) > target:
            low = middle
        else:
            high = middle
    ideal = widths_at(high)

    def at(positions: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.array([choice[position] for choice, position in zip(choices, positions, strict=True)], dtype=float)

    def error_of(positions: NDArray[np.int64]) -> float:
        return measure(counter.of_widths(at(positions))) - target

    nearest = np.array([int(np.abs(choice - wanted).argmin()) for choice, wanted in zip(choices, ideal, strict=True)])
    starts = [nearest]
    if len(groups) <= FEW:  # few and coarse widths: one start may be stuck far from the target
        starts += [np.array([len(choice) - 1 for choice in choices]), np.zeros(len(choices), dtype=np.int64)]
    index = nearest
    for start in starts:
        if abs(error_of(index)) > CLOSE_ENOUGH * dense or start is nearest:
            trial = _mend_rounding(start, at, error_of, counter, choices, ideal, totals, amount.metric, CLOSE_ENOUGH * dense)
            index = trial if start is nearest or abs(error_of(trial)) < abs(error_of(index)) else index
    kept = at(index)
    reached = measure(counter.of_widths(kept)) / dense
    lowest = measure(counter.of_widths(least)) / dense
    unrounded = measure(counter.of_widths(ideal)) / dense
    return Widths(kept.astype(np.int64), 1.0 - amount.remove, reached, lowest, unrounded, ideal)


def _mend_rounding(
    index: NDArray[np.int64],
    at: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    error_of: Callable[[NDArray[np.int64]], float],
    counter: Counter,
    choices: list[NDArray[np.int64]],
    ideal: NDArray[np.float64],
    totals: NDArray[np.float64],
    metric: str,
    enough: float,
) -> NDArray[np.int64]:
    """One step at a time towards the target, first in the groups that rounding moved furthest the other way."""
    index = index.copy()
    for _ in range(8 * len(choices)):
        error = error_of(index)
        if abs(error) <= enough:
            break
        kept = at(index)
        direction = -1 if error > 0 else 1
        slope = counter.gradient(kept, metric)
        best: tuple[float, int] | None = None
        for position, choice in enumerate(choices):
            moved = index[position] + direction
            if not 0 <= moved < len(choice):
                continue
            change = slope[position] * (choice[moved] - choice[index[position]])
            if change == 0 or abs(error + change) >= abs(error):
                continue
            rank = (float(direction * (ideal[position] - kept[position]) / totals[position]), position)
            best = rank if best is None or rank > best else best
        if best is None:
            break
        index[best[1]] += direction
    return index


def choose(groups: list[Group], scores: list[NDArray[np.float64]], widths: Widths, flow: Propagation) -> NDArray[np.bool_]:
    """Which labels go: in each group the lowest scores, ties by position; true where cut. No dimension of any tensor is left empty."""
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
