"""What may be built from a model file: the allow-list. `docs/security.md` gives the
reason for every group of names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlopt.errors import UsageError
from mlopt.model.replacements import MOVED
from mlopt.model.trust import Trust

MODULE_PREFIXES = (
    "torch.nn.",
    "torchvision.models.",
    "torchvision.ops.",
    *MOVED,
    "mlopt.model.replacements.",
)
"""Where `nn.Module` subclasses are accepted without asking: they are only rebuilt from
plain attributes, never constructed."""

FUNCTIONS = frozenset(
    f"{module}.{name}"
    for module in ("torch.nn.functional", "torch._C._nn", "torch", "torch._C._VariableFunctions")
    for name in (
        "relu",
        "gelu",
        "silu",
        "elu",
        "leaky_relu",
        "tanh",
        "sigmoid",
        "softmax",
        "log_softmax",
        "hardswish",
        "mish",
        "selu",
        "relu6",
    )
)
"""Activations that transformer layers keep as an attribute. They are referred to, never
called, while a file is read."""

VALUES = frozenset(
    {
        "collections.OrderedDict",
        "collections.defaultdict",
        "builtins.set",
        "builtins.frozenset",
        "builtins.slice",
        "builtins.complex",
        "builtins.bytearray",
        "builtins.dict",
        "builtins.list",
        "builtins.int",
        "builtins.float",
        "builtins.bool",
        "builtins.str",
        "builtins.tuple",
        "__builtin__.set",
        "functools.partial",
        "torch.Size",
        "torch.device",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
        "torch.serialization._get_layout",
    }
)
"""Plain values and tensors, each built by a branch of ours in `build.py` and not by
calling the name."""


def is_dtype(full: str) -> bool:
    """Whether a global is a dtype of torch."""
    head, _, name = full.rpartition(".")
    return head == "torch" and isinstance(getattr(torch, name, None), torch.dtype)


def is_storage(full: str) -> bool:
    """Whether a global is one of torch's storage classes."""
    head, _, name = full.rpartition(".")
    return head in ("torch", "torch.storage") and name.endswith("Storage")


def is_harmless(full: str) -> bool:
    """Whether a global is a plain value, a dtype, a storage or an activation: harmless
    in any file."""
    return full in VALUES or full in FUNCTIONS or is_dtype(full) or is_storage(full)


def allowed(full: str, trust: Trust) -> bool:
    """Whether this global may be used. Imports nothing that the name alone does not
    allow."""
    return is_harmless(full) or full.startswith(MODULE_PREFIXES) or trust.named(full)


def narrow_flags(names: list[str]) -> str:
    """The narrowest flags that would allow these names. No flag helps with a class of a
    script: it has no module to be imported from."""
    if any(name.startswith("__main__.") for name in names):
        return (
            "none can: the class was defined in a script; save model.state_dict() and give --arch"
            " package.module:factory"
        )
    return " ".join(f"--allow-class {name}" for name in names)


def resolve(full: str) -> Any:
    """Import a global by its full name. Raises `UsageError` when it is not there."""
    head, _, name = MOVED.get(full, full).rpartition(".")
    parts = [name]
    while head:
        try:
            value: Any = importlib.import_module(head)
            for part in parts:
                value = getattr(value, part)
            return value
        except ModuleNotFoundError:
            head, _, last = head.rpartition(".")
            parts.insert(0, last)
        except (AttributeError, ValueError) as error:
            raise UsageError(
                f"'{full}' does not exist here: {error}",
                "install or put on PYTHONPATH the package that defines it",
            ) from error
    raise UsageError(
        f"'{full}' cannot be imported", "install or put on PYTHONPATH the package that defines it"
    )


def resolve_class(full: str, trust: Trust) -> Any:
    """A class to rebuild an object of: an `nn.Module` subclass, or any class that the
    user allowed. Raises `UsageError`."""
    value = resolve(full)
    if not trust.named(full) and not (isinstance(value, type) and issubclass(value, nn.Module)):
        raise UsageError(f"'{full}' is not a layer", f"if you trust it: {narrow_flags([full])}")
    return value


def resolve_factory(reference: str) -> Any:
    """`package.module:factory`, with the working directory importable as for `python
    -m`. Raises `UsageError`."""
    module_name, _, name = reference.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"'{reference}': {error}", "give package.module:factory, importable from the working directory"
        ) from error
    except Exception as error:
        raise UsageError(
            f"'{reference}': importing {module_name} raised {type(error).__name__}: {error}", "fix the module"
        ) from error
    for part in name.split("."):
        if not hasattr(value, part):
            raise UsageError(f"'{reference}': {module_name} has no '{name}'", "give package.module:factory")
        value = getattr(value, part)
    if not callable(value):
        raise UsageError(f"'{reference}' is not callable", "give package.module:factory")
    return value
