"""The graph of a pruned module as it is kept in `model.json`: plain values, checked for
their types and for nothing else.

What a graph may hold is decided where it is built (`graph.rebuild`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlopt.artifact import Json

if TYPE_CHECKING:
    from pydantic import JsonValue


@dataclass(frozen=True)
class NodeData:
    """A node of `torch.fx`. `target`: None where the operation needs none; `args`: None
    for a placeholder; both encoded by `graph._encode`."""

    name: str
    op: str
    target: str | None
    args: JsonValue
    kwargs: JsonValue

    def to_json(self) -> Json:
        """What is None is left out."""
        fields: Json = {
            "name": self.name,
            "op": self.op,
            "target": self.target,
            "args": self.args,
            "kwargs": self.kwargs,
        }
        return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True)
class LayerData:
    """A layer that the graph calls: its class, by name, and the arguments of its
    constructor."""

    kind: str
    settings: Mapping[str, object]


@dataclass(frozen=True)
class TensorData:
    """A tensor by its shape and type. `kind`: `parameter` or `buffer`; `same_as`: the
    name that an alias first has."""

    kind: str
    shape: tuple[int, ...]
    dtype: str
    grad: bool
    same_as: str | None = None

    def to_json(self) -> Json:
        """`same_as` is left out for what is no alias."""
        fields: Json = {"kind": self.kind, "shape": [*self.shape], "dtype": self.dtype, "grad": self.grad}
        return fields if self.same_as is None else {**fields, "same_as": self.same_as}


@dataclass(frozen=True)
class GraphData:
    """A `torch.fx.GraphModule`. `layers` and `tensors` by their path in it."""

    name: str
    training: bool
    nodes: tuple[NodeData, ...]
    layers: Mapping[str, LayerData]
    tensors: Mapping[str, TensorData]

    def to_json(self) -> Json:
        """As it stands under `graph` in `model.json`."""
        layers: Any = {path: {"class": layer.kind, **layer.settings} for path, layer in self.layers.items()}
        return {
            "name": self.name,
            "training": self.training,
            "nodes": [node.to_json() for node in self.nodes],
            "layers": layers,
            "tensors": {name: tensor.to_json() for name, tensor in self.tensors.items()},
        }

    @classmethod
    def from_json(cls, data: Any) -> GraphData:
        """The inverse. Raises `KeyError`, `TypeError`, `ValueError` or `AttributeError`
        for anything else."""
        nodes = tuple(
            NodeData(
                str(node["name"]), str(node["op"]), node.get("target"), node.get("args"), node.get("kwargs")
            )
            for node in data["nodes"]
        )
        layers = {
            path: LayerData(
                str(layer["class"]), {key: value for key, value in layer.items() if key != "class"}
            )
            for path, layer in data["layers"].items()
        }
        return cls(str(data["name"]), bool(data["training"]), nodes, layers, _tensors(data["tensors"]))

    def parameter_names(self) -> frozenset[str]:
        """Every name that a parameter has, aliases included."""
        return frozenset(name for name, tensor in self.tensors.items() if tensor.kind == "parameter")


def _tensors(data: Any) -> dict[str, TensorData]:
    return {
        name: TensorData(
            str(spec["kind"]),
            tuple(int(size) for size in spec["shape"]),
            str(spec["dtype"]),
            bool(spec["grad"]),
            spec.get("same_as"),
        )
        for name, spec in data.items()
    }
