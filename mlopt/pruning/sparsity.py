"""Zeros without smaller shapes: single weights (unstructured), or two of every four
along the input (2:4).

The mask is where the weights are zero, so nothing is stored beside them; a bundle names
the weights that must keep their zeros, and training puts them back after every step.
Few runtimes gain from zeros: the pass measures which, and the report says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from mlopt.model.tensors import by_name


@dataclass(frozen=True)
class Sparse:
    """What was zeroed. `names`: weights that keep their zeros; `skipped`: with the
    reason why not.
    """

    names: tuple[str, ...]
    zeros: int
    weights: int
    skipped: dict[str, str]


def sparsify(
    module: nn.Module, kind: str, share: float, scores: Mapping[str, torch.Tensor] | None = None
) -> Sparse:
    """Zero the smallest weights of linear and convolution layers in place.

    `kind`: `unstructured` zeroes `share` of all such weights, ranked across layers by
    magnitude relative to the layer's mean (so that no layer is emptied for its scale),
    or `2:4` zeroes the two smallest of every four neighbours along the input dimension,
    as sparse tensor cores want it (Mishra et al., arXiv 2104.08378). `scores`:
    importance of each weight by name, instead of its magnitude.
    """
    chosen, skipped = _weights(module, kind)
    total = sum(weight.numel() for weight in chosen.values())
    rank = {
        name: (scores[name] if scores is not None and name in scores else weight.detach().abs()).float()
        for name, weight in chosen.items()
    }
    zeros = 0
    if kind == "unstructured" and chosen:
        relative = {name: value / value.mean().clamp_min(1e-30) for name, value in rank.items()}
        everything = torch.cat([value.flatten() for value in relative.values()])
        gone = torch.zeros(len(everything), dtype=torch.bool)
        gone[everything.argsort(stable=True)[: round(share * len(everything))]] = True
        at = 0
        for weight in chosen.values():
            mask = gone[at : at + weight.numel()].reshape(weight.shape)
            at += weight.numel()
            weight.data.masked_fill_(mask, 0.0)
            zeros += int(mask.sum())
    else:
        for name, weight in chosen.items():
            mask = _two_of_four(rank[name])
            weight.data.masked_fill_(mask, 0.0)
            zeros += int(mask.sum())
    return Sparse(tuple(sorted(chosen)), zeros, total, skipped)


def _weights(module: nn.Module, kind: str) -> tuple[dict[str, nn.Parameter], dict[str, str]]:
    chosen: dict[str, nn.Parameter] = {}
    skipped: dict[str, str] = {}
    seen: set[int] = set()
    for path, child in module.named_modules():
        weight = getattr(child, "weight", None)
        if not isinstance(child, (nn.Linear, _ConvNd)) or not isinstance(weight, nn.Parameter):
            if parametrize.is_parametrized(child):
                skipped[path] = "its weight is computed from others"
            continue
        name = f"{path}.weight" if path else "weight"
        if id(weight) in seen:
            continue
        seen.add(id(weight))
        if kind == "2:4" and weight.shape[1] % 4:
            skipped[name] = f"its input width {weight.shape[1]} is no multiple of 4"
        else:
            chosen[name] = weight
    return chosen, skipped


def _two_of_four(score: torch.Tensor) -> torch.Tensor:
    """True for the two lowest of every four neighbours along dimension 1."""
    rows = score.movedim(1, -1)
    fours = rows.reshape(*rows.shape[:-1], -1, 4)
    low = torch.zeros_like(fours, dtype=torch.bool).scatter_(
        -1, fours.argsort(dim=-1, stable=True)[..., :2], True
    )
    return low.reshape(rows.shape).movedim(-1, 1)


def masks_of(module: nn.Module, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """For each named weight, 1 where it is not zero."""
    named = by_name(module)
    return {name: (named[name] != 0).to(named[name].dtype) for name in names if name in named}


@torch.no_grad()
def put_back(weights: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor]) -> None:
    """Make the masked weights zero again, after a step moved them. `weights`: the
    module's, by name."""
    for name, mask in masks.items():
        weights[name].mul_(mask)
