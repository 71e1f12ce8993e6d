"""A module as JSON: the tree of its classes with their plain attributes, and which
tensors it holds. Rebuilt without constructors.

Tensors are named, not stored: a shared tensor has one name. Attributes that are not
plain data cannot be written, and say so.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from mlopt.errors import ModelRefused, PassFailed
from mlopt.model.allowlist import FUNCTIONS, MODULE_PREFIXES, narrow_flags, resolve, resolve_class
from mlopt.model.structure_data import ModuleEntry, Structure, TensorEntry
from mlopt.model.tensors import relink
from mlopt.model.trust import Trust

_OWN_TABLES = frozenset(
    {
        "_parameters",
        "_buffers",
        "_modules",
        "_non_persistent_buffers_set",
        "_is_full_backward_hook",
        "_flat_weights",
        "_flat_weight_refs",
    }
)
"""What `nn.Module` keeps for itself, and a recurrent layer's lists of its own
parameters, made again by `relink`."""


class Unwritable(PassFailed):
    """A module holds something that cannot be written as plain data."""


def describe(module: nn.Module) -> Structure:
    """The structure of a module. Raises `Unwritable` for one that holds what is not
    plain data."""
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
            raise Unwritable(
                f"{path or 'the model'} has hooks, which are code and cannot be written as data",
                "remove the hooks first",
            )
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
            children={
                key: None if sub is None else visit(sub, f"{path}.{key}" if path else key)
                for key, sub in child._modules.items()
            },
        )
        return index

    def tensor_entry(path: str, key: str, tensor: torch.Tensor | None) -> TensorEntry | None:
        if tensor is None:
            return None
        name = tensors.setdefault(id(tensor), f"{path}.{key}" if path else key)
        return TensorEntry(
            name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.requires_grad
        )

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
    """Plain data as JSON; anything else is tagged by what it is. Raises
    `Unwritable`."""
    if (
        value is None
        or isinstance(value, (bool, str))
        or (isinstance(value, (int, float)) and type(value) in (int, float))
    ):
        return (
            {"float": repr(value)}
            if (isinstance(value, float) and value != value) or value in (float("inf"), float("-inf"))
            else value
        )
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
    if (
        hasattr(value, "__dict__")
        and not callable(value)
        and not isinstance(value, (torch.Tensor, nn.Module))
        and "<" not in full_name(type(value))
    ):
        return {
            "object": full_name(type(value)),
            "state": {key: encode(item, f"{where}.{key}") for key, item in vars(value).items()},
        }
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
        return functools.partial(
            decode(function, trust),
            *(decode(a, trust) for a in args),
            **{k: decode(v, trust) for k, v in named.items()},
        )
    if tag == "class":
        return resolve_class(payload, trust)
    if tag == "function" and payload in FUNCTIONS:
        return resolve(payload)
    if tag == "object":
        kind = resolve_class(payload, trust)
        made = kind.__new__(kind)
        made.__dict__.update({key: decode(item, trust) for key, item in data["state"].items()})
        return made
    raise ModelRefused(
        f"the bundle holds an unknown value '{tag}'", "it was written by a newer mlopt, or altered"
    )


def check(structure: Structure, trust: Trust, where: str) -> None:
    """Refuse classes that nobody allowed, before any is imported. Raises `ModelRefused`
    with the flags."""
    refused = [
        name for name in structure.classes() if not name.startswith(MODULE_PREFIXES) and not trust.named(name)
    ]
    if refused:
        raise ModelRefused(
            f"{where} names classes outside the allow-list: {', '.join(refused)}",
            f"if you trust them: {narrow_flags(refused)}",
        )


def rebuild(structure: Structure, trust: Trust) -> nn.Module:
    """The module, its tensors on the meta device. Call `check` first. Raises
    `ModelRefused`."""
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
        parameters = {key: tensor(value, True) for key, value in entry.parameters.items()}
        made._parameters.update(parameters)  # type: ignore[arg-type]
        made._buffers.update({key: tensor(value, False) for key, value in entry.buffers.items()})
        made._non_persistent_buffers_set.update(entry.transient)
        made._modules.update(
            {key: None if index is None else modules[index] for key, index in entry.children.items()}
        )
    relink(modules[0])
    return modules[0]
