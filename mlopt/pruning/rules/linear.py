"""Operators that contract: matrix products and convolutions. The contracted dimensions
are united, and each is where MACs are counted.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch.fx import Node

from mlopt.pruning.labels import Array, pinned
from mlopt.pruning.nodes import argument, shape
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.rule_table import TensorLabels, Value, rule


@rule("linear")
def linear(flow: Propagation, node: Node) -> Value:
    """`x @ W.T + b`: W is (out, in)."""
    x, weight = flow.of(node.args[0]), flow.of(node.args[1])
    if len(weight) != 2:
        return flow.give_up(node)
    flow.union(x[-1], weight[1])
    if len(node.args) > 2 and node.args[2] is not None:
        flow.union(weight[0], flow.of(node.args[2])[0])
    flow.product(node, 1, *x[:-1], weight[0], weight[1])
    flow.producers.append((node.name, weight[0]))
    return [*x[:-1], weight[0]]


def contract(flow: Propagation, node: Node, left: Any, right: Any) -> TensorLabels:
    """`left @ right` with leading batch dimensions.

    Where both sides are activations (attention scores) the contracted width also sets
    the scale, 1/sqrt(width), somewhere in the code: it is pinned, and whole heads are
    cut instead.
    """
    a, b, out = flow.of(left), flow.of(right), shape(node)
    if len(a) < 2 or len(b) < 2:
        flow.pin_value(a)
        flow.pin_value(b)
        return [pinned(size) for size in out]
    if flow.is_constant(left) or flow.is_constant(right):
        flow.union(a[-1], b[-2])
    else:
        flow.pin(a[-1], b[-2])
    batch: TensorLabels = []
    for position in range(len(out) - 2):
        result: Array | None = None
        for side in (a, b):
            at = position - (len(out) - len(side))
            if at < 0:
                continue
            if len(side[at]) != out[position]:
                flow.pin(side[at])
            elif result is None:
                result = side[at]
            else:
                flow.union(result, side[at])
        batch.append(pinned(out[position]) if result is None else result)
    flow.product(node, 1, *batch, a[-2], a[-1], b[-1])
    if flow.is_constant(right):
        flow.producers.append((node.name, b[-1]))
    elif flow.is_constant(left):
        flow.producers.append((node.name, a[-2]))
    return [*batch, a[-2], b[-1]]


@rule("mm", "bmm", "matmul")
def matmul(flow: Propagation, node: Node) -> Value:
    return contract(flow, node, node.args[0], node.args[1])


@rule("_grouped_mm", "grouped_mm_fallback")
def experts(flow: Propagation, node: Node) -> Value:
    """Rows (T, K) sorted by expert, times each expert's own matrix (E, K, N): which
    expert is data, so E is pinned.
    """
    x, weight = flow.of(node.args[0]), flow.of(node.args[1])
    if len(x) != 2 or len(weight) != 3:
        return flow.give_up(node)
    flow.pin(weight[0])
    flow.union(x[1], weight[1])
    flow.product(node, 1, x[0], weight[1], weight[2])
    flow.producers.append((node.name, weight[2]))
    return [x[0], weight[2]]


@rule("addmm", "baddbmm")
def addmm(flow: Propagation, node: Node) -> Value:
    """`bias + left @ right`, the bias broadcast."""
    out = contract(flow, node, node.args[1], node.args[2])
    for bias, array in zip(reversed(flow.of(node.args[0])), reversed(out), strict=False):
        if len(bias) == len(array):
            flow.union(array, bias)
        else:
            flow.pin(bias)
    return out


def convolve(flow: Propagation, node: Node, groups: int, transposed: bool) -> Value:
    """A convolution with `groups`: weight is (out, in/groups, ...), or (in, out/groups,
    ...) when transposed.

    Each group must keep as many channels as the others, so labels are tied across
    groups by position, except for a depthwise convolution, where a channel is a group
    and can go alone.
    """
    x, weight = flow.of(node.args[0]), flow.of(node.args[1])
    bias = flow.of(node.args[2])[0] if len(node.args) > 2 and node.args[2] is not None else None
    channels = x[1] if len(x) == len(weight) else x[0]
    flow.pin(*weight[2:], *x[len(x) - len(weight) + 2 :])
    first, second = len(weight[0]), len(weight[1])
    if groups == 1:
        flow.union(channels, weight[0 if transposed else 1])
        out = weight[1 if transposed else 0]
    elif second == 1 and first // groups >= 1 and not (transposed and first != groups):
        # Depthwise: channel i makes the outputs i*m .. i*m + m - 1 and nothing else
        # reads it.
        multiplier = first // groups
        flow.pin(weight[1])
        flow.union(np.repeat(channels, multiplier), weight[0])
        flow.resized[node] = None  # the number of groups follows
        out = weight[0]
    else:
        by_group = channels.reshape(groups, -1)
        outputs = weight[0].reshape(groups, -1)
        for group in range(1, groups):
            flow.union(by_group[0], by_group[group])
            flow.union(outputs[0], outputs[group])
        if transposed:
            flow.union(channels, weight[0])
            out = np.tile(weight[1], groups)
        else:
            flow.union(by_group[0], weight[1])
            out = weight[0]
    if bias is not None:
        flow.union(out, bias)
    sizes = shape(node)
    spatial = len(weight) - 2
    positions = math.prod(shape(argument(node, 0, "input"))[-spatial:] if transposed else sizes[-spatial:])
    batch = sizes[0] if len(x) == len(weight) else 1
    flow.product(node, batch * positions * math.prod(len(k) for k in weight[2:]), weight[0], weight[1])
    flow.producers.append((node.name, out))
    return [*x[: len(x) - len(weight) + 1], out, *(pinned(size) for size in sizes[-spatial:])]


@rule("conv1d", "conv2d", "conv3d")
def convolution(flow: Propagation, node: Node) -> Value:
    """Arguments: input, weight, bias, stride, padding, dilation, groups."""
    groups = argument(node, 6, "groups", 1)
    return convolve(flow, node, int(groups), transposed=False)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(flow: Propagation, node: Node) -> Value:
    """Arguments: input, weight, bias, stride, padding, output_padding, groups,
    dilation.
    """
    groups = argument(node, 6, "groups", 1)
    return convolve(flow, node, int(groups), transposed=True)


@rule("convolution")
def any_convolution(flow: Propagation, node: Node) -> Value:
    """Arguments: input, weight, bias, stride, padding, dilation, transposed,
    output_padding, groups.
    """
    return convolve(
        flow, node, int(argument(node, 8, "groups")), transposed=bool(argument(node, 6, "transposed"))
    )


@rule("embedding")
def embedding(flow: Propagation, node: Node) -> Value:
    """Rows are looked up by value, so they are pinned; columns are channels."""
    table, indices = flow.of(node.args[0]), flow.of(node.args[1])
    flow.pin(table[0])
    flow.pin_value(indices)
    flow.producers.append((node.name, table[1]))
    return [*indices, table[1]]
