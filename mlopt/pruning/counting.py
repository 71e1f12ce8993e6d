"""What a network costs as a function of its widths: MACs, parameters, channels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlopt.pruning.groups import Group
from mlopt.pruning.labels import Array
from mlopt.pruning.propagation import Propagation, Term


@dataclass(frozen=True)
class Counts:
    """What one width assignment costs, all in units (not millions)."""

    macs: float
    params: float
    channels: float


class Counter:
    """MACs, parameters and channels as a function of how many classes each group keeps;
    exact for a mask.
    """

    def __init__(self, flow: Propagation, groups: list[Group], parameters: set[str], batch: int) -> None:
        """`parameters`: the names of weights that count as parameters; `batch`: MACs
        are given for one sample.
        """
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
        params = compile_terms(
            Term(1, tuple(dims), name) for name, dims in flow.weights.items() if name in parameters
        )
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
        """Constants, shape (terms,), and positions of their dimensions, (terms, most
        dimensions), padded with a dimension of size one.
        """
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
        return self._evaluate(
            np.array([np.count_nonzero(~dropped[roots]) for roots in self._roots], dtype=float),
            float(self._units @ kept),
        )

    def _evaluate(self, sizes: NDArray[np.float64], channels: float) -> Counts:
        padded = np.append(sizes, 1.0)

        def total(table: tuple[NDArray[np.float64], NDArray[np.int64]]) -> float:
            constants, positions = table
            return float((constants * padded[positions].prod(axis=1)).sum()) if len(constants) else 0.0

        return Counts(total(self._macs), total(self._params), channels)

    def gradient(self, kept: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
        """How much the metric changes with one class more in each group, to first
        order.
        """
        if metric == "channels":
            return self._units.copy()
        sizes = np.maximum(self.base + self.share @ kept, 1e-9)
        padded, by_dim = np.append(sizes, 1.0), np.zeros(len(sizes) + 1)
        constants, positions = self._macs if metric == "macs" else self._params
        if len(constants):
            values = constants * padded[positions].prod(axis=1)
            np.add.at(by_dim, positions, values[:, None] / padded[positions])
        return np.asarray(by_dim[:-1] @ self.share)
