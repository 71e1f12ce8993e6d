"""Operators that take or join ranges of a dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from mlopt.pruning.labels import pinned
from mlopt.pruning.nodes import argument, op_name, shape, sizes_of
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.rule_table import TensorLabels, Value, rule


@rule("cat", "concat")
def cat(flow: Propagation, node: Node) -> Value:
    sizes = shape(node)
    dim = int(argument(node, 1, "dim", 0)) % len(sizes)
    parts = [flow.of(part) for part in argument(node, 0, "tensors") if len(shape(part)) == len(sizes)]
    out: TensorLabels = []
    for position in range(len(sizes)):
        if position == dim:
            out.append(np.concatenate([part[position] for part in parts]))
            continue
        for part in parts[1:]:
            flow.union(parts[0][position], part[position])
        out.append(parts[0][position])
    return out


@rule("stack")
def stack(flow: Propagation, node: Node) -> Value:
    sizes = shape(node)
    parts = [flow.of(part) for part in argument(node, 0, "tensors")]
    for part in parts[1:]:
        for a, b in zip(parts[0], part, strict=True):
            flow.union(a, b)
    out = list(parts[0])
    out.insert(int(argument(node, 1, "dim", 0)) % len(sizes), pinned(len(parts)))
    return out


@rule("split_with_sizes", "split", "chunk", "split_copy", "split_with_sizes_copy")
def split(flow: Propagation, node: Node) -> Value:
    """Ranges of one dimension. Equal chunks in the code stay equal only if their cuts
    are equal; the sizes written in forward are renewed later.
    """
    labels = flow.of(node.args[0])
    dim = int(argument(node, 2, "dim", 0)) % len(labels)
    parts = [sizes_of(value)[dim] for value in node.meta["val"]]
    if len(set(parts)) == 1 and len(parts) > 1:
        # `chunk(n)` and `split(size)` compute their sizes from the whole: tie the parts
        # so that they stay equal.
        rows = labels[dim].reshape(len(parts), -1)
        for row in rows[1:]:
            flow.union(rows[0], row)
    flow.resized[node] = None
    out, start = [], 0
    for size in parts:
        out.append([*labels[:dim], labels[dim][start : start + size], *labels[dim + 1 :]])
        start += size
    return tuple(out)


@rule("unbind")
def unbind(flow: Propagation, node: Node) -> Value:
    labels = flow.of(node.args[0])
    dim = int(argument(node, 1, "dim", 0)) % len(labels)
    flow.pin(labels[dim])
    return tuple([*labels[:dim], *labels[dim + 1 :]] for _ in labels[dim])


@rule("select", "select_copy")
def select(flow: Propagation, node: Node) -> Value:
    labels = flow.of(node.args[0])
    dim = int(argument(node, 1, "dim")) % len(labels)
    flow.pin(labels[dim])
    return [*labels[:dim], *labels[dim + 1 :]]


@rule("slice", "slice_copy", "narrow")
def slice_(flow: Propagation, node: Node) -> Value:
    """A range, or every n-th: the labels in it. Its ends are written in the code."""
    labels = flow.of(node.args[0])
    dim = int(argument(node, 1, "dim", 0)) % len(labels)
    sizes = shape(node)
    if sizes[dim] == len(labels[dim]):
        return labels
    step = int(argument(node, 4, "step", 1))
    within = labels[dim][argument(node, 2, "start") : argument(node, 3, "end") : step]
    if len(within) != sizes[dim] or step != 1:
        flow.pin(labels[dim])
        return [*labels[:dim], pinned(sizes[dim]), *labels[dim + 1 :]]
    flow.resized[node] = None
    return [*labels[:dim], within, *labels[dim + 1 :]]


@rule("slice_scatter")
def slice_scatter(flow: Propagation, node: Node) -> Value:
    """A range overwritten: the range and its source are cut together."""
    labels, source = flow.of(node.args[0]), flow.of(node.args[1])
    dim = int(argument(node, 2, "dim", 0)) % len(labels)
    if int(argument(node, 5, "step", 1)) != 1:
        return flow.give_up(node)
    for position, (into, array) in enumerate(zip(labels, source, strict=True)):
        flow.union(
            into[argument(node, 3, "start") : argument(node, 4, "end")] if position == dim else into, array
        )
    if len(source[dim]) != len(labels[dim]):
        flow.resized[node] = None
    return labels


@rule("index", "index_select", "gather")
def index(flow: Propagation, node: Node) -> Value:
    """Picked by value: the indexed dimensions are pinned, the others pass through."""
    labels, sizes = flow.of(node.args[0]), shape(node)
    if op_name(node) == "index_select":
        dim = int(argument(node, 1, "dim")) % len(labels)
        flow.pin(labels[dim])
        return [*labels[:dim], pinned(sizes[dim]), *labels[dim + 1 :]]
    if op_name(node) == "gather":
        return flow.give_up(node)
    picks: Any = node.args[1]
    where = [dim for dim, pick in enumerate(picks) if pick is not None]
    if not where or where != list(range(where[0], where[-1] + 1)):
        return flow.give_up(node)
    for dim in where:
        flow.pin(labels[dim])
        flow.pin_value(flow.of(picks[dim]))
    made = len(sizes) - (len(labels) - len(where))
    return [
        *labels[: where[0]],
        *(pinned(size) for size in sizes[where[0] : where[0] + made]),
        *labels[where[-1] + 1 :],
    ]
