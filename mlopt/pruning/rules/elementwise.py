"""Operators that act on each element alone: aligned labels are united."""

from __future__ import annotations

import torch
from torch.fx import Node

from mlopt.pruning.nodes import shape
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.rule_table import Value, rule


def tensors(node: Node) -> list[Node]:
    """The tensor arguments of a node."""
    return [source for source in node.all_input_nodes if isinstance(source.meta.get("val"), torch.Tensor)]


@rule(
    "pointwise",
    "where",
    "masked_fill",
    "hardswish",
    "hardsigmoid",
    "silu",
    "gelu",
    "mish",
    "softplus",
    "elu",
    "leaky_relu",
    "hardtanh",
)
@rule(
    "relu6",
    "relu",
    "sigmoid",
    "tanh",
    "pow",
    "rsub",
    "addcmul",
    "_prelu_kernel",
    "fill",
    "celu",
    "selu",
    "hardshrink",
)
def pointwise(flow: Propagation, node: Node) -> Value:
    """Unite what is aligned."""
    return flow.broadcast(tensors(node), shape(node))


@rule("prelu")
def prelu(flow: Propagation, node: Node) -> Value:
    """One slope for all, or one a channel (dimension 1)."""
    x, weight = flow.of(node.args[0]), flow.of(node.args[1])
    if len(weight[0]) > 1:
        flow.union(x[1], weight[0])
    return x


@rule(
    "clone",
    "alias",
    "detach",
    "_to_copy",
    "contiguous",
    "lift_fresh_copy",
    "dropout",
    "bernoulli",
    "to",
    "type_as",
)
@rule("full_like", "zeros_like", "ones_like", "empty_like", "rand_like", "randn_like")
def same(flow: Propagation, node: Node) -> Value:
    """The output has the labels of the first input."""
    return flow.of(node.args[0])


@rule("native_dropout")
def native_dropout(flow: Propagation, node: Node) -> Value:
    labels = flow.of(node.args[0])
    return labels, labels


@rule("arange", "scalar_tensor", "eye", "linspace", "tril_indices", "triu_indices")
def made(flow: Propagation, node: Node) -> Value:
    """A constant made in forward whose elements differ: pinned."""
    return flow.all_pinned(node)


@rule("full", "zeros", "ones", "empty", "new_zeros", "new_ones", "new_full", "new_empty")
def filled(flow: Propagation, node: Node) -> Value:
    """A constant with one value everywhere: it can be as small as what it meets."""
    flow.resized[node] = None
    return [flow.labels.fresh(size) for size in shape(node)]


@rule("copy")
def copy(flow: Propagation, node: Node) -> Value:
    """`self` overwritten by `src`, which may be broadcast."""
    return flow.broadcast([node.args[0], node.args[1]], shape(node))


@rule(
    "_assert_async", "_assert_scalar", "_assert_tensor_metadata", "sym_size", "sym_constrain_range_for_size"
)
def checked(flow: Propagation, node: Node) -> Value:
    """An assertion moves no data."""
    return None
