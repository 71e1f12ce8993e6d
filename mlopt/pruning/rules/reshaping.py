"""Operators that only rearrange: labels are re-indexed exactly."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from torch.fx import Node

from mlopt.pruning.factors import merge_dims, split_dim
from mlopt.pruning.labels import pinned
from mlopt.pruning.nodes import argument, shape
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.rule_table import TensorLabels, Value, rule


def boundaries(sizes: tuple[int, ...]) -> list[int]:
    """Strides at which dimensions begin, from the innermost: (2, 3, 4) gives 1, 4, 12,
    24.
    """
    out = [1]
    for size in reversed(sizes):
        out.append(out[-1] * size)
    return out


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_copy")
def view(flow: Propagation, node: Node) -> Value:
    """Both shapes are cut at the union of their boundaries; every input dimension is
    split there, and the pieces merged again.
    """
    source: Any = node.args[0]
    old, new = shape(source), shape(node)
    flow.resized[node] = None
    if 0 in old:
        return flow.give_up(node)
    cuts = sorted({*boundaries(old), *boundaries(new)})
    if any(high % low for low, high in itertools.pairwise(cuts)):
        return flow.give_up(node)  # 6 -> 4 x ... : the factors cross

    def pieces(low: int, high: int) -> list[tuple[int, int]]:
        inside = [cut for cut in cuts if low <= cut <= high]
        return list(itertools.pairwise(inside))[::-1]

    labels = flow.of(source)
    factor: dict[tuple[int, int], np.ndarray] = {}
    low = 1
    for dim in reversed(range(len(old))):
        high = low * old[dim]
        if high > low:
            spans = pieces(low, high)
            split = split_dim(flow, node, dim, labels[dim], [b // a for a, b in spans])
            factor.update(zip(spans, split, strict=True))
        elif flow.labels.cuttable(labels[dim]):
            flow.pin(labels[dim])  # a size-one dimension that vanishes
        low = high
    out: TensorLabels = []
    low = 1
    for size in reversed(new):
        high = low * size
        spans = pieces(low, high)
        parts = [factor[span] for span in spans]
        out.append(pinned(1) if not parts else parts[0] if len(parts) == 1 else merge_dims(flow, parts))
        low = high
    return out[::-1]


@rule("permute")
def permute(flow: Propagation, node: Node) -> Value:
    labels = flow.of(node.args[0])
    return [labels[dim] for dim in argument(node, 1, "dims")]


@rule("t", "numpy_T", "mT")
def transpose_matrix(flow: Propagation, node: Node) -> Value:
    return flow.of(node.args[0])[::-1]


@rule("transpose", "swapaxes")
def transpose(flow: Propagation, node: Node) -> Value:
    labels = list(flow.of(node.args[0]))
    a, b = int(argument(node, 1, "dim")), int(argument(node, 2, "dim1"))
    labels[a], labels[b] = labels[b], labels[a]
    return labels


@rule("unsqueeze")
def unsqueeze(flow: Propagation, node: Node) -> Value:
    labels = list(flow.of(node.args[0]))
    labels.insert(int(argument(node, 1, "dim")) % (len(labels) + 1), pinned(1))
    return labels


@rule("squeeze")
def squeeze(flow: Propagation, node: Node) -> Value:
    labels = flow.of(node.args[0])
    dims: Any = node.args[1] if len(node.args) > 1 else range(len(labels))
    dims = {dim % len(labels) for dim in ([dims] if isinstance(dims, int) else dims)} if labels else set()
    gone = [dim for dim in dims if len(labels[dim]) == 1]
    flow.pin(*(labels[dim] for dim in gone))
    return [array for dim, array in enumerate(labels) if dim not in gone]


@rule("expand", "expand_copy")
def expand(flow: Propagation, node: Node) -> Value:
    """A broadcast dimension is made here: it is fresh, and cut only if what it meets is
    cut.
    """
    labels, sizes = flow.of(node.args[0]), shape(node)
    flow.resized[node] = None
    offset = len(sizes) - len(labels)
    out: TensorLabels = []
    for dim, size in enumerate(sizes):
        array = labels[dim - offset] if dim >= offset else None
        if array is not None and len(array) == size:
            out.append(array)
            continue
        if array is not None:
            flow.pin(array)
        out.append(pinned(size))
    return out


@rule("repeat")
def repeat(flow: Propagation, node: Node) -> Value:
    labels, sizes, times = flow.of(node.args[0]), shape(node), argument(node, 1, "repeats")
    offset = len(sizes) - len(labels)
    return [
        pinned(size) if dim < offset else np.tile(labels[dim - offset], int(times[dim]))
        for dim, size in enumerate(sizes)
    ]


@rule("unfold")
def unfold(flow: Propagation, node: Node) -> Value:
    """Windows along one dimension: it is pinned, and the window is a new last
    dimension.
    """
    labels, sizes = list(flow.of(node.args[0])), shape(node)
    dim = int(argument(node, 1, "dimension")) % len(labels)
    flow.pin(labels[dim])
    labels[dim] = pinned(sizes[dim])
    return [*labels, pinned(sizes[-1])]


@rule("im2col")
def im2col(flow: Propagation, node: Node) -> Value:
    """(N, C, H, W) -> (N, C*k*k, L): a channel becomes k*k neighbouring rows."""
    labels, sizes = flow.of(node.args[0]), shape(node)
    flow.pin(*labels[-2:])
    return [*labels[:-3], np.repeat(labels[-3], sizes[-2] // len(labels[-3])), pinned(sizes[-1])]


@rule("col2im")
def col2im(flow: Propagation, node: Node) -> Value:
    """(N, C*k*k, L) -> (N, C, H, W): the k*k rows of a channel go together."""
    labels, sizes = flow.of(node.args[0]), shape(node)
    flow.pin(labels[-1])
    rows = labels[-2].reshape(sizes[-3], -1)
    flow.union(np.repeat(rows[:, 0], rows.shape[1]), labels[-2])
    return [*labels[:-2], rows[:, 0].copy(), pinned(sizes[-2]), pinned(sizes[-1])]


@rule("pixel_shuffle")
def pixel_shuffle(flow: Propagation, node: Node) -> Value:
    """(C*r*r, H, W) -> (C, H*r, W*r): a channel goes with its r*r sources."""
    labels, sizes = flow.of(node.args[0]), shape(node)
    rows = labels[-3].reshape(sizes[-3], -1)
    flow.union(np.repeat(rows[:, 0], rows.shape[1]), labels[-3])
    return [*labels[:-3], rows[:, 0].copy(), pinned(sizes[-2]), pinned(sizes[-1])]
