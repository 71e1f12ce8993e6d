"""From an inert description of a pickle to live objects, for allowed names only.
Constructors are not called."""

from __future__ import annotations

import collections
import functools
from typing import Any

import torch
from torch import nn

from mlopt.errors import ModelRefused
from mlopt.model import inert
from mlopt.model.allowlist import FUNCTIONS, allowed, is_dtype, narrow_flags, resolve, resolve_class
from mlopt.model.inert import Document, Inert, Storage
from mlopt.model.trust import Trust

HOSTILE = frozenset(
    {
        "os",
        "posix",
        "nt",
        "subprocess",
        "sys",
        "builtins",
        "socket",
        "shutil",
        "runpy",
        "pty",
        "importlib",
        "webbrowser",
        "ctypes",
    }
)
"""Packages whose functions make a pickle an attack. Only the hint reads this: nothing
of them is allowed anyway."""

REFERENCE_ONLY = FUNCTIONS | {
    "builtins.int",
    "builtins.float",
    "builtins.bool",
    "builtins.str",
    "builtins.list",
    "builtins.dict",
    "builtins.tuple",
}


def build(document: Document, trust: Trust, path: str) -> Any:
    """The object that the file describes. Raises `ModelRefused` naming every global
    that is not allowed, with the flags that would."""
    refused = [name for name in document.globals if not allowed(name, trust)]
    if refused:
        listed = ", ".join(refused)
        raise ModelRefused(f"{path} names what mlopt will not build unasked: {listed}", _advice(refused))
    return _Builder(document, trust, path).value(document.root)


def _advice(refused: list[str]) -> str:
    """The flags that would allow these names, and a warning where a name is one that
    only an attack has."""
    flags = f"if you trust them: {narrow_flags(refused)}"
    hostile = [name for name in refused if name.partition(".")[0] in HOSTILE]
    return f"no model needs {hostile[0]}: this is what an attack looks like; {flags}" if hostile else flags


