"""The cut on the captured graph itself: what is left when a module's own `forward` cannot be mended, and what a proof compares with.

The labels say how large every dimension of every tensor is after the cut, so each size that is written into the graph can be renewed
exactly. The result is a `torch.fx.GraphModule` under the dense module's weight names that trains: batch norm and dropout are modules in it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from mlopt.model.graph import container
from mlopt.pruning.labels import Array
from mlopt.pruning.propagation import Propagation, TensorLabels, argument, op_name, shape, user_outputs

SIZES_AT = {"view": 1, "reshape": 1, "_unsafe_view": 1, "view_copy": 1, "expand": 1, "expand_copy": 1} | {
    **dict.fromkeys(("full", "zeros", "ones", "empty"), 0),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), 1),
}
"""Operators that are told their output's sizes, and the position of that argument."""


class Unwritten(Exception):
    """The graph cannot be rewritten; the message says which node."""


class Cut:
    """Sizes and arguments of every node after the cut. `dropped[root]` is true where a label goes."""

    def __init__(self, flow: Propagation, dropped: NDArray[np.bool_]) -> None:
        self.flow, self.dropped = flow, dropped

    def stays(self, labels: Array) -> NDArray[np.bool_]:
        """Which indices of a dimension stay."""
        stay: NDArray[np.bool_] = ~self.dropped[self.flow.labels.find(labels)]
        return stay

    def kept(self, labels: Array) -> int:
        """How many indices of a dimension stay."""
        return int(np.count_nonzero(self.stays(labels)))

    def changed(self, value: Any) -> bool:
        """Whether a tensor (or one of several) loses an index."""
        if isinstance(value, tuple):
            return any(self.changed(item) for item in value)
        return any(self.kept(dim) != len(dim) for dim in value or [])

    def arguments(self, node: Node, scaled: Callable[[Any, int, int], Any]) -> tuple[list[Any], dict[str, Any]]:
        """A node's arguments with their sizes renewed. `scaled(size, old, new)` renews a symbolic size.

        Raises `Unwritten` for an operator whose sizes are not known here.
        """
        name = op_name(node)
        args: list[Any] = list(node.args)
        kwargs: dict[str, Any] = dict(node.kwargs)
        value = self.flow.values[node]
        if name in SIZES_AT:
            args[SIZES_AT[name]] = self._sizes(args[SIZES_AT[name]], value, scaled)
        elif name == "split_with_sizes":
            dim = int(argument(node, 2, "dim", 0))
            args[1] = [self._size(old, part[dim], scaled) for old, part in zip(args[1], value, strict=True)]
        elif name == "split":
            dim = int(argument(node, 2, "dim", 0))
            args[1] = self._size(args[1], value[0][dim], scaled)
        elif name in ("slice", "slice_copy"):
            self._slice(node, args)
        elif name == "select":
            labels = self.flow.of(args[0])[int(args[1])]
            args[2] = int(np.count_nonzero(self.stays(labels)[: int(args[2]) % len(labels)]))
        elif name.startswith("conv"):
            self._groups(node, args, kwargs, name)
        elif name == "group_norm":
            channels = self.flow.of(node.args[0])[1]
            if node not in self.flow.statistics:  # whole groups go
                args[1] = int(args[1]) * self.kept(channels) // len(channels)
        elif name in ("layer_norm", "rms_norm"):
            dims = value[len(value) - len(args[1]) :]
            args[1] = [self.kept(dim) for dim in dims]
        return args, kwargs

    def _size(self, old: Any, labels: Array, scaled: Callable[[Any, int, int], Any]) -> Any:
        if isinstance(old, int) and old < 0:
            return old
        new = self.kept(labels)
        if new == len(labels):
            return old
        return new if isinstance(old, int) else scaled(old, len(labels), new)

    def _sizes(self, sizes: Any, value: TensorLabels, scaled: Callable[[Any, int, int], Any]) -> list[Any]:
        return [self._size(old, labels, scaled) for old, labels in zip(sizes, value, strict=True)]

    def _slice(self, node: Node, args: list[Any]) -> None:
        labels = self.flow.of(node.args[0])
        dim = int(argument(node, 1, "dim", 0)) % len(labels)
        stays = self.stays(labels[dim])
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

    def _groups(self, node: Node, args: list[Any], kwargs: dict[str, Any], name: str) -> None:
        position = 8 if name == "convolution" else 6
        if node not in self.flow.resized:
            return  # only a depthwise convolution has fewer groups
        rows = self.flow.of(node.args[1])[0]
        new = int(argument(node, position, "groups")) * self.kept(rows) // len(rows)
        if len(args) > position:
            args[position] = new
        else:
            kwargs["groups"] = new


def cut_statistics(cut: Cut) -> set[Node]:
    """Nodes that average over a dimension that was cut."""
    flow = cut.flow
    return {node for node in flow.statistics if any(cut.changed(flow.values.get(source)) for source in node.all_input_nodes)}


