"""A module as JSON: the tree of its classes with their plain attributes, and which tensors it holds. Rebuilt without constructors.

Tensors are named, not stored: a shared tensor has one name. Attributes that are not plain data cannot be written, and say so.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mlopt.artifact import Json
from mlopt.errors import ModelRefused, PassFailed
from mlopt.model.allowlist import FUNCTIONS, MODULE_PREFIXES, narrow_flags, resolve, resolve_class
from mlopt.model.tensors import relink
from mlopt.model.trust import Trust

_OWN_TABLES = frozenset(
    {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_is_full_backward_hook", "_flat_weights", "_flat_weight_refs"}
)
"""What `nn.Module` keeps for itself, and a recurrent layer's lists of its own parameters, made again by `relink`."""


class Unwritable(PassFailed):
    """A module holds something that is not plain data."""


@dataclass(frozen=True)
class TensorEntry:
    """A parameter or buffer. `name`: the first full name under which the tensor is found, so that aliases share it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    grad: bool

    def to_json(self) -> Json:
        return {"name": self.name, "shape": [*self.shape], "dtype": self.dtype, "grad": self.grad}

    @classmethod
    def from_json(cls, data: Any) -> TensorEntry:
        return cls(str(data["name"]), tuple(int(size) for size in data["shape"]), str(data["dtype"]), bool(data["grad"]))


@dataclass(frozen=True)
class ModuleEntry:
    """A module: its class by full name, its attributes as `encode` writes them, its tensors (None where one is not set),
    the buffers that a state dict leaves out, and its children by their index in `Structure.modules`."""

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
            "parameters": {key: tensor.to_json() if tensor else None for key, tensor in self.parameters.items()},
            "buffers": {key: tensor.to_json() if tensor else None for key, tensor in self.buffers.items()},
            "transient": [*self.transient],
            "children": {**self.children},
        }

    @classmethod
    def from_json(cls, data: Any) -> ModuleEntry:
        def tensors(table: Any) -> dict[str, TensorEntry | None]:
            return {key: None if entry is None else TensorEntry.from_json(entry) for key, entry in table.items()}

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
    """All modules of a tree, parents before children; the first is the root. A module that is used twice is there once."""

    modules: tuple[ModuleEntry, ...]

    def to_json(self) -> Json:
        """As it stands under `structure` in `model.json`."""
        return {"modules": [entry.to_json() for entry in self.modules]}

    @classmethod
    def from_json(cls, data: Any) -> Structure:
        """The inverse. Raises `KeyError`, `TypeError`, `ValueError` or `AttributeError` for anything else."""
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
        """Every full name that a parameter has, aliases included. Raises `ModelRefused` for a module within itself."""
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


def describe(module: nn.Module) -> Structure:
    """The structure of a module. Raises `Unwritable` for one that holds what is not plain data."""
    order: dict[int, int] = {}
    entries: list[ModuleEntry | None] = []
    tensors: dict[int, str] = {}

    def visit(child: nn.Module, path: str) -> int:
        if id(child) in order:
            return order[id(child)]
        index = order[id(child)] = len(entries)
        entries.append(None)  # parents come before their children
        hooks = [key for key, value in vars(child).items() if key.endswith("_hooks") and value]
        if hooks:
            raise Unwritable(f"{path or 'the model'} has hooks, which are code and cannot be written as data", "remove the hooks first")
        entries[index] = ModuleEntry(
            kind=full_name(type(child)),
            attributes={
                key: encode(value, f"{path}.{key}")
                for key, value in vars(child).items()
                if key not in _OWN_TABLES and "_hooks" not in key and key != "training"
            },
            training=child.training,
            parameters={key: tensor_entry(path, key, value) for key, value in child._parameters.items()},
            buffers={key: tensor_entry(path, key, value) for key, value in child._buffers.items()},
            transient=tuple(sorted(child._non_persistent_buffers_set)),
            children={key: None if sub is None else visit(sub, f"{path}.{key}" if path else key) for key, sub in child._modules.items()},
        )
        return index

    def tensor_entry(path: str, key: str, tensor: torch.Tensor | None) -> TensorEntry | None:
        if tensor is None:
            return None
        name = tensors.setdefault(id(tensor), f"{path}.{key}" if path else key)
        return TensorEntry(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.requires_grad)

    visit(module, "")
    return Structure(tuple(entry for entry in entries if entry is not None))


def full_name(kind: Any) -> str:
    """`package.module.Class`."""
    return f"{kind.__module__}.{kind.__qualname__}"


def function_name(value: Any) -> str | None:
    """The allow-listed name of an activation function."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__name__", "")
    for head in (module, "torch.nn.functional", "torch._C._nn", "torch"):
        full = f"{head}.{name}"
        if full in FUNCTIONS:
            try:
                if resolve(full) is value:
                    return full
            except Exception:  # noqa: S112 - another head may hold it
                continue
    return None


