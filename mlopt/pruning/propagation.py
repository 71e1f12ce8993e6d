"""Labels flow over the ATen graph: which indices of which weights live and die together.

The graph of `torch.export` is walked once in order. A rule (`rules/`) says how the labels of an operator's inputs become the labels of
its output. An operator without a rule pins what it touches: it costs compression, never correctness.

The idea follows DepGraph (arXiv 2301.12900) but works on indices instead of layers, so that concatenation, splitting, shuffling, grouped
convolutions and attention heads are the same case: exact re-indexing.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from mlopt.pruning.labels import Array, Labels, pinned

TensorLabels = list[Array]
"""One label array a dimension."""
Value = Any
"""`TensorLabels`, a tuple of them for an operator with several outputs, or None."""

Site = tuple[str, int]
"""A place where one dimension is seen as several factors: (node name, input dimension)."""


@dataclass(frozen=True)
class Term:
    """A count that is a constant times the kept sizes of some dimensions: the MACs of one operator."""

    constant: int
    dims: tuple[Array, ...]
    node: str


@dataclass
class SplitSite:
    """What was decided at one `Site`, and what else could have been."""

    key: tuple[str, tuple[int, ...], int]
    options: list[int]
    labels: Array


Rule = Callable[["Propagation", Node], Value]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the ATen operators of these names (all overloads)."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def rule_of(target: Any) -> Rule | None:
    """The rule of an operator, or None. One that works in place (`relu_`) has the rule of the one that does not."""
    if not isinstance(target, torch._ops.OpOverload):
        return None
    name = target._schema.name.split("::")[1]
    found = RULES.get(name) or RULES.get(name.removesuffix("_"))
    return RULES["pointwise"] if found is None and torch.Tag.pointwise in target.tags else found


def op_name(node: Node) -> str:
    """`linear` for `aten.linear.default`; empty for what is not an ATen call."""
    return node.target._schema.name.split("::")[1] if isinstance(node.target, torch._ops.OpOverload) else ""


def argument(node: Node, position: int, name: str, default: Any = None) -> Any:
    """An argument of a call, given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def size_of(size: Any) -> int:
    """A size as a number: of a symbolic one (a dynamic batch), its value for the example inputs."""
    return int(size) if isinstance(size, int) else int(size.node.hint)


def shape(node: Node) -> tuple[int, ...]:
    """The shape of a node's tensor for the example inputs."""
    return sizes_of(node.meta["val"])


def sizes_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape of a traced tensor for the example inputs."""
    return tuple(size_of(size) for size in tensor.shape)


def user_outputs(program: torch.export.ExportedProgram, results: Any) -> Any:
    """What the module returns, of all outputs of its graph: before it come weights and buffers that forward writes into."""
    return results[len(results) - len(program.graph_signature.user_outputs) :]


@dataclass
class Propagation:
    """One walk over the graph. `choices` says which factor stays cuttable at each kind of split site (index into its options)."""

    program: torch.export.ExportedProgram
    choices: Mapping[tuple[str, tuple[int, ...], int], int] = field(default_factory=dict)
    soft: bool = False
    """Whether dimensions that statistics are taken over may be cut: the pruned network then has statistics of its own."""

    def __post_init__(self) -> None:
        self.labels = Labels()
        self.values: dict[Node, Value] = {}
        self.weights: dict[str, TensorLabels] = {}
        """Labels of each parameter and floating-point buffer, by its qualified name."""
        self.producers: list[tuple[str, Array]] = []
        """The output dimension of every operator that owns a weight: where channels are born. (node, labels)"""
        self.macs: list[Term] = []
        self.sites: dict[Site, SplitSite] = {}
        self.unknown: dict[str, int] = {}
        self.scales: set[str] = set()
        """Names of the weights that scale a normalisation's output."""
        self.computed: list[str] = []
        """Modules whose weights are computed from others: left whole."""
        self.statistics: dict[Node, None] = {}
        """Nodes whose result changes when a dimension they average over is cut (soft walks only)."""
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
            return outputs[node.args[1]] if outputs is not None else None
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

        def collect(value: Value) -> Iterator[Array]:
            if isinstance(value, np.ndarray):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield value
            elif isinstance(value, (list, tuple)):
                for item in value:
                    yield from collect(item)

        yield from collect(list(self.values.values()))

    # What rules are written with.

    def of(self, node: Any) -> TensorLabels:
        """The labels of a tensor node."""
        value: TensorLabels = self.values[node]
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
        """Statistics are taken over these dimensions: pinned, or noted in a soft walk."""
        if self.soft:
            self.statistics[node] = None
        else:
            self.pin(*dims)

    def pin_value(self, value: Value) -> None:
        """Pin every label of a tensor or of a tuple of tensors."""
        if isinstance(value, np.ndarray):
            self.labels.pin(value)
        elif isinstance(value, (list, tuple)):
            for item in value:
                self.pin_value(item)

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
        """Record the MACs of an operator: `constant` times the kept size of each dimension."""
        self.macs.append(Term(constant, tuple(dims), node.name))

    def broadcast(self, sources: list[Any], out: tuple[int, ...]) -> TensorLabels:
        """Element-wise operators: aligned dimensions are united; a broadcast dimension of size one takes the other's labels."""
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

    def split_dim(self, site: Site, owner: str, labels: Array, factors: list[int]) -> list[Array]:
        """One dimension seen as several factors, outermost first: the labels of each.

        A cut of the whole must be a product of cuts of the factors, so only one factor stays cuttable and the labels are united along
        the others. If the labels already repeat along all but one factor, that one is it; else `choices` decides (default: the largest).
        """
        wide = [k for k, size in enumerate(factors) if size > 1]
        if len(wide) <= 1:
            alive = wide[0] if wide else len(factors) - 1
            return [labels if k == alive else pinned(size) for k, size in enumerate(factors)]
        roots = self.labels.find(labels).reshape(factors)
        if not roots.any():
            return [pinned(size) for size in factors]
        options = sorted(wide, key=lambda k: (-factors[k], -k))
        for k in options:
            rows = np.moveaxis(roots, k, 0).reshape(factors[k], -1)
            if (rows == rows[:, :1]).all():
                alive = k
                break
        else:
            key = (owner, tuple(factors), site[1])
            alive = options[self.choices.get(key, 0) % len(options)]
            self.sites[site] = SplitSite(key, options, labels)
        rows = np.moveaxis(labels.reshape(factors), alive, 0).reshape(factors[alive], -1)
        self.union(np.repeat(rows[:, :1], rows.shape[1], axis=1).reshape(-1), rows.reshape(-1))
        return [rows[:, 0].copy() if k == alive else pinned(size) for k, size in enumerate(factors)]

    def merge_dims(self, factors: list[Array]) -> Array:
        """Several dimensions seen as one, outermost first: the inverse of `split_dim`."""
        sizes = [len(array) for array in factors]
        live = [k for k, array in enumerate(factors) if self.labels.live(array)]
        if not live:
            return pinned(math.prod(sizes))
        alive = max(live, key=lambda k: (sizes[k], k))
        for k in live:
            if k != alive:
                self.pin(factors[k])
        view = [1] * len(sizes)
        view[alive] = sizes[alive]
        return np.broadcast_to(factors[alive].reshape(view), sizes).reshape(-1).copy()