class Reference(Interpreter):
    """The dense graph on masked weights, its statistics taken over what stays: what a pruned network must compute.

    An operator that averages over a dimension that is cut (weight standardisation, a LayerNorm over its width, ...) sees the kept indices
    only, and its result is put back among zeros; every other operator runs as it stands in the graph.
    """

    def __init__(self, flow: Propagation, dropped: NDArray[np.bool_]) -> None:
        super().__init__(flow.program.graph_module)
        self.cut = Cut(flow, dropped)
        self._narrow = cut_statistics(self.cut)

    def outputs(self, weights: Mapping[str, torch.Tensor], inputs: tuple[Any, ...]) -> list[torch.Tensor]:
        """The user outputs for `weights` (by qualified name, constants excepted) and the module's positional inputs."""
        program = self.cut.flow.program
        values = []
        given = iter(pytree.tree_leaves(inputs))
        for spec in program.graph_signature.input_specs:
            if spec.target in weights:
                values.append(weights[spec.target])
            elif spec.target is not None:
                held = program.state_dict.get(spec.target)
                values.append(program.constants[spec.target] if held is None else held)
            else:
                values.append(next(given))
        return list(user_outputs(program, self.run(*values)))

    def run_node(self, n: Node) -> Any:
        if n not in self._narrow:
            return super().run_node(n)
        cut, flow = self.cut, self.cut.flow
        args, kwargs = cut.arguments(n, lambda size, old, new: size)

        def narrowed(source: Node) -> Any:
            value = self.env[source]
            labels = flow.values.get(source)
            for dim, array in enumerate(labels or [] if isinstance(value, torch.Tensor) else []):
                stays = cut.stays(array)
                if not stays.all() and len(stays) == value.shape[dim]:
                    value = value.index_select(dim, torch.from_numpy(np.nonzero(stays)[0]))
            return value

        args = torch.fx.node.map_arg(args, narrowed)
        kwargs = torch.fx.node.map_arg(kwargs, narrowed)
        result = n.target(*args, **kwargs)  # type: ignore[operator]
        labels = flow.values[n]
        if isinstance(result, (tuple, list)):
            return tuple(self._spread(item, dims) for item, dims in zip(result, labels, strict=True))
        return self._spread(result, labels)

    def _spread(self, result: torch.Tensor, labels: TensorLabels) -> torch.Tensor:
        for dim, array in enumerate(labels):
            stays = self.cut.stays(array)
            if not stays.all():
                sizes = list(result.shape)
                sizes[dim] = len(array)
                result = result.new_zeros(sizes).index_copy(dim, torch.from_numpy(np.nonzero(stays)[0]), result)
        return result


def rewrite(flow: Propagation, dropped: NDArray[np.bool_], tensors: Mapping[str, torch.Tensor], dense: nn.Module) -> GraphModule:
    """The pruned graph as a module. `tensors`: the pruned parameters and buffers, by qualified name. Raises `Unwritten`."""
    return _Writer(flow, dropped, tensors, dense).write()


