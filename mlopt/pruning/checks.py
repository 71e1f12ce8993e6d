"""What must hold of a module and its example inputs before anything is captured."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mlopt.errors import UsageError, first_line
from mlopt.model.capture import capturable, user_line
from mlopt.model.outputs import first_tensors
from mlopt.model.tensors import holders


def check_weights(module: nn.Module) -> None:
    """Raises `UsageError` for a module without weights or on the meta device."""
    tensors = [tensor for _, _, _, tensor in holders(module)]
    if any(tensor.is_meta for tensor in tensors):
        raise UsageError(
            f"{type(module).__name__} is on the meta device: it has shapes but no weights",
            "load the weights first (module.to_empty is not enough)",
        )
    if any(isinstance(tensor, nn.UninitializedParameter) for tensor in tensors):
        raise UsageError(
            f"{type(module).__name__} has lazy layers without weights",
            "run it once on an example input first",
        )


def check_runs(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Raises `UsageError` when the module does not run on these inputs, or gives
    nothing finite.
    """
    try:
        with capturable(module), torch.no_grad():
            outputs = first_tensors(module(*inputs))
    except Exception as error:  # whatever a forward raises
        place = user_line(error)
        raise UsageError(
            f"{type(module).__name__} does not run on these inputs{f' ({place})' if place else ''}:"
            f" {type(error).__name__}: {first_line(error)}",
            "give inputs as forward takes them: a tensor, positional tensors, or tensors by name",
        ) from error
    if any(t.numel() for t in outputs) and not any(bool(torch.isfinite(t).any()) for t in outputs):
        raise UsageError(
            f"{type(module).__name__} gives only NaN or Inf on these inputs",
            "look at its weights, or give other inputs",
        )


def batch_of(inputs: tuple[Any, ...]) -> int:
    """Samples in the first tensor of `inputs`."""
    first = next((x for x in inputs if isinstance(x, torch.Tensor) and x.ndim), None)
    return max(1, int(first.shape[0])) if first is not None else 1
