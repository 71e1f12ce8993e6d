"""From a captured graph to groups of channels that can be cut, and counters that say what a cut costs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mlopt.pruning import rules
from mlopt.pruning.labels import PINNED, Array
from mlopt.pruning.propagation import RULES, Propagation, Term

assert rules.__all__  # importing the package fills RULES

MAX_ROUNDS = 4


def has_rule(name: str) -> bool:
    """Whether an operator may stay whole in the captured graph."""
    return name in RULES


@dataclass(frozen=True)
class Group:
    """Channels that compete with each other: one width of the network.

    `classes`: one label root per channel (or head); cutting it removes every index that carries it. `unit`: how many indices of the
    narrowest weight dimension one class covers (1 for a channel, the head width for a head).
    """

    name: str
    classes: Array
    unit: int

    def step(self, round_to: int) -> int:
        """How many classes make the width a multiple of `round_to`."""
        return max(1, round_to // math.gcd(round_to, self.unit))


def live_weight(flow: Propagation) -> float:
    """How much of the network could be cut: the score by which layouts are compared."""
    total = 0.0
    for labels in flow.weights.values():
        if labels:
            free = sum(np.count_nonzero(flow.labels.find(dim)) / max(1, len(dim)) for dim in labels)
            total += free * math.prod(len(dim) for dim in labels)
    return total


def propagate(program: torch.export.ExportedProgram) -> Propagation:
    """Walk the graph, and choose at every kind of split site the factor that leaves most to cut.

    Sites written by the same class with the same factors are decided together, last in the graph first; a change is kept only if more
    of the network becomes cuttable. This is what finds that heads can be cut where head widths cannot.
    """
    choices: dict[tuple[str, tuple[int, ...], int], int] = {}
    best = Propagation(program, dict(choices))
    score = live_weight(best)
    for _ in range(MAX_ROUNDS):
        improved = False
        sites = {site.key: len(site.options) for site in reversed(best.sites.values()) if not best.labels.live(site.labels)}
        for key, options in sites.items():
            for _ in range(1, options):
                trial = {**choices, key: choices.get(key, 0) + 1}
                flow = Propagation(program, trial)
                if live_weight(flow) > score:
                    best, score, choices, improved = flow, live_weight(flow), trial, True
                    break
        if not improved:
            return best
    return best


def find_groups(flow: Propagation, pinned: Iterable[int] = ()) -> list[Group]:
    """The groups, in graph order. `pinned`: label roots that must not be cut although the algebra would allow it."""
    forbidden = set(pinned) | {PINNED}
    together = np.arange(len(flow.labels), dtype=np.int64)

    def top(label: int) -> int:
        while together[label] != label:
            together[label] = together[together[label]]
            label = int(together[label])
        return label

    order: dict[int, str] = {}
    for name, labels in flow.producers:
        roots = [root for root in dict.fromkeys(flow.labels.find(labels).tolist()) if root not in forbidden]
        for root in roots:
            order.setdefault(root, name)
            together[top(root)] = top(roots[0])
    unit: dict[int, int] = {}
    name_of: dict[int, str] = {}
    for name, dims in flow.weights.items():
        for position, dim in enumerate(dims):
            found, counts = np.unique(flow.labels.find(dim), return_counts=True)
            for root, count in zip(found.tolist(), counts.tolist(), strict=True):
                if root in order:
                    unit[root] = min(unit.get(root, count), count)
                    if position == 0 and len(dims) > 1:
                        name_of.setdefault(root, name)
    members: dict[int, list[int]] = {}
    for root in order:
        members.setdefault(top(root), []).append(root)
    groups = []
    for roots in members.values():
        if len(roots) > 1:
            name = next((name_of[root] for root in roots if root in name_of), order[roots[0]])
            groups.append(Group(name, np.array(sorted(roots), dtype=np.int64), min(unit.get(root, 1) for root in roots)))
    return groups


@dataclass(frozen=True)
class Counts:
    """What one width assignment costs, all in units (not millions)."""

    macs: float
    params: float
    channels: float


class Counter:
    """MACs, parameters and channels as a function of how many classes each group keeps; exact for a mask."""

    def __init__(self, flow: Propagation, groups: list[Group], parameters: set[str], batch: int) -> None:
        """`parameters`: the names of weights that count as parameters; `batch`: MACs are given for one sample."""
        self._roots: list[Array] = []
        seen: dict[bytes, int] = {}

        def dim_id(labels: Array) -> int:
            roots = flow.labels.find(labels)
            key = roots.tobytes()
            if key not in seen:
                seen[key] = len(self._roots)
                self._roots.append(roots)
            return seen[key]

        def compile_terms(terms: Iterable[Term]) -> list[tuple[float, list[int]]]:
            return [(float(term.constant), [dim_id(dim) for dim in term.dims]) for term in terms]

        self._macs = [(constant / batch, ids) for constant, ids in compile_terms(flow.macs)]
        self._params = compile_terms(Term(1, tuple(dims), name) for name, dims in flow.weights.items() if name in parameters)
        self._batch = batch
        group_of = np.full(len(flow.labels), -1, dtype=np.int64)
        for index, group in enumerate(groups):
            group_of[group.classes] = index
        self.base = np.zeros(len(self._roots))
        self.share = np.zeros((len(self._roots), len(groups)))
        for position, roots in enumerate(self._roots):
            owners = group_of[roots]
            self.base[position] = np.count_nonzero(owners < 0)
            which, counts = np.unique(owners[owners >= 0], return_counts=True)
            for index, count in zip(which.tolist(), counts.tolist(), strict=True):
                self.share[position, index] = count / len(groups[index].classes)
        self._units = np.array([group.unit for group in groups], dtype=float)

    def of_widths(self, kept: NDArray[np.float64]) -> Counts:
        """`kept[i]` classes in group i (fractions allowed)."""
        return self._evaluate(self.base + self.share @ kept, float(self._units @ kept))

    def of_mask(self, dropped: NDArray[np.bool_], kept: NDArray[np.float64]) -> Counts:
        """Exact: `dropped[root]` says which labels are cut."""
        return self._evaluate(np.array([np.count_nonzero(~dropped[roots]) for roots in self._roots], dtype=float), float(self._units @ kept))

    def _evaluate(self, sizes: NDArray[np.float64], channels: float) -> Counts:
        def total(terms: list[tuple[float, list[int]]]) -> float:
            return float(sum(constant * math.prod(sizes[ids].tolist()) for constant, ids in terms))

        return Counts(total(self._macs), total(self._params), channels)

    def gradient(self, kept: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
        """How much the metric changes with one class more in each group, to first order."""
        if metric == "channels":
            return self._units.copy()
        sizes = np.maximum(self.base + self.share @ kept, 1e-9)
        by_dim = np.zeros(len(sizes))
        for constant, ids in self._macs if metric == "macs" else self._params:
            value = constant * math.prod(sizes[ids].tolist())
            for position in ids:
                by_dim[position] += value / sizes[position]
        return np.asarray(by_dim @ self.share)