class _Writer:
    def __init__(self, flow: Propagation, dropped: NDArray[np.bool_], tensors: Mapping[str, torch.Tensor], dense: nn.Module) -> None:
        self.flow, self.cut, self.tensors, self.dense = flow, Cut(flow, dropped), tensors, dense
        self.root, self.graph = nn.Module(), Graph()
        self.new: dict[Node, Node] = {}
        self.weight_of: dict[Node, str] = {}

    def write(self) -> GraphModule:
        program = self.flow.program
        specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs if hasattr(spec.arg, "name")}
        for node in program.graph.nodes:
            if node.op == "placeholder":
                self._input(node, specs[node.name].target)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                self._output(node)
            else:
                raise Unwritten(f"{node.name} holds a graph of its own")
        made = GraphModule(self.root, self.graph, f"Pruned{type(self.dense).__name__}")
        made.graph.eliminate_dead_code()
        made.graph.lint()
        made.recompile()
        return made

    def _input(self, node: Node, target: str | None) -> None:
        if target is None:
            self.new[node] = self.graph.placeholder(node.name)
            return
        tensor = self.tensors.get(target)
        if tensor is None:
            tensor = self.flow.program.constants[target]
        self.weight_of[node] = target
        if node.users:
            place(self.root, target, tensor)
            self.new[node] = self.graph.get_attr(target)

    def _call(self, node: Node) -> None:
        name = op_name(node)
        if name.startswith("_assert") or name.startswith("sym_constrain"):
            return
        if name == "sym_size":  # as a method, for torch.jit.trace bakes in what the operator returns
            self.new[node] = self.graph.call_method("size", (self.new[node.args[0]], node.args[1]))  # type: ignore[index]
            return
        if name in ("batch_norm", "_native_batch_norm_legit_no_training") and self._batch_norm(node, name):
            return
        if name in ("clone", "dropout", "dropout_") and self._dropout(node, name):
            return
        if node.target is operator.getitem and self.new[node.args[0]].op == "call_module":  # type: ignore[index]
            self.new[node] = self.new[node.args[0]]  # type: ignore[index]
            return

        def scaled(size: Node, old: int, new: int) -> Node:
            whole = self.graph.call_function(operator.mul, (self.new[size], new))
            return self.graph.call_function(operator.floordiv, (whole, old))

        args, kwargs = self.cut.arguments(node, scaled)

        def renewed(value: Any) -> Any:
            if isinstance(value, Node):
                return self.new.get(value, value)  # a scaled size is of the new graph already
            if isinstance(value, (list, tuple)):
                return [renewed(item) for item in value]
            return value

        new_args = tuple(renewed(arg) for arg in args)
        new_kwargs = {key: renewed(item) for key, item in kwargs.items()}
        # A view that was possible at the old strides may not be at the new ones.
        target = torch.ops.aten.reshape.default if name in ("view", "_unsafe_view") else node.target
        self.new[node] = self.graph.create_node("call_function", target, new_args, new_kwargs, node.name)

    def _batch_norm(self, node: Node, name: str) -> bool:
        """Put a module where the graph has frozen statistics, under the path of its running mean."""
        where = [self.weight_of.get(item) if isinstance(item, Node) else None for item in node.args[1:5]]
        training = name == "batch_norm" and bool(node.args[5])
        if training or where[2] is None or where[3] is None or not where[2].endswith("running_mean"):
            return False
        path = where[2].rpartition(".")[0]
        keys = ("weight", "bias", "running_mean", "running_var")
        if any(item is not None and item != f"{path}.{key}" for item, key in zip(where, keys, strict=True)):
            return False
        at = 6 if name == "batch_norm" else 5
        momentum, eps = float(node.args[at]), float(node.args[at + 1])  # type: ignore[arg-type]
        rank = len(shape(node.args[0]))  # type: ignore[arg-type]
        held = _find(self.root, path)
        if not isinstance(held, nn.modules.batchnorm._BatchNorm):
            kind = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(rank, nn.BatchNorm1d)
            made = kind(len(self.tensors[where[2]]), eps=eps, momentum=momentum or 0.1, affine=where[0] is not None)
            for key, item in zip(keys, where, strict=True):
                if item is not None:
                    table: dict[str, Any] = made._buffers if key.startswith("running") else made._parameters
                    table[key] = self.tensors[item]
                elif key in made._parameters:
                    made._parameters[key] = None
            counter = self.tensors.get(f"{path}.num_batches_tracked")
            if counter is not None:
                made._buffers["num_batches_tracked"] = counter
            parent, _, leaf = path.rpartition(".")
            container(self.root, parent)._modules[leaf] = made
        self.new[node] = self.graph.call_module(path, (self.new[node.args[0]],))  # type: ignore[index]
        return True

    def _dropout(self, node: Node, name: str) -> bool:
        """Put the layer back. A decomposed graph has only a copy where one was, and none of a rate that was given to `F.dropout`."""
        path, kind = list((node.meta.get("nn_module_stack") or {"": ("", "")}).values())[-1]
        if name != "clone":
            rate = float(argument(node, 1, "p"))
        elif str(kind).startswith("torch.nn.modules.dropout."):
            rate = float(self.dense.get_submodule(path.split("@")[0]).p)  # type: ignore[arg-type]
        else:
            return False
        layer = f"dropout_{len(self.new)}"
        self.root.add_module(layer, nn.Dropout(rate))
        self.new[node] = self.graph.call_module(layer, (self.new[node.args[0]],))  # type: ignore[index]
        return True

    def _output(self, node: Node) -> None:
        program = self.flow.program
        leaves = [self.new[item] if isinstance(item, Node) else item for item in user_outputs(program, node.args[0])]
        nested = pytree.tree_unflatten(leaves, program.call_spec.out_spec)
        self.graph.output(plain(nested))


def plain(value: Any) -> Any:
    """Nested outputs as tuples, lists and dicts: a graph knows no other containers."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [plain(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if value is None or isinstance(value, (Node, bool, int, float)):
        return value
    raise Unwritten(f"the model returns a {type(value).__name__}, which is no plain container")


def _find(root: nn.Module, path: str) -> nn.Module | None:
    for part in path.split(".") if path else []:
        child = root._modules.get(part)
        if child is None:
            return None
        root = child
    return root


def place(root: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Register a tensor under its dotted name."""
    parent, _, key = name.rpartition(".")
    holder = container(root, parent)
    if key in holder._parameters or key in holder._buffers:
        return
    if isinstance(tensor, nn.Parameter):
        holder.register_parameter(key, tensor)
    else:
        holder.register_buffer(key, tensor)
