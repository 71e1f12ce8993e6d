"""Labels: a union-find over integers, on numpy arrays.

Every index of every tensor dimension carries one label. Labels that are united are kept
or cut together. Label 0 is *pinned*: it is never cut, and whatever is united with it is
pinned too. The representative of a set is its smallest label, so that 0 always wins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]
"""Labels along one dimension of a tensor, shape `(size,)`."""

PINNED = 0


def pinned(size: int) -> Array:
    """`size` pinned labels."""
    return np.zeros(size, dtype=np.int64)


class Labels:
    """Union-find with vectorised `find` and `union`; amortised near-linear in the
    number of indices.
    """

    def __init__(self) -> None:
        self._parent: Array = np.zeros(1024, dtype=np.int64)
        self._size = 1

    def __len__(self) -> int:
        return self._size

    def fresh(self, size: int) -> Array:
        """`size` new labels, each a set of its own."""
        end = self._size + size
        if end > len(self._parent):
            self._parent = np.concatenate(
                [self._parent, np.zeros(max(end, len(self._parent)), dtype=np.int64)]
            )
        new = np.arange(self._size, end, dtype=np.int64)
        self._parent[self._size : end] = new
        self._size = end
        return new

    def find(self, labels: Array) -> Array:
        """The representative of each label."""
        root = self._parent[labels]
        while True:
            up = self._parent[root]
            if np.array_equal(up, root):
                break
            root = up
        self._parent[labels] = root
        return root

    def union(self, a: Array, b: Array) -> None:
        """Unite `a[i]` with `b[i]` for every i (shapes must be equal, or `b` of size
        one).
        """
        a, b = np.broadcast_arrays(a, b)
        while True:
            ra, rb = self.find(a), self.find(b)
            differ = ra != rb
            if not differ.any():
                return
            low = np.minimum(ra, rb)[differ]
            high = np.maximum(ra, rb)[differ]
            # A root may meet several partners in one batch: it hooks to the smallest,
            # and the loop unites the rest.
            np.minimum.at(self._parent, high, low)

    def pin(self, labels: Array) -> None:
        """Never cut these."""
        self.union(labels, pinned(1))

    def cuttable(self, labels: Array) -> bool:
        """Whether any of these may be cut."""
        return bool(self.find(labels).any())
