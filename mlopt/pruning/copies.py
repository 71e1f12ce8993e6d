"""Copies of a module that share its tensors until somebody may write into them."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

from mlopt.errors import PassFailed, first_line
from mlopt.model.tensors import holders, in_place_of, relink


def share_copy(module: nn.Module) -> nn.Module:
    """A deep copy whose tensors are the original's: surgery replaces tensors and never
    writes into them.
    """
    memo = {id(tensor): tensor for _, _, _, tensor in holders(module)}
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # whatever an attribute of the user's module makes of being copied
        raise PassFailed(
            f"{type(module).__name__} cannot be copied: {first_line(error) or type(error).__name__}",
            "torch.nn.utils.weight_norm is one cause: use torch.nn.utils.parametrizations.weight_norm",
        ) from error


def own_tensors(module: nn.Module, foreign: Iterable[torch.Tensor]) -> None:
    """Copy what the cut left shared with the dense module, so that training one does
    not change the other.
    """
    shared = {id(tensor) for tensor in foreign}
    copies: dict[int, torch.Tensor] = {}
    for _, table, key, tensor in list(holders(module)):
        if id(tensor) in shared:
            if id(tensor) not in copies:
                copies[id(tensor)] = in_place_of(tensor, tensor.detach().clone())
            table[key] = copies[id(tensor)]
    relink(module)
