"""A `torch.fx.GraphModule` as JSON: how a bundle keeps a module whose graph pruning had
to rewrite.

Nothing in the file is code. A node may call an ATen operator that works on tensors and
plain numbers, arithmetic on sizes, or one of two layers (batch norm and dropout). Names
are checked, because `torch.fx` writes them into the source of `forward`.
"""

from __future__ import annotations

import copy
import operator
import re
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from mlopt.artifact import Json
from mlopt.errors import ModelRefused, PassFailed
from mlopt.model.graph_data import GraphData, LayerData, NodeData, TensorData

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
ARITHMETIC = {
    name: getattr(operator, name) for name in ("mul", "add", "sub", "floordiv", "mod", "neg", "getitem")
}
LAYERS: dict[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Dropout)
}
TEXTS = frozenset(
    {"approximate", "rounding_mode", "mode", "reduction", "indexing", "padding", "padding_mode"}
)
"""The only text arguments an operator may have: `from_file(filename)` must not be
reachable."""
NAMED = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}


def describe(module: GraphModule) -> Json:
    """The graph, its layers and the shapes of its tensors. Raises `PassFailed` for a
    graph that holds anything else."""
    nodes = []
    for node in module.graph.nodes:
        target = None  # a placeholder has none, and `size` is the only method
        if node.op in ("call_module", "get_attr"):
            target = str(node.target)
        elif node.op == "call_function":
            target = _function_name(node)
        args = None if node.op == "placeholder" else _encode(node.args)
        kwargs = _encode(dict(node.kwargs)) if node.kwargs and args is not None else None
        nodes.append(NodeData(node.name, node.op, target, args, kwargs))
    layers = {}
    for path, child in module.named_modules():
        if type(child) in LAYERS.values():
            layers[path] = LayerData(type(child).__name__, _settings(child))
        elif path and type(child) is not nn.Module:
            raise PassFailed(
                f"the graph calls {path}, a {type(child).__name__}",
                "only graphs that mlopt wrote can be kept as data",
            )
    return GraphData(type(module).__name__, module.training, tuple(nodes), layers, _tensors(module)).to_json()


def _tensors(module: GraphModule) -> dict[str, TensorData]:
    """Every parameter and buffer under each of its names."""
    named = [
        *(("parameter", name, tensor) for name, tensor in module.named_parameters(remove_duplicate=False)),
        *(("buffer", name, tensor) for name, tensor in module.named_buffers(remove_duplicate=False)),
    ]
    first: dict[int, str] = {}
    out = {}
    for kind, name, tensor in named:
        other = first.setdefault(id(tensor), name)
        dtype = str(tensor.dtype).removeprefix("torch.")
        same_as = None if other == name else other
        out[name] = TensorData(kind, tuple(tensor.shape), dtype, tensor.requires_grad, same_as)
    return out


def _settings(layer: nn.Module) -> dict[str, object]:
    """What the constructor of one of `LAYERS` takes."""
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return {
            "num_features": layer.num_features,
            "eps": layer.eps,
            "momentum": layer.momentum,
            "affine": layer.weight is not None,
        }
    return {"p": layer.p}


def _function_name(node: Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target)
    for name, function in ARITHMETIC.items():
        if node.target is function:
            return f"operator.{name}"
    raise PassFailed(f"the graph calls {node.target}, which cannot be kept as data")


def _encode(value: Any) -> Any:
    """An argument of a node as JSON: what JSON does not have is an object with its kind
    as the only key."""
    if isinstance(value, Node):
        return {"node": value.name}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[key, _encode(item)] for key, item in value.items()]}
    for name, kind in NAMED.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise PassFailed(f"the graph holds a {type(value).__name__}, which cannot be kept as data")


def scriptable(module: GraphModule) -> GraphModule:
    """A copy that `torch.jit.script` compiles: TorchScript knows operators, and picks
    their overloads itself."""
    made = copy.deepcopy(module)
    for node in made.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket
    made.recompile()
    return made


def container(root: nn.Module, path: str) -> nn.Module:
    """The module at a dotted path. Modules that are missing on the way to it are added,
    empty."""
    for part in path.split(".") if path else []:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    return root


def rebuild(data: Json, where: str) -> GraphModule:
    """The module, its tensors empty. `where`: what messages call the file. Raises
    `ModelRefused` for anything that is not on the lists above."""
    try:
        return _Reader(GraphData.from_json(data), where).module()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise ModelRefused(
            f"{where}: the graph cannot be read: {type(error).__name__}: {error}",
            "write the bundle again with mlopt",
        ) from error


