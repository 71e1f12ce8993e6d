"""Live modules and tensors, as the Python interface is given them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlopt.artifact import Artifact, Format, TensorSpec
from mlopt.errors import UsageError
from mlopt.model import bundle
from mlopt.model.structure import full_name

Tensors = torch.Tensor | Sequence[torch.Tensor]
Inputs = torch.Tensor | Sequence[torch.Tensor | None] | Mapping[str, torch.Tensor]
"""Example inputs: one tensor, positional tensors (None where an argument is left out),
or tensors by argument name."""


def as_tuple(inputs: Tensors) -> tuple[torch.Tensor, ...]:
    """One tensor or several, as a tuple."""
    return (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)


def positional(module: nn.Module, inputs: Inputs) -> tuple[Any, ...]:
    """Inputs in the order of `forward`, with defaults in the gaps. Raises `UsageError`
    for a name that it does not have."""
    if isinstance(inputs, torch.Tensor):
        return (inputs,)
    if not isinstance(inputs, Mapping):
        return tuple(inputs)
    parameters = inspect.signature(module.forward).parameters
    unknown = sorted(set(inputs) - set(parameters))
    if unknown:
        raise UsageError(
            f"{type(module).__name__}.forward has no argument {', '.join(unknown)}",
            f"it takes {', '.join(parameters)}",
        )
    last = max(list(parameters).index(name) for name in inputs)
    return tuple(
        inputs.get(name, parameter.default) for name, parameter in list(parameters.items())[: last + 1]
    )


def own_classes(model: nn.Module) -> set[str]:
    """The module's classes that are not PyTorch's: allowed, since the caller holds them
    already.

    Raises `UsageError` for one that no other process can import.
    """
    if isinstance(model, torch.fx.GraphModule):
        return set()  # written as a graph, which names no class
    names = {full_name(type(child)) for child in model.modules()}
    lost = sorted(name for name in names if name.startswith("__main__.") or "<locals>" in name)
    if lost:
        raise UsageError(
            f"other processes cannot import {', '.join(lost)}",
            "define the class at the top of a module, not of a script",
        )
    return {name for name in names if not name.startswith("torch.nn.")}


def as_bundle(
    name: str, module: nn.Module, root: Path, specs: tuple[TensorSpec, ...]
) -> tuple[Artifact, bundle.Bundle]:
    """A live module as a bundle in an empty directory, for other processes to open."""
    head = bundle.Bundle(bundle.origin_of(module), specs)
    bundle.write(root, module, head)
    return Artifact(name, Format.MODULE, root, "", "", specs), head
