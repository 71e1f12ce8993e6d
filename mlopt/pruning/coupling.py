"""From a captured graph to groups of channels that can be cut, and counters that say what a cut costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlopt.pruning import rules
from mlopt.pruning.labels import PINNED, Array
from mlopt.pruning.propagation import Propagation, Term, rule_of

assert rules.__all__  # importing the package fills RULES

MAX_ROUNDS = 4
MAX_WALKS = 120


def has_rule(target: Any) -> bool:
    """Whether an operator may stay whole in the captured graph."""
    return rule_of(target) is not None


@dataclass(frozen=True)
class Group:
    """Channels that compete with each other: one width of the network.

    `classes`: one label root per channel (or head); cutting it removes every index that carries it. `unit`: how many indices of the
    narrowest dimension of a matrix product or convolution one class covers (1 for a channel, the head width for a head).
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


def propagate(program: torch.export.ExportedProgram, soft: bool = False, facts: Callable[[Propagation], None] | None = None) -> Propagation:
    """Walk the graph, and choose at every kind of split site the factor that leaves most to cut.

    Sites written by the same class with the same factors are decided together, last in the graph first; a change is kept only if more
    of the network becomes cuttable. This is what finds that heads can be cut where head widths cannot.
    `soft`: as in `Propagation`. `facts`: what else unites or pins labels, applied to every walk.
    """

    def walk(choices: dict[tuple[str, tuple[int, ...], int], int]) -> Propagation:
        flow = Propagation(program, choices, soft)
        if facts is not None:
            facts(flow)
        return flow

    choices: dict[tuple[str, tuple[int, ...], int], int] = {}
    best = walk(dict(choices))
    score = live_weight(best)
    walks = 0
    for _ in range(MAX_ROUNDS):
        improved = False
        sites = {site.key: len(site.options) for site in reversed(best.sites.values()) if not best.labels.live(site.labels)}
        every = dict.fromkeys(site.key for site in reversed(best.sites.values()))
        # Queries have more heads than keys where they are grouped: all sites of such a class change together or not at all.
        together = [[key for key in every if key[0] == owner] for owner in dict.fromkeys(key[0] for key in sites)]
        alone = [[key] for key, options in sites.items() for _ in range(1, options)]
        for keys in [*(keys for keys in together if len(keys) > 1), *alone]:
            if walks >= MAX_WALKS:
                return best
            trial = {**choices, **{key: choices.get(key, 0) + 1 for key in keys}}
            flow, walks = walk(trial), walks + 1
            if live_weight(flow) > score:
                best, score, choices, improved = flow, live_weight(flow), trial, True
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
    places: dict[int, list[tuple[str, int]]] = {}
    multiplied = {id(dim) for term in flow.macs for dim in term.dims}
    for name, dims in flow.weights.items():
        for position, dim in enumerate(dims):
            found, counts = np.unique(flow.labels.find(dim), return_counts=True)
            for root, count in zip(found.tolist(), counts.tolist(), strict=True):
                if root in order:
                    places.setdefault(root, []).append((name, position))
                    if id(dim) in multiplied:  # a table of position biases has one column a head, and no width to round
                        unit[root] = min(unit.get(root, count), count)
                    if position == 0 and len(dims) > 1:
                        name_of.setdefault(root, name)
    members: dict[int, list[int]] = {}
    for root in order:
        members.setdefault(top(root), []).append(root)
    groups = []
    for united in members.values():
        for roots in _alike(united, places):
            if len(roots) > 1:
                name = next((name_of[root] for root in roots if root in name_of), order[roots[0]])
                groups.append(Group(name, np.array(sorted(roots), dtype=np.int64), min(unit.get(root, 1) for root in roots)))
    return groups


MIN_PART = 32
"""Channels of one producer that are read in different places are ranked apart, if each part has this many."""


def _alike(roots: list[int], places: dict[int, list[tuple[str, int]]]) -> list[list[int]]:
    """Channels compete only with those that live in the same weights: a query and a gate from one linear layer do not."""
    parts: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for root in roots:
        parts.setdefault(tuple(places.get(root, ())), []).append(root)
    large = [part for part in parts.values() if len(part) >= MIN_PART]
    small = [root for part in parts.values() if len(part) < MIN_PART for root in part]
    return [*large, small] if small else large


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

        macs = [(constant / batch, ids) for constant, ids in compile_terms(flow.macs)]
        params = compile_terms(Term(1, tuple(dims), name) for name, dims in flow.weights.items() if name in parameters)
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
        self.totals = np.array([len(group.classes) for group in groups], dtype=float)
        self._units = np.array([group.unit for group in groups], dtype=float)
        self._macs, self._params = self._table(macs), self._table(params)

    def _table(self, terms: list[tuple[float, list[int]]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Constants, shape (terms,), and positions of their dimensions, (terms, most dimensions), padded with a dimension of size one."""
        most = max((len(ids) for _, ids in terms), default=0)
        one = len(self._roots)
        positions = np.full((len(terms), most), one, dtype=np.int64)
        for row, (_, ids) in enumerate(terms):
            positions[row, : len(ids)] = ids
        return np.array([constant for constant, _ in terms]), positions

    def whole(self) -> Counts:
        """Nothing cut."""
        return self.of_widths(self.totals)

    def of_widths(self, kept: NDArray[np.float64]) -> Counts:
        """`kept[i]` classes in group i (fractions allowed)."""
        return self._evaluate(self.base + self.share @ kept, float(self._units @ kept))

    def of_mask(self, dropped: NDArray[np.bool_], kept: NDArray[np.float64]) -> Counts:
        """Exact: `dropped[root]` says which labels are cut."""
        return self._evaluate(np.array([np.count_nonzero(~dropped[roots]) for roots in self._roots], dtype=float), float(self._units @ kept))

    def _evaluate(self, sizes: NDArray[np.float64], channels: float) -> Counts:
        padded = np.append(sizes, 1.0)

        def total(table: tuple[NDArray[np.float64], NDArray[np.int64]]) -> float:
            constants, positions = table
            return float((constants * padded[positions].prod(axis=1)).sum()) if len(constants) else 0.0

        return Counts(total(self._macs), total(self._params), channels)

    def gradient(self, kept: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
        """How much the metric changes with one class more in each group, to first order."""
        if metric == "channels":
            return self._units.copy()
        sizes = np.maximum(self.base + self.share @ kept, 1e-9)
        padded, by_dim = np.append(sizes, 1.0), np.zeros(len(sizes) + 1)
        constants, positions = self._macs if metric == "macs" else self._params
        if len(constants):
            values = constants * padded[positions].prod(axis=1)
            np.add.at(by_dim, positions, values[:, None] / padded[positions])
        return np.asarray(by_dim[:-1] @ self.share)