def encode(value: Any, where: str) -> Any:
    """Plain data as JSON; anything else is tagged by what it is. Raises `Unwritable`."""
    if value is None or isinstance(value, (bool, str)) or (isinstance(value, (int, float)) and type(value) in (int, float)):
        return {"float": repr(value)} if (isinstance(value, float) and value != value) or value in (float("inf"), float("-inf")) else value
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, torch.Size):
        return {"size": list(value)}
    if type(value) in (list, tuple, set, frozenset):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return {type(value).__name__: [encode(item, f"{where}[{i}]") for i, item in enumerate(items)]}
    if isinstance(value, dict):
        return {"dict": [[encode(k, where), encode(v, f"{where}[{k!r}]")] for k, v in value.items()]}
    if isinstance(value, functools.partial):
        return {
            "partial": [
                encode(value.func, where),
                [encode(arg, where) for arg in value.args],
                {key: encode(arg, f"{where}.{key}") for key, arg in value.keywords.items()},
            ]
        }
    if isinstance(value, type) and issubclass(value, nn.Module):
        return {"class": full_name(value)}
    name = function_name(value)
    if name is not None:
        return {"function": name}
    if hasattr(value, "__dict__") and not callable(value) and not isinstance(value, (torch.Tensor, nn.Module)) and "<" not in full_name(type(value)):
        return {"object": full_name(type(value)), "state": {key: encode(item, f"{where}.{key}") for key, item in vars(value).items()}}
    raise Unwritable(
        f"the attribute {where.lstrip('.')} is a {full_name(type(value))}, which cannot be written as data",
        "give the model as package.module:factory instead: the bundle then names the factory",
    )


def decode(data: Any, trust: Trust) -> Any:
    """The inverse of `encode`. Raises `ModelRefused` for a tag that is not known."""
    if not isinstance(data, dict):
        return data
    tag, payload = next(iter(data.items()))
    if tag == "float":
        return float(payload)
    if tag == "dtype" and isinstance(getattr(torch, payload, None), torch.dtype):
        return getattr(torch, payload)
    if tag == "device":
        return torch.device(payload)
    if tag == "size":
        return torch.Size(payload)
    if tag in ("list", "tuple", "set", "frozenset"):
        kinds = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
        return kinds[tag](decode(item, trust) for item in payload)
    if tag == "dict":
        return {decode(k, trust): decode(v, trust) for k, v in payload}
    if tag == "partial":
        function, args, named = payload
        return functools.partial(decode(function, trust), *(decode(a, trust) for a in args), **{k: decode(v, trust) for k, v in named.items()})
    if tag == "class":
        return resolve_class(payload, trust)
    if tag == "function" and payload in FUNCTIONS:
        return resolve(payload)
    if tag == "object":
        kind = resolve_class(payload, trust)
        made = kind.__new__(kind)
        made.__dict__.update({key: decode(item, trust) for key, item in data["state"].items()})
        return made
    raise ModelRefused(f"the bundle holds an unknown value '{tag}'", "it was written by a newer mlopt, or altered")


def check(structure: Structure, trust: Trust, where: str) -> None:
    """Refuse classes that nobody allowed, before any is imported. Raises `ModelRefused` with the flags."""
    refused = [name for name in structure.classes() if not name.startswith(MODULE_PREFIXES) and not trust.named(name)]
    if refused:
        raise ModelRefused(f"{where} names classes outside the allow-list: {', '.join(refused)}", f"if you trust them: {narrow_flags(refused)}")


def rebuild(structure: Structure, trust: Trust) -> nn.Module:
    """The module, its tensors on the meta device. Call `check` first. Raises `ModelRefused`."""
    tensors: dict[str, torch.Tensor] = {}

    def tensor(entry: TensorEntry | None, parameter: bool) -> torch.Tensor | None:
        if entry is None:
            return None
        if entry.name not in tensors:
            dtype = getattr(torch, entry.dtype, None)
            if not isinstance(dtype, torch.dtype):
                raise ModelRefused(f"the bundle holds a tensor of type {entry.dtype!r}", "it was altered")
            made = torch.empty(entry.shape, dtype=dtype, device="meta")
            tensors[entry.name] = nn.Parameter(made, entry.grad) if parameter else made
        return tensors[entry.name]

    modules: list[nn.Module] = []
    for entry in structure.modules:
        kind = resolve_class(entry.kind, trust)
        made: nn.Module = kind.__new__(kind)
        nn.Module.__init__(made)
        modules.append(made)
    for entry, made in zip(structure.modules, modules, strict=True):
        made.__dict__.update({key: decode(value, trust) for key, value in entry.attributes.items()})
        made.__dict__["training"] = entry.training
        made._parameters.update({key: tensor(value, True) for key, value in entry.parameters.items()})  # type: ignore[misc]
        made._buffers.update({key: tensor(value, False) for key, value in entry.buffers.items()})
        made._non_persistent_buffers_set.update(entry.transient)
        made._modules.update({key: None if index is None else modules[index] for key, index in entry.children.items()})
    relink(modules[0])
    return modules[0]
