"""What pruning cuts out of a module, as data, and how that is applied.

A `Surgery` says for each weight which indices stay, for each attribute its old and new
value, and for each replaced module the class that takes over. It is JSON, it is what a
bundle stores, and `apply` replays it on a live module or on one whose tensors are on
the meta device.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from mlopt.artifact import Json
from mlopt.model.replacements import ATTENTION, MOVED, SKIPPED, PrunedMultiheadAttention, Skipped
from mlopt.model.tensors import by_name, holders, in_place_of, relink

REPLACEMENTS: dict[str, type[nn.Module]] = {ATTENTION: PrunedMultiheadAttention, SKIPPED: Skipped}
"""The only classes that a surgery may name."""


@dataclass
class Surgery:
    """One pruning as data. Weight names are those of `named_parameters` and
    `named_buffers`."""

    weights: dict[str, list[list[int] | None]] = field(default_factory=dict)
    attributes: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> Json:
        """As in `surgery.json`."""
        return asdict(self)

    def set(self, path: str, name: str, old: Any, new: Any) -> None:
        """Note that an attribute changes; nothing is noted when it does not."""
        if old != new:
            self.attributes.setdefault(path, {})[name] = [old, new]


def cut_tensor(tensor: torch.Tensor, keeps: list[list[int] | None]) -> torch.Tensor:
    """The kept indices of a tensor, as a new contiguous tensor without history."""
    out = tensor.detach()
    for dim, keep in enumerate(keeps):
        if keep is not None:
            out = out.index_select(dim, torch.tensor(keep, dtype=torch.long, device=out.device))
    return out.clone() if out is tensor or out.data_ptr() == tensor.data_ptr() else out


def apply(module: nn.Module, surgery: Surgery) -> nn.Module:
    """Cut `module` in place and return it (the root itself may be replaced). Shared
    tensors stay shared."""
    named = by_name(module)
    by_tensor = {id(named[name]): keeps for name, keeps in surgery.weights.items()}
    done: dict[int, torch.Tensor] = {}
    for _, table, key, tensor in list(holders(module)):
        keeps = by_tensor.get(id(tensor))
        if keeps is None:
            continue
        if id(tensor) not in done:
            done[id(tensor)] = in_place_of(tensor, cut_tensor(tensor, keeps))
        table[key] = done[id(tensor)]
    relink(module)
    for path, name in surgery.modules.items():
        module = replace_class(module, path, name)
    for path, changes in surgery.attributes.items():
        child = module.get_submodule(path)
        for name, (old, new) in changes.items():
            value = getattr(child, name)
            setattr(child, name, type(value)(new) if isinstance(value, (tuple, list)) else new)
            del old
    return module


def replace_class(root: nn.Module, path: str, name: str) -> nn.Module:
    """Put a new object of an allow-listed class, with the old object's state, where the
    old one was."""
    kind = REPLACEMENTS.get(MOVED.get(name, name))
    if kind is None:
        raise ValueError(f"a surgery may not name the class {name}")
    old = root.get_submodule(path)
    new: nn.Module = kind.__new__(kind)
    if (
        kind is Skipped
    ):  # its weights go; what others read of it (a layer's number, its kind of attention) stays
        nn.Module.__init__(new)
        new.training = old.training
        new.__dict__.update(
            {key: value for key, value in vars(old).items() if not key.startswith("_") and key != "training"}
        )
    else:
        new.__dict__.update(old.__dict__)
    if not path:
        return new
    parent, _, key = path.rpartition(".")
    root.get_submodule(parent)._modules[key] = new
    return root
