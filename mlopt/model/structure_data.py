"""The tree of a module's classes as it is kept in `model.json`: plain values, checked
for their types and for nothing else.

What may be rebuilt from it is decided by `structure.check`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlopt.artifact import Json
from mlopt.errors import ModelRefused


@dataclass(frozen=True)
class TensorEntry:
    """A parameter or buffer. `name`: the first full name under which the tensor is
    found, so that aliases share it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    grad: bool

    def to_json(self) -> Json:
        return {"name": self.name, "shape": [*self.shape], "dtype": self.dtype, "grad": self.grad}

    @classmethod
    def from_json(cls, data: Any) -> TensorEntry:
        return cls(
            str(data["name"]),
            tuple(int(size) for size in data["shape"]),
            str(data["dtype"]),
            bool(data["grad"]),
        )


@dataclass(frozen=True)
class ModuleEntry:
    """A module: its class by full name, its attributes as `encode` writes them, its
    tensors (None where one is not set), the buffers that a state dict leaves out, and
    its children by their index in `Structure.modules`."""

    kind: str
    attributes: Json
    training: bool
    parameters: Mapping[str, TensorEntry | None]
    buffers: Mapping[str, TensorEntry | None]
    transient: tuple[str, ...]
    children: Mapping[str, int | None]

    def to_json(self) -> Json:
        return {
            "class": self.kind,
            "attributes": self.attributes,
            "training": self.training,
            "parameters": {
                key: tensor.to_json() if tensor else None for key, tensor in self.parameters.items()
            },
            "buffers": {key: tensor.to_json() if tensor else None for key, tensor in self.buffers.items()},
            "transient": [*self.transient],
            "children": {**self.children},
        }

    @classmethod
    def from_json(cls, data: Any) -> ModuleEntry:
        def tensors(table: Any) -> dict[str, TensorEntry | None]:
            return {
                key: None if entry is None else TensorEntry.from_json(entry) for key, entry in table.items()
            }

        return cls(
            str(data["class"]),
            dict(data["attributes"]),
            bool(data["training"]),
            tensors(data["parameters"]),
            tensors(data["buffers"]),
            tuple(data["transient"]),
            dict(data["children"]),
        )


@dataclass(frozen=True)
class Structure:
    """All modules of a tree, parents before children; the first is the root. A module
    that is used twice is there once."""

    modules: tuple[ModuleEntry, ...]

    def to_json(self) -> Json:
        """As it stands under `structure` in `model.json`."""
        return {"modules": [entry.to_json() for entry in self.modules]}

    @classmethod
    def from_json(cls, data: Any) -> Structure:
        """The inverse. Raises `KeyError`, `TypeError`, `ValueError` or `AttributeError`
        for anything else."""
        modules = tuple(ModuleEntry.from_json(entry) for entry in data["modules"])
        children = [child for entry in modules for child in entry.children.values() if child is not None]
        if not modules or not all(0 <= child < len(modules) for child in children):
            raise ValueError("a module is missing")
        return cls(modules)

    def classes(self) -> list[str]:
        """Every class that is named, by a module or within its attributes, in order."""
        out: dict[str, None] = {}

        def walk(value: Any) -> None:
            if isinstance(value, dict):
                for key, item in value.items():
                    if key in ("class", "object") and isinstance(item, str):
                        out[item] = None
                    walk(item)
            elif isinstance(value, list):
                for item in value:
                    walk(item)

        for entry in self.modules:
            out[entry.kind] = None
            for value in entry.attributes.values():
                walk(value)
        return list(out)

    def parameter_names(self) -> frozenset[str]:
        """Every full name that a parameter has, aliases included. Raises `ModelRefused`
        for a module within itself."""
        out: set[str] = set()
        above: list[int] = []

        def visit(index: int, path: str) -> None:
            if index in above:
                raise ModelRefused("the bundle holds a module that contains itself", "it was altered")
            above.append(index)
            entry = self.modules[index]
            out.update(f"{path}{key}" for key, tensor in entry.parameters.items() if tensor is not None)
            for key, child in entry.children.items():
                if child is not None:
                    visit(child, f"{path}{key}.")
            above.pop()

        visit(0, "")
        return frozenset(out)
