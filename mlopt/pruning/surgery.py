"""The cut as data, and the hand that makes it.

A `Surgery` says for each weight which indices stay, for each attribute its old and new value, and for each replaced module the class that
takes over. It is JSON, it is what a bundle stores, and `apply` replays it on a live module or on one whose tensors are on the meta device.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from mlopt.pruning.propagation import Propagation

ATTENTION = "mlopt.pruning.attention.PrunedMultiheadAttention"
SKIPPED = "mlopt.pruning.depth.Skipped"
REPLACEMENTS = frozenset({ATTENTION, SKIPPED})
"""The only classes that a surgery may name."""


@dataclass
class Surgery:
    """One pruning as data. Weight names are those of `named_parameters` and `named_buffers`."""

    weights: dict[str, list[list[int] | None]] = field(default_factory=dict)
    attributes: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def set(self, path: str, name: str, old: Any, new: Any) -> None:
        """Record an attribute change, if it is one."""
        if old != new:
            self.attributes.setdefault(path, {})[name] = [old, new]


def plan_weights(flow: Propagation, dropped: NDArray[np.bool_]) -> Surgery:
    """Which indices of which weights stay."""
    surgery = Surgery()
    for name, dims in flow.weights.items():
        keeps: list[list[int] | None] = []
        for dim in dims:
            gone = dropped[flow.labels.find(dim)]
            keeps.append(np.nonzero(~gone)[0].tolist() if gone.any() else None)
        if any(keep is not None for keep in keeps):
            surgery.weights[name] = keeps
    return surgery


def cut_tensor(tensor: torch.Tensor, keeps: list[list[int] | None]) -> torch.Tensor:
    """The kept indices of a tensor, as a new contiguous tensor without history."""
    out = tensor.detach()
    for dim, keep in enumerate(keeps):
        if keep is not None:
            out = out.index_select(dim, torch.tensor(keep, dtype=torch.long, device=out.device))
    return out.clone() if out is tensor or out.data_ptr() == tensor.data_ptr() else out


def in_place_of(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """`new` as what `old` was: a parameter with the same need of a gradient, or a plain tensor."""
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def holders(module: nn.Module) -> Iterator[tuple[str, dict[str, Any], str, torch.Tensor]]:
    """Every parameter and buffer with the dict that holds it: (full name, dict, key, tensor); aliases included."""
    for path, child in module.named_modules(remove_duplicate=False):
        for table in (child._parameters, child._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    yield (f"{path}.{key}" if path else key), table, key, tensor


def relink(module: nn.Module) -> None:
    """Recurrent layers keep a second list of their parameters: make it again after tensors were replaced."""
    for child in module.modules():
        if isinstance(child, nn.RNNBase):
            child._init_flat_weights()


def apply(module: nn.Module, surgery: Surgery) -> nn.Module:
    """Cut `module` in place and return it (the root itself may be replaced). Shared tensors stay shared."""
    named = {name: tensor for name, _, _, tensor in holders(module)}
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
    """Put a new object of an allow-listed class, with the old object's state, where the old one was."""
    if name not in REPLACEMENTS:
        raise ValueError(f"a surgery may not name the class {name}")
    module_name, _, class_name = name.rpartition(".")
    kind = getattr(importlib.import_module(module_name), class_name)
    old = root.get_submodule(path)
    new: nn.Module = kind.__new__(kind)
    if name == SKIPPED:  # its weights go; what others read of it (a layer's number, its kind of attention) stays
        nn.Module.__init__(new)
        new.training = old.training
        new.__dict__.update({key: value for key, value in vars(old).items() if not key.startswith("_") and key != "training"})
    else:
        new.__dict__.update(old.__dict__)
    if not path:
        return new
    parent, _, key = path.rpartition(".")
    root.get_submodule(parent)._modules[key] = new
    return root


def leaf_changes(module: nn.Module, surgery: Surgery, heads: dict[str, int], soft: bool = False) -> None:
    """Add what the stock layers remember of their own sizes, and what must take over from `nn.MultiheadAttention`.

    `module` is still dense. `heads`: kept heads of each attention module whose heads were cut, by path.
    `soft`: group normalisations keep their groups.
    """
    for path, child in module.named_modules():
        prefix = f"{path}." if path else ""

        def kept(name: str, dim: int, prefix: str = prefix) -> int | None:
            keeps = surgery.weights.get(prefix + name)
            return len(keeps[dim]) if keeps is not None and keeps[dim] is not None else None  # type: ignore[arg-type]

        if isinstance(child, _ConvNd):
            first, second = kept("weight", 0), kept("weight", 1)
            transposed = isinstance(child, _ConvTransposeNd)
            depthwise = child.groups > 1 and child.groups == child.in_channels
            rows = child.weight.shape[0] if first is None else first
            columns = child.weight.shape[1] if second is None else second
            groups = child.groups
            if depthwise and first is not None:
                groups = rows if transposed else rows * child.groups // child.out_channels
            surgery.set(path, "groups", child.groups, groups)
            surgery.set(path, "in_channels", child.in_channels, rows if transposed else columns * groups)
            surgery.set(path, "out_channels", child.out_channels, columns * groups if transposed else rows)
        elif isinstance(child, nn.Linear):
            surgery.set(path, "out_features", child.out_features, kept("weight", 0) or child.out_features)
            surgery.set(path, "in_features", child.in_features, kept("weight", 1) or child.in_features)
        elif isinstance(child, _NormBase):
            for name in ("weight", "running_mean"):
                size = kept(name, 0)
                if size is not None:
                    surgery.set(path, "num_features", child.num_features, size)
        elif isinstance(child, nn.GroupNorm):
            size = kept("weight", 0)
            if size is not None:
                if not soft:  # whole groups went; else every group is narrower
                    surgery.set(path, "num_groups", child.num_groups, size * child.num_groups // child.num_channels)
                surgery.set(path, "num_channels", child.num_channels, size)
        elif isinstance(child, (nn.LayerNorm, nn.RMSNorm)):
            if child.weight is not None:
                shape = list(child.normalized_shape)
                surgery.set(path, "normalized_shape", shape, [kept("weight", dim) or size for dim, size in enumerate(shape)])
        elif isinstance(child, (nn.Embedding, nn.EmbeddingBag)):
            surgery.set(path, "embedding_dim", child.embedding_dim, kept("weight", 1) or child.embedding_dim)
        elif isinstance(child, nn.RNNBase):
            surgery.set(path, "input_size", child.input_size, kept("weight_ih_l0", 1) or child.input_size)
            surgery.set(path, "hidden_size", child.hidden_size, kept("weight_hh_l0", 1) or child.hidden_size)
        elif isinstance(child, nn.PReLU):
            surgery.set(path, "num_parameters", child.num_parameters, kept("weight", 0) or child.num_parameters)
        elif isinstance(child, nn.MultiheadAttention) and path in heads:
            surgery.modules[path] = ATTENTION
            surgery.set(path, "num_heads", child.num_heads, heads[path])
            surgery.set(path, "_qkv_same_embed_dim", child._qkv_same_embed_dim, False)


LEAVES = (
    _ConvNd,
    nn.Linear,
    _NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.PReLU,
    nn.MultiheadAttention,
    nn.RNNBase,
)
"""Classes whose sizes `leaf_changes` knows; `mend` leaves their attributes alone."""
