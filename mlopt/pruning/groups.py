"""From labels to groups: channels (or heads) that compete with each other for one
width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mlopt.pruning.labels import PINNED, Array
from mlopt.pruning.propagation import Propagation


@dataclass(frozen=True)
class Group:
    """Channels that compete with each other: one width of the network.

    `classes`: one label root per channel (or head); cutting it removes every index that
    carries it. `unit`: how many indices of the narrowest dimension of a matrix product
    or convolution one class covers (1 for a channel, the head width for a head).
    """

    name: str
    classes: Array
    unit: int

    @property
    def kind(self) -> str:
        """What goes as one: `heads` or `channels`."""
        return "heads" if self.unit > 1 else "channels"

    def step(self, round_to: int) -> int:
        """How many classes make the width a multiple of `round_to`."""
        return max(1, round_to // math.gcd(round_to, self.unit))


def find_groups(flow: Propagation, pinned: Iterable[int] = ()) -> list[Group]:
    """The groups, in graph order. `pinned`: label roots that must not be cut although
    the algebra would allow it.
    """
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
                    if (
                        id(dim) in multiplied
                    ):  # a table of position biases has one column a head, and no width to round
                        unit[root] = min(unit.get(root, count), count)
                    if position == 0 and len(dims) > 1:
                        name_of.setdefault(root, name)
    members: dict[int, list[int]] = {}
    for root in order:
        members.setdefault(top(root), []).append(root)
    groups = []
    for united in members.values():
        for roots in _by_places(united, places):
            if len(roots) > 1:
                name = next((name_of[root] for root in roots if root in name_of), order[roots[0]])
                groups.append(
                    Group(
                        name,
                        np.array(sorted(roots), dtype=np.int64),
                        min(unit.get(root, 1) for root in roots),
                    )
                )
    return groups


MIN_PART = 32
"""Channels of one producer that are read in different places are ranked apart, if each
part has this many.
"""


def _by_places(roots: list[int], places: dict[int, list[tuple[str, int]]]) -> list[list[int]]:
    """Channels compete only with those that are in the same weights: a query and a gate
    from one linear layer do not.
    """
    parts: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for root in roots:
        parts.setdefault(tuple(places.get(root, ())), []).append(root)
    large = [part for part in parts.values() if len(part) >= MIN_PART]
    small = [root for part in parts.values() if len(part) < MIN_PART for root in part]
    return [*large, small] if small else large
