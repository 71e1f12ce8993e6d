"""The arguments of a node of the graph after the cut: every size that is written into
them, renewed from the labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch.fx import Node
from torch.fx.node import Argument

from mlopt.pruning.cut import Cut
from mlopt.pruning.labels import Array
from mlopt.pruning.nodes import argument, op_name
from mlopt.pruning.rule_table import TensorLabels, tensors_of

SIZES_AT = {"view": 1, "reshape": 1, "_unsafe_view": 1, "view_copy": 1, "expand": 1, "expand_copy": 1} | {
    **dict.fromkeys(("full", "zeros", "ones", "empty"), 0),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), 1),
}
"""Operators with an argument that holds their output's sizes, and its position."""


class Unwritten(Exception):
    """The graph cannot be rewritten; the message says which node."""


Scaled = Callable[[Any, int, int], Any]
"""`scaled(size, old, new)`: a symbolic size times new/old."""


class Arguments(NamedTuple):
    """What a node is called with."""

    args: list[Any]
    kwargs: dict[str, Argument]


def renewed_arguments(cut: Cut, node: Node, scaled: Scaled) -> Arguments:
    """A node's arguments with their sizes as they are after the cut.

    Raises `Unwritten` for an operator whose sizes are not known here.
    """
    flow, name = cut.flow, op_name(node)
    made = Arguments(list(node.args), dict(node.kwargs))
    args, value = made.args, flow.values[node]
    if name in SIZES_AT:
        sizes = zip(args[SIZES_AT[name]], flow.of(node), strict=True)
        args[SIZES_AT[name]] = [_size(cut, old, labels, scaled) for old, labels in sizes]
    elif name == "split_with_sizes":
        dim = int(argument(node, 2, "dim", 0))
        parts = zip(args[1], tensors_of(value), strict=True)
        args[1] = [_size(cut, old, part[dim], scaled) for old, part in parts]
    elif name == "split":
        dim = int(argument(node, 2, "dim", 0))
        args[1] = _size(cut, args[1], next(tensors_of(value))[dim], scaled)
    elif name in ("slice", "slice_copy"):
        _slice(cut, node, args)
    elif name == "select":
        labels = flow.of(args[0])[int(args[1])]
        args[2] = int(np.count_nonzero(cut.stays(labels)[: int(args[2]) % len(labels)]))
    elif name.startswith("conv"):
        _convolution_groups(cut, node, made)
    elif name == "group_norm":
        channels = flow.of(node.args[0])[1]
        if node not in flow.statistics:  # whole groups go
            args[1] = int(args[1]) * cut.kept(channels) // len(channels)
    elif name in ("layer_norm", "rms_norm"):
        tensor: TensorLabels = next(tensors_of(value))
        args[1] = [cut.kept(dim) for dim in tensor[len(tensor) - len(args[1]) :]]
    return made


def _size(cut: Cut, old: Any, labels: Array, scaled: Scaled) -> Any:
    if isinstance(old, int) and old < 0:
        return old
    new = cut.kept(labels)
    if new == len(labels):
        return old
    return new if isinstance(old, int) else scaled(old, len(labels), new)


def _slice(cut: Cut, node: Node, args: list[Any]) -> None:
    labels = cut.flow.of(node.args[0])
    dim = int(argument(node, 1, "dim", 0)) % len(labels)
    stays = cut.stays(labels[dim])
    if stays.all():
        return
    if argument(node, 4, "step", 1) != 1:
        raise Unwritten(f"{node.name} takes every n-th index of a dimension that was cut")
    bounds = []
    for position, name, default in ((2, "start", 0), (3, "end", len(stays))):
        at = argument(node, position, name, default)
        at = default if at is None else min(int(at), len(stays))
        bounds.append(int(np.count_nonzero(stays[: at if at >= 0 else at + len(stays)])))
    args[1:] = [dim, *bounds]


def _convolution_groups(cut: Cut, node: Node, made: Arguments) -> None:
    position = 8 if op_name(node) == "convolution" else 6
    if node not in cut.flow.resized:
        return  # only a depthwise convolution has fewer groups
    rows = cut.flow.of(node.args[1])[0]
    new = int(argument(node, position, "groups")) * cut.kept(rows) // len(rows)
    if len(made.args) > position:
        made.args[position] = new
    else:
        made.kwargs["groups"] = new
