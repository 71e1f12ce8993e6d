"""The tensors that a module holds: where each lives, under which name, and how one takes another's place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def holders(module: nn.Module) -> Iterator[tuple[str, dict[str, Any], str, torch.Tensor]]:
    """Every parameter and buffer with the dict that holds it: (full name, dict, key, tensor); aliases included."""
    for path, child in module.named_modules(remove_duplicate=False):
        for table in (child._parameters, child._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    yield (f"{path}.{key}" if path else key), table, key, tensor


def canonical(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every distinct parameter and buffer under its first name."""
    seen: set[int] = set()
    out = {}
    for name, _, _, tensor in holders(module):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            out[name] = tensor
    return out


def in_place_of(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """`new` as what `old` was: a parameter with the same need of a gradient, or a plain tensor."""
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def relink(module: nn.Module) -> None:
    """Recurrent layers keep a second list of their parameters: make it again after tensors were replaced."""
    for child in module.modules():
        if isinstance(child, nn.RNNBase):
            child._init_flat_weights()
