"""Operators that mix the elements along a dimension: that dimension is pinned, the
others pass through.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.fx import Node

from mlopt.pruning.labels import pinned
from mlopt.pruning.nodes import argument, op_name, shape, sizes_of
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.rule_table import TensorLabels, Value, rule


def dims_of(node: Node, rank: int, position: int = 1) -> set[int]:
    """The dimensions argument, normalised; None or empty means all."""
    dims = argument(node, position, "dim")
    if isinstance(dims, int):
        dims = [dims]
    return {dim % rank for dim in dims} if dims else set(range(rank))


@rule(
    "mean",
    "sum",
    "amax",
    "amin",
    "var",
    "std",
    "prod",
    "any",
    "all",
    "logsumexp",
    "linalg_vector_norm",
    "norm",
    "max",
    "min",
    "argmax",
)
@rule("var_mean", "std_mean", "argmin")
def reduce(flow: Propagation, node: Node) -> Value:
    """Statistics over a dimension change with its members; the position of the largest
    has no meaning among fewer.
    """
    if isinstance(argument(node, 1, "other"), Node):  # the larger of two tensors
        return flow.broadcast([node.args[0], node.args[1]], shape(node))
    x = flow.of(node.args[0])
    dims = dims_of(node, len(x), 2 if op_name(node) in ("linalg_vector_norm", "norm") else 1) if x else set()
    if op_name(node) in ("argmax", "argmin"):
        flow.pin(*(x[dim] for dim in dims))
    else:
        flow.average(node, *(x[dim] for dim in dims))

    def labels_of(value: Any) -> TensorLabels:
        if value.dim() == len(x):
            return [pinned(1) if dim in dims else array for dim, array in enumerate(x)]
        return [array for dim, array in enumerate(x) if dim not in dims]

    value = node.meta["val"]
    return labels_of(value) if isinstance(value, torch.Tensor) else tuple(labels_of(item) for item in value)


@rule("_softmax", "softmax", "_log_softmax", "log_softmax", "cumsum", "cumprod", "flip", "roll")
def along(flow: Propagation, node: Node) -> Value:
    """Same shape, elements mixed along one or some dimensions (`roll` names them
    third).
    """
    x = flow.of(node.args[0])
    dims = [x[dim] for dim in dims_of(node, len(x), 2 if op_name(node) == "roll" else 1)]
    if "softmax" in op_name(node):
        flow.average(node, *dims)
    else:
        flow.pin(*dims)
    return x


def pool(flow: Propagation, node: Node) -> Value:
    """Pooling, resizing and padding: the last dimensions (1, 2 or 3 by the operator's
    name) are space, and pinned.
    """
    x = flow.of(node.args[0])
    found = re.search(r"([123])d", op_name(node))
    space = int(found.group(1)) if found else 2
    flow.pin(*x[len(x) - space :])

    def labels_of(value: Any) -> TensorLabels:
        return [*x[: len(x) - space], *(pinned(size) for size in sizes_of(value)[len(x) - space :])]

    value = node.meta["val"]
    return labels_of(value) if isinstance(value, torch.Tensor) else tuple(labels_of(item) for item in value)


for _dims in "123":
    rule(
        f"avg_pool{_dims}d",
        f"max_pool{_dims}d",
        f"max_pool{_dims}d_with_indices",
        f"adaptive_avg_pool{_dims}d",
    )(pool)
    rule(
        f"_adaptive_avg_pool{_dims}d",
        f"adaptive_max_pool{_dims}d",
        f"upsample_nearest{_dims}d",
        f"reflection_pad{_dims}d",
    )(pool)
    rule(f"replication_pad{_dims}d", f"_upsample_nearest_exact{_dims}d")(pool)
rule("upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")(pool)


@rule("constant_pad_nd", "pad")
def constant_pad(flow: Propagation, node: Node) -> Value:
    """Padded dimensions are pinned (`pad` lists them last dimension first)."""
    labels, sizes = list(flow.of(node.args[0])), shape(node)
    widths: Any = node.args[1]
    for i in range(len(widths) // 2):
        if widths[2 * i] or widths[2 * i + 1]:
            dim = len(labels) - 1 - i
            flow.pin(labels[dim])
            labels[dim] = pinned(sizes[dim])
    return labels
