"""Normalisations. Where statistics are taken over a dimension, cutting it would change
them: that dimension is pinned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from mlopt.pruning.labels import pinned
from mlopt.pruning.nodes import argument, op_name
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.rule_table import Value, rule


def unite_weights(flow: Propagation, channels: Any, weights: Any) -> None:
    """Per-channel weights (or None) follow the channels."""
    for position, weight in enumerate(weights):
        if isinstance(weight, Node):
            if position == 0:
                flow.scale(weight)
            flow.union(channels, flow.of(weight)[0])


@rule("_native_batch_norm_legit_no_training", "native_batch_norm", "_native_batch_norm_legit", "batch_norm")
def batch_norm(flow: Propagation, node: Node) -> Value:
    """Frozen statistics a channel: channels go one by one. Statistics of the batch
    itself (weight standardisation) are over the rest.
    """
    x = flow.of(node.args[0])
    unite_weights(flow, x[1], node.args[1:5])
    position = {
        "batch_norm": 5,
        "native_batch_norm": 5,
        "_native_batch_norm_legit": 3 if not isinstance(node.args[3], Node) else 5,
    }.get(op_name(node))
    if position is not None and node.args[position]:
        flow.average(node, x[0], *x[2:])
    return (x, [pinned(0)], [pinned(0)]) if isinstance(node.meta["val"], (tuple, list)) else x


@rule("instance_norm")
def instance_norm(flow: Propagation, node: Node) -> Value:
    x = flow.of(node.args[0])
    unite_weights(flow, x[1], node.args[1:5])
    return x


@rule("layer_norm", "native_layer_norm", "rms_norm")
def layer_norm(flow: Propagation, node: Node) -> Value:
    """Statistics over the last dimensions: those are pinned, and their weights with
    them.
    """
    x = flow.of(node.args[0])
    count = len(argument(node, 1, "normalized_shape"))
    flow.average(node, *x[len(x) - count :])
    for weight in node.args[2:4]:
        if isinstance(weight, Node):
            for labels, array in zip(x[len(x) - count :], flow.of(weight), strict=True):
                flow.union(labels, array)
    statistics = [*x[: len(x) - count], *(pinned(1) for _ in range(count))]
    return (x, statistics, statistics) if isinstance(node.meta["val"], (tuple, list)) else x


@rule("group_norm")
def group_norm(flow: Propagation, node: Node) -> Value:
    """Statistics over a group of channels: whole groups go, so labels are tied within a
    group; one group is pinned.

    Where statistics may be cut, every group loses as many as the others instead.
    """
    x, groups = flow.of(node.args[0]), int(argument(node, 1, "num_groups"))
    channels = x[1]
    unite_weights(flow, channels, node.args[2:4])
    flow.pin(*x[2:])
    if flow.cut_statistics:
        rows = channels.reshape(groups, -1)
        for row in rows[1:]:
            flow.union(rows[0], row)
        flow.average(node, channels)
    elif groups == 1:
        flow.pin(channels)
    else:
        rows = channels.reshape(groups, -1)
        flow.union(np.repeat(rows[:, 0], rows.shape[1]), channels)
        flow.resized[node] = None
    return x