class _Builder:
    """Builds each described value once, so that shared and cyclic references stay
    shared."""

    def __init__(self, document: Document, trust: Trust, path: str) -> None:
        self._document, self._trust, self._path = document, trust, path
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, torch.UntypedStorage] = {}
        self._keep: list[Any] = []

    def value(self, described: Any) -> Any:
        """The live value of a description."""
        key = id(described)
        if key in self._memo:
            return self._memo[key]
        built = self._make(described)
        self._memo[key] = built
        self._keep.append(described)
        return built

    def _make(self, described: Any) -> Any:
        if isinstance(described, Inert):
            return self._object(described)
        if isinstance(described, type) and issubclass(described, Inert):
            return self._reference(f"{described.module}.{described.name}")
        if isinstance(described, dict):
            out: dict[Any, Any] = {}
            self._memo[id(described)] = out
            for k, v in described.items():
                out[self.value(k)] = self.value(v)
            return out
        if isinstance(described, list):
            items: list[Any] = []
            self._memo[id(described)] = items
            items.extend(self.value(item) for item in described)
            return items
        if isinstance(described, tuple):
            return tuple(self.value(item) for item in described)
        if isinstance(described, (set, frozenset)):
            return type(described)(self.value(item) for item in described)
        if described is None or isinstance(described, (bool, int, float, complex, str, bytes, bytearray)):
            return described
        raise self._refuse(f"a {type(described).__name__} where a plain value was expected")

    def _reference(self, full: str) -> Any:
        """A global that is only referred to: an activation, a dtype, a class inside
        `functools.partial`."""
        if full in REFERENCE_ONLY or is_dtype(full) or self._trust.named(full):
            return resolve(full)
        return resolve_class(full, self._trust)

    def _object(self, described: Inert) -> Any:
        full = f"{described.module}.{described.name}"
        data = described.__dict__
        args = data["args"]
        special = getattr(self, "_make_" + described.name.replace(".", "_"), None)
        if special is not None and not self._trust.named(full):
            return special(described, args, data)
        if full in FUNCTIONS:
            raise self._refuse(f"a call of {full}")
        kind = resolve_class(full, self._trust)
        if not isinstance(kind, type):
            return kind(*(self.value(arg) for arg in args))  # a function that the user allowed by name
        made = kind.__new__(kind, *(() if issubclass(kind, nn.Module) else [self.value(arg) for arg in args]))
        self._memo[id(described)] = made
        state = self.value(data["state"])
        if isinstance(made, nn.Module) and not (isinstance(state, dict) and "_modules" in state):
            raise self._refuse(f"a {full} without the state of a layer")
        if hasattr(type(made), "__setstate__"):
            made.__setstate__(state if state is not None else {})
        elif isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            made.__dict__.update(state[0] or {})
            for name, item in state[1].items():
                setattr(made, name, item)
        elif isinstance(state, dict):
            made.__dict__.update(state)
        for item in data["items"]:
            made.append(self.value(item))
        for key, item in data["entries"]:
            made[self.value(key)] = self.value(item)
        return made

    def _refuse(self, what: str) -> ModelRefused:
        return ModelRefused(
            f"{self._path} holds {what}", "save the weights with safetensors, or the module with torch.save"
        )

    # One method for each plain value of the allow-list: no function that the file names
    # is called.

    def _make_OrderedDict(self, described: Inert, args: Any, data: Any) -> Any:
        out: collections.OrderedDict[Any, Any] = collections.OrderedDict()
        self._memo[id(described)] = out
        for pairs in args:
            for key, item in pairs:
                out[self.value(key)] = self.value(item)
        for key, item in data["entries"]:
            out[self.value(key)] = self.value(item)
        return out  # `_metadata` of a state dict is not needed

    def _make_defaultdict(self, described: Inert, args: Any, data: Any) -> Any:
        return dict(self._make_OrderedDict(described, (), data))

    def _make_set(self, described: Inert, args: Any, data: Any) -> Any:
        return {self.value(item) for item in [*(args[0] if args else []), *data["items"]]}

    def _make_frozenset(self, described: Inert, args: Any, data: Any) -> Any:
        return frozenset(self._make_set(described, args, data))

    def _make_slice(self, described: Inert, args: Any, data: Any) -> Any:
        return slice(*(self.value(arg) for arg in args))

    def _make_complex(self, described: Inert, args: Any, data: Any) -> Any:
        return complex(*(self.value(arg) for arg in args))

    def _make_bytearray(self, described: Inert, args: Any, data: Any) -> Any:
        raise self._refuse("a bytearray")

    def _make_partial(self, described: Inert, args: Any, data: Any) -> Any:
        """`functools.partial(layer class or activation, ...)`, as vision transformers
        keep; inert until somebody calls it."""
        state = self.value(data["state"])
        if not (isinstance(state, tuple) and len(state) >= 3):
            raise self._refuse("a malformed functools.partial")
        function, positional, named = state[:3]
        ok = function in {resolve(name) for name in FUNCTIONS if _exists(name)} or (
            isinstance(function, type) and issubclass(function, nn.Module)
        )
        if not ok and not self._trust.named(
            f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
        ):
            raise self._refuse(f"a functools.partial of {function}")
        return functools.partial(function, *(positional or ()), **(named or {}))

    def _make_Size(self, described: Inert, args: Any, data: Any) -> Any:
        return torch.Size(self.value(args[0]) if args else ())

    def _make_device(self, described: Inert, args: Any, data: Any) -> Any:
        return torch.device(*(self.value(arg) for arg in args))

    def _make__get_layout(self, described: Inert, args: Any, data: Any) -> Any:
        return torch.strided

    def _make__rebuild_tensor(self, described: Inert, args: Any, data: Any) -> Any:
        return self._make__rebuild_tensor_v2(described, (*args, False), data)

    def _make__rebuild_tensor_v2(self, described: Inert, args: Any, data: Any) -> Any:
        storage, offset, size, stride = args[:4]
        if not isinstance(storage, Storage) or storage.dtype not in inert.DTYPES:
            raise self._refuse("a tensor whose storage is not plain")
        if self._document.big_endian:
            raise self._refuse("big-endian tensors")
        dtype = inert.DTYPES[storage.dtype]
        if storage.key not in self._storages:
            self._storages[storage.key] = self._document.storage(storage.key).untyped_storage()
        # torch would silently grow the storage to whatever the pickle claims.
        try:
            reach = (
                int(offset) + sum((int(n) - 1) * int(step) for n, step in zip(size, stride, strict=True)) + 1
                if all(size)
                else 0
            )
            inside = (
                int(offset) >= 0
                and min([*size, *stride], default=0) >= 0
                and reach * dtype.itemsize <= self._storages[storage.key].nbytes()
            )
        except (TypeError, ValueError):
            inside = False
        if not inside:
            raise ModelRefused(
                f"{self._path}: a tensor of size {size} does not fit its storage",
                "the file is damaged or hostile",
            )
        try:
            tensor = torch.empty(0, dtype=dtype).set_(
                self._storages[storage.key], int(offset), tuple(size), tuple(stride)
            )
        except (RuntimeError, TypeError, ValueError) as error:
            raise ModelRefused(
                f"{self._path}: a tensor of size {size} does not fit its storage: {error}"
            ) from error
        return (
            tensor.requires_grad_(bool(args[4])) if len(args) > 4 and tensor.is_floating_point() else tensor
        )

    def _make__rebuild_parameter(self, described: Inert, args: Any, data: Any) -> Any:
        tensor = self.value(args[0])
        if not isinstance(tensor, torch.Tensor):
            raise self._refuse("a parameter that is not a tensor")
        return nn.Parameter(tensor.detach(), bool(args[1]) and tensor.is_floating_point())

    _make__rebuild_parameter_with_state = _make__rebuild_parameter


def _exists(full: str) -> bool:
    head, _, name = full.rpartition(".")
    return hasattr(
        {"torch": torch, "torch.nn.functional": nn.functional, "torch._C._nn": torch._C._nn}.get(head), name
    )