class _Reader:
    """Builds a module from its data, and refuses what is not on the lists."""

    def __init__(self, data: GraphData, where: str) -> None:
        self.data, self.where = data, where
        self.nodes: dict[str, Node] = {}

    def refuse(self, what: str) -> ModelRefused:
        return ModelRefused(f"{self.where}: the graph {what}", "only graphs that mlopt wrote are read")

    def module(self) -> GraphModule:
        root, graph = nn.Module(), Graph()
        for path, layer in self.data.layers.items():
            kind = LAYERS.get(layer.kind)
            if kind is None:
                raise self.refuse(f"has a layer {layer.kind!r}")
            self._add(root, path, kind(**layer.settings))
        made: dict[str, torch.Tensor] = {}
        for name, spec in self.data.tensors.items():
            self._tensor(root, name, spec, made)
        for node in self.data.nodes:
            self._node(graph, node)
        graph.lint()
        name = self.data.name
        if not NAME.fullmatch(name):
            raise self.refuse(f"is called {name!r}")
        module = GraphModule(root, graph, name)
        module.train(self.data.training)
        return module

    def _path(self, path: Any) -> str:
        if not (isinstance(path, str) and PATH.fullmatch(path)):
            raise self.refuse(f"uses the name {path!r}")
        return path

    def _add(self, root: nn.Module, path: str, child: nn.Module) -> None:
        parent, _, leaf = self._path(path).rpartition(".")
        container(root, parent).add_module(leaf, child)

    def _tensor(self, root: nn.Module, path: str, spec: TensorData, made: dict[str, torch.Tensor]) -> None:
        parent, _, leaf = self._path(path).rpartition(".")
        holder = container(root, parent)
        dtype = getattr(torch, spec.dtype)
        if not isinstance(dtype, torch.dtype):
            raise self.refuse(f"has a tensor of type {spec.dtype!r}")
        if spec.same_as is not None:
            tensor = made[spec.same_as]
        else:
            tensor = torch.empty(spec.shape, dtype=dtype)
            if spec.kind == "parameter":
                tensor = nn.Parameter(tensor, spec.grad and dtype.is_floating_point)
        made[path] = tensor
        table: dict[str, Any] = holder._parameters if spec.kind == "parameter" else holder._buffers
        if leaf in holder._modules or hasattr(type(holder), leaf):
            raise self.refuse(f"uses the name {path!r} twice")
        table[leaf] = tensor

    def _node(self, graph: Graph, node: NodeData) -> None:
        name, op = node.name, node.op
        if not NAME.fullmatch(name):
            raise self.refuse(f"uses the name {name!r}")
        if op == "placeholder":
            self.nodes[name] = graph.placeholder(name)
            return
        args, kwargs = self._decode(node.args), {} if node.kwargs is None else self._decode(node.kwargs)
        if op == "output":
            graph.output(args[0])
        elif op in ("call_module", "get_attr"):
            if node.target not in (self.data.layers if op == "call_module" else self.data.tensors):
                raise self.refuse(f"uses {node.target!r}, which it does not hold")
            self.nodes[name] = graph.create_node(op, self._path(node.target), args, kwargs, name)
        elif op == "call_method":
            self.nodes[name] = graph.create_node(op, "size", args, kwargs, name)
        elif op == "call_function":
            self.nodes[name] = graph.create_node(op, self._function(str(node.target)), args, kwargs, name)
        else:
            raise self.refuse(f"has a node {op!r}")

    def _function(self, target: str) -> Any:
        kind, _, rest = target.partition(".")
        if kind == "operator" and rest in ARITHMETIC:
            return ARITHMETIC[rest]
        name, _, overload = rest.partition(".")
        if kind == "aten" and NAME.fullmatch(name) and NAME.fullmatch(overload):
            found = getattr(getattr(torch.ops.aten, name, None), overload, None)
            if isinstance(found, torch._ops.OpOverload) and all(
                "str" not in str(argument.type) or argument.name in TEXTS
                for argument in found._schema.arguments
            ):
                return found
        raise self.refuse(f"calls {target!r}")

    def _decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        ((kind, inner),) = value.items()
        if kind == "node":
            return self.nodes[inner]
        if kind == "tuple":
            return tuple(self._decode(item) for item in inner)
        if kind == "dict":
            return {str(key): self._decode(item) for key, item in inner}
        if kind == "device":
            return torch.device(inner)
        found = getattr(torch, str(inner), None)
        if kind not in NAMED or not isinstance(found, NAMED[kind]):
            raise self.refuse(f"holds {kind!r}")
        return found
