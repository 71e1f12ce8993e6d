"""The tensors that a module holds: where each is registered, under which names, and how
one is replaced by another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def holders(module: nn.Module) -> Iterator[tuple[str, dict[str, Any], str, torch.Tensor]]:
    """Every parameter and buffer with the table that holds it: (full name, table, key,
    tensor). Aliases are included, each under its own name."""
    for path, child in module.named_modules(remove_duplicate=False):
        for table in (child._parameters, child._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    yield (f"{path}.{key}" if path else key), table, key, tensor


def by_name(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer under each of its names."""
    return {name: tensor for name, _, _, tensor in holders(module)}


def canonical(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every distinct parameter and buffer under the first of its names: what a bundle
    stores."""
    seen: set[int] = set()
    out = {}
    for name, _, _, tensor in holders(module):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            out[name] = tensor
    return out


def in_place_of(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """`new` as the kind of tensor that `old` was: a parameter (with
    `old.requires_grad`), or a plain tensor."""
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def relink(module: nn.Module) -> None:
    """Recurrent layers keep a second list of their parameters: make it again once
    tensors were replaced."""
    for child in module.modules():
        if isinstance(child, nn.RNNBase):
            child._init_flat_weights()


def raw_bytes(tensor: torch.Tensor) -> bytes:
    """The values of a tensor as they lie in memory, in order."""
    whole = tensor.detach().cpu().contiguous()
    return whole.reshape(-1).view(torch.uint8).numpy().tobytes() if whole.numel() else b""
