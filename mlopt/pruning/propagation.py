"""Labels flow over the ATen graph: which indices of which weights are kept or cut
together.

The graph of `torch.export` is walked once in order. A rule (`rules/`) says how the
labels of an operator's inputs become the labels of its output. An operator without a
rule pins what it touches: it costs compression, never correctness.

The idea follows DepGraph (arXiv 2301.12900) but works on indices instead of layers, so
that concatenation, splitting, shuffling, grouped convolutions and attention heads are
the same case: exact re-indexing.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from mlopt.pruning.factors import Layout, Split
from mlopt.pruning.labels import Array, Labels, pinned
from mlopt.pruning.nodes import sizes_of, user_outputs
from mlopt.pruning.rule_table import RULES, TensorLabels, Value, rule_of, tensors_of


@dataclass(frozen=True)
class Term:
    """A count that is a constant times the kept sizes of some dimensions: the MACs of
    one operator.
    """

    constant: int
    dims: tuple[Array, ...]
    node: str


@dataclass
class Propagation:
    """One walk over the graph. Afterwards it holds the labels of every tensor, and what
    the rules noted on the way.
    """

    program: torch.export.ExportedProgram
    layout: Layout = field(default_factory=dict)
    cut_statistics: bool = False
    """Whether dimensions that statistics are taken over may be cut: the pruned network
    then has statistics of its own.
    """

    def __post_init__(self) -> None:
        self.labels = Labels()
        self.values: dict[Node, Value] = {}
        self.weights: dict[str, TensorLabels] = {}
        """Labels of each parameter and floating-point buffer, by its qualified name."""
        self.producers: list[tuple[str, Array]] = []
        """The output dimension of every operator that owns a weight: where channels are
        made. (node name, labels)
        """
        self.macs: list[Term] = []
        self.splits: dict[tuple[str, int], Split] = {}
        """What was decided for each dimension that a view splits: by node name and
        input dimension.
        """
        self.unknown: dict[str, int] = {}
        self.scales: set[str] = set()
        """Names of the weights that scale a normalisation's output."""
        self.computed: list[str] = []
        """Modules whose weights are computed from others: left whole."""
        self.statistics: dict[Node, None] = {}
        """Nodes whose result changes when a dimension they average over is cut (only
        with `cut_statistics`).
        """
        self.resized: dict[Node, None] = {}
        """Nodes whose sizes are written in forward (view, split, ...), in order."""
        self._constant: set[Node] = set()
        signature = self.program.graph_signature
        self._weight_of = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        for node in self.program.graph.nodes:
            self.values[node] = self._visit(node)

    def _visit(self, node: Node) -> Value:
        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op == "output":
            for source in user_outputs(self.program, node.args[0]):
                if isinstance(source, Node):
                    self.pin_value(self.values[source])
            return None
        if node.op != "call_function":
            return None
        if node.all_input_nodes and all(source in self._constant for source in node.all_input_nodes):
            self._constant.add(node)
        if node.target is operator.getitem:
            outputs: Any = self.values[node.all_input_nodes[0]]
            picked: Value = outputs[node.args[1]] if outputs is not None else None
            return picked
        found = rule_of(node.target)
        if found is RULES["pointwise"] and not isinstance(node.meta.get("val"), torch.Tensor):
            found = None
        return found(self, node) if found is not None else self.give_up(node)

    def _placeholder(self, node: Node) -> Value:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return None
        name = self._weight_of.get(node.name)
        if name is None:
            return self.all_pinned(node)
        self._constant.add(node)
        if not value.is_floating_point():
            return self.all_pinned(node)
        self.weights[name] = [self.labels.fresh(size) for size in sizes_of(value)]
        return self.weights[name]

    def dimensions(self) -> Iterator[Array]:
        """Every distinct label array of any tensor."""
        seen: set[int] = set()
        for value in self.values.values():
            for tensor in tensors_of(value):
                for array in tensor:
                    if id(array) not in seen:
                        seen.add(id(array))
                        yield array

    # What rules are written with.

    def of(self, node: Any) -> TensorLabels:
        """The labels of a tensor node."""
        value = self.values[node]
        assert isinstance(value, list), f"{node} gives no single tensor"
        return value

    def scale(self, node: Any) -> None:
        """Note that this node is the scale of a normalisation."""
        if isinstance(node, Node) and node.name in self._weight_of:
            self.scales.add(self._weight_of[node.name])

    def is_constant(self, node: Any) -> bool:
        """Whether the tensor is made of weights alone."""
        return node in self._constant

    def union(self, a: Array, b: Array) -> None:
        self.labels.union(a, b)

    def pin(self, *arrays: Array) -> None:
        for array in arrays:
            self.labels.pin(array)

    def average(self, node: Node, *dims: Array) -> None:
        """Statistics are taken over these dimensions: pinned, or noted where
        `cut_statistics` allows to cut them.
        """
        if self.cut_statistics:
            self.statistics[node] = None
        else:
            self.pin(*dims)

    def pin_value(self, value: Value) -> None:
        """Pin every label of a tensor or of a tuple of tensors."""
        for tensor in tensors_of(value):
            self.pin(*tensor)

    def all_pinned(self, node: Node) -> Value:
        """Pinned labels in the shape of a node's output."""

        def of(value: Any) -> Value:
            if isinstance(value, torch.Tensor):
                return [pinned(size) for size in sizes_of(value)]
            return tuple(of(item) for item in value) if isinstance(value, (tuple, list)) else None

        return of(node.meta.get("val"))

    def give_up(self, node: Node) -> Value:
        """No rule: pin everything the operator touches."""
        sources = [source for source in node.all_input_nodes if self.values.get(source) is not None]
        if sources:
            self.unknown[str(node.target)] = self.unknown.get(str(node.target), 0) + 1
        for source in sources:
            self.pin_value(self.values[source])
        return self.all_pinned(node)

    def product(self, node: Node, constant: int, *dims: Array) -> None:
        """Record the MACs of an operator: `constant` times the kept size of each
        dimension.
        """
        self.macs.append(Term(constant, tuple(dims), node.name))

    def broadcast(self, sources: list[Any], out: tuple[int, ...]) -> TensorLabels:
        """Element-wise operators: aligned dimensions are united; a broadcast dimension
        of size one takes the other's labels.
        """
        result: list[Array | None] = [None] * len(out)
        for source in sources:
            labels = self.of(source)
            offset = len(out) - len(labels)
            for position, array in enumerate(labels):
                target = position + offset
                if len(array) != out[target]:
                    self.pin(array)
                elif result[target] is None:
                    result[target] = array
                elif array is not result[target]:
                    self.union(result[target], array)  # type: ignore[arg-type]
        return [pinned(out[i]) if array is None else array for i, array in enumerate(result)]
