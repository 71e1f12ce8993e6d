"""The cut on the captured graph itself: for a module whose own `forward` cannot run in
the new sizes.

The labels say how large every dimension of every tensor is after the cut, so each size
that is written into the graph can be renewed exactly. The result is a
`torch.fx.GraphModule` under the dense module's weight names that trains: batch norm and
dropout are modules in it.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from mlopt.model.graph import container
from mlopt.pruning.call_arguments import Unwritten, renewed_arguments
from mlopt.pruning.cut import Cut
from mlopt.pruning.nodes import argument, enclosing, op_name, owner, shape, user_outputs


def rewrite(cut: Cut, tensors: Mapping[str, torch.Tensor], dense: nn.Module) -> GraphModule:
    """The pruned graph as a module. `tensors`: the pruned parameters and buffers, by
    qualified name. Raises `Unwritten`.
    """
    return _Writer(cut, tensors, dense).write()


class _Writer:
    def __init__(self, cut: Cut, tensors: Mapping[str, torch.Tensor], dense: nn.Module) -> None:
        self.flow, self.cut, self.tensors, self.dense = cut.flow, cut, tensors, dense
        self.root, self.graph = nn.Module(), Graph()
        self.new: dict[Node, Node] = {}
        self.weight_of: dict[Node, str] = {}

    def write(self) -> GraphModule:
        program = self.flow.program
        specs = {
            spec.arg.name: spec for spec in program.graph_signature.input_specs if hasattr(spec.arg, "name")
        }
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
            source: Any = node.args[0]
            self.new[node] = self.graph.call_method("size", (self.new[source], node.args[1]))
            return
        if name in ("batch_norm", "_native_batch_norm_legit_no_training") and self._batch_norm(node, name):
            return
        if name in ("clone", "dropout", "dropout_") and self._dropout(node, name):
            return
        first: Any = node.args[0] if node.args else None
        if node.target is operator.getitem and self.new[first].op == "call_module":
            self.new[node] = self.new[node.args[0]]  # type: ignore[index]
            return

        def scaled(size: Node, old: int, new: int) -> Node:
            whole = self.graph.call_function(operator.mul, (self.new[size], new))
            return self.graph.call_function(operator.floordiv, (whole, old))

        args, kwargs = renewed_arguments(self.cut, node, scaled)

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
        """Put a module where the graph has frozen statistics, under the path of its
        running mean.
        """
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
        held = self.root.get_submodule(path)
        if not isinstance(held, nn.modules.batchnorm._BatchNorm):
            kind = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(rank, nn.BatchNorm1d)
            made = kind(
                len(self.tensors[where[2]]), eps=eps, momentum=momentum or 0.1, affine=where[0] is not None
            )
            for key, item in zip(keys, where, strict=True):
                if item is not None:
                    (made._buffers if key.startswith("running") else made._parameters)[key] = self.tensors[
                        item
                    ]  # type: ignore[assignment]
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
        """Put the layer back. A decomposed graph has only a copy where one was, and
        none of a rate that was given to `F.dropout`.
        """
        if name != "clone":
            rate = float(argument(node, 1, "p"))
        elif owner(node).startswith("torch.nn.modules.dropout."):
            rate = float(self.dense.get_submodule(enclosing(node)[0]).p)  # type: ignore[arg-type]
        else:
            return False
        layer = f"dropout_{len(self.new)}"
        self.root.add_module(layer, nn.Dropout(rate))
        self.new[node] = self.graph.call_module(layer, (self.new[node.args[0]],))  # type: ignore[index]
        return True

    def _output(self, node: Node) -> None:
        program = self.flow.program
        leaves = [
            self.new[item] if isinstance(item, Node) else item for item in user_outputs(program, node.args[0])
        ]
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
