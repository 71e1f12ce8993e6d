"""Which labels go, and what that leaves of every dimension."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from mlopt.pruning.labels import Array
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.rule_table import Value, tensors_of


@dataclass(frozen=True)
class Cut:
    """`dropped`: one entry a label, shape `(len(flow.labels),)`; true at the root of
    every class that goes.
    """

    flow: Propagation
    dropped: NDArray[np.bool_]

    def stays(self, labels: Array) -> NDArray[np.bool_]:
        """Which indices of a dimension stay, shape `(size,)`."""
        stay: NDArray[np.bool_] = ~self.dropped[self.flow.labels.find(labels)]
        return stay

    def kept(self, labels: Array) -> int:
        """How many indices of a dimension stay."""
        return int(np.count_nonzero(self.stays(labels)))

    def changed(self, value: Value) -> bool:
        """Whether a tensor (or one of several) loses an index."""
        return any(self.kept(dim) != len(dim) for tensor in tensors_of(value) for dim in tensor)


def changed_statistics(cut: Cut) -> set[Node]:
    """Nodes that average over a dimension that was cut."""
    flow = cut.flow
    return {
        node
        for node in flow.statistics
        if any(cut.changed(flow.values.get(source)) for source in node.all_input_nodes)
    }
