"""From the labels that go to a `Surgery`: which indices of which weights stay, and what
stock layers remember of their own sizes.
"""

from __future__ import annotations

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from mlopt.model.replacements import ATTENTION
from mlopt.model.surgery import Surgery
from mlopt.pruning.cut import Cut


def cuts_of(cut: Cut) -> Surgery:
    """Which indices of which weights stay."""
    surgery = Surgery()
    for name, dims in cut.flow.weights.items():
        keeps: list[list[int] | None] = []
        for dim in dims:
            stays = cut.stays(dim)
            keeps.append(None if stays.all() else np.nonzero(stays)[0].tolist())
        if any(keep is not None for keep in keeps):
            surgery.weights[name] = keeps
    return surgery


def leaf_changes(module: nn.Module, surgery: Surgery, cut_statistics: bool = False) -> None:
    """Add what the stock layers remember of their own sizes, and what must take over
    from `nn.MultiheadAttention`.

    `module` is still dense. `cut_statistics`: group normalisations keep their groups.
    """
    for path, child in module.named_modules():
        prefix = f"{path}." if path else ""

        def kept(name: str, dim: int, prefix: str = prefix) -> int | None:
            keeps = surgery.weights.get(prefix + name)
            keep = None if keeps is None else keeps[dim]
            return None if keep is None else len(keep)

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
                if not cut_statistics:  # whole groups went; else every group is narrower
                    surgery.set(
                        path, "num_groups", child.num_groups, size * child.num_groups // child.num_channels
                    )
                surgery.set(path, "num_channels", child.num_channels, size)
        elif isinstance(child, (nn.LayerNorm, nn.RMSNorm)):
            if child.weight is not None:
                shape = list(child.normalized_shape)
                surgery.set(
                    path,
                    "normalized_shape",
                    shape,
                    [kept("weight", dim) or size for dim, size in enumerate(shape)],
                )
        elif isinstance(child, (nn.Embedding, nn.EmbeddingBag)):
            surgery.set(path, "embedding_dim", child.embedding_dim, kept("weight", 1) or child.embedding_dim)
        elif isinstance(child, nn.RNNBase):
            surgery.set(path, "input_size", child.input_size, kept("weight_ih_l0", 1) or child.input_size)
            surgery.set(path, "hidden_size", child.hidden_size, kept("weight_hh_l0", 1) or child.hidden_size)
        elif isinstance(child, nn.PReLU):
            surgery.set(
                path, "num_parameters", child.num_parameters, kept("weight", 0) or child.num_parameters
            )
        elif isinstance(child, nn.MultiheadAttention):
            width = kept("out_proj.weight", 1)
            if width is not None:
                surgery.modules[path] = ATTENTION
                surgery.set(path, "num_heads", child.num_heads, width // int(child.head_dim))
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
"""Classes whose sizes `leaf_changes` knows; `ladder/attributes.py` leaves them alone.
"""
