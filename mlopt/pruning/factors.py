"""One dimension seen as several, and several seen as one: what a view does to
labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch.fx import Node

from mlopt.pruning.labels import Array, pinned
from mlopt.pruning.nodes import owner

if TYPE_CHECKING:
    from mlopt.pruning.propagation import Propagation


class SplitSite(NamedTuple):
    """Where one dimension is seen as several factors. All lines of one class with the
    same factors are one site.

    `owner`: the class whose forward holds the line. `factors`: sizes, outermost first.
    `dim`: the dimension of the input that is split.
    """

    owner: str
    factors: tuple[int, ...]
    dim: int


Layout = dict[SplitSite, int]
"""Which factor stays cuttable at each site: a position in the site's options. Zero, the
largest, where a site is not in it.
"""


@dataclass(frozen=True)
class Split:
    """A site as one node met it: the factors that could stay cuttable (largest first),
    and the labels of the whole.
    """

    site: SplitSite
    options: list[int]
    labels: Array


def split_dim(flow: Propagation, node: Node, dim: int, labels: Array, factors: list[int]) -> list[Array]:
    """The labels of each factor of one dimension, outermost first; `node` is the view,
    `dim` the dimension of its input.

    A cut of the whole must be a product of cuts of the factors, so only one factor
    stays cuttable and the labels are united along the others. If the labels already
    repeat along all but one factor, that one is it; else `flow.layout` decides.
    """
    wide = [k for k, size in enumerate(factors) if size > 1]
    if len(wide) <= 1:
        free = wide[0] if wide else len(factors) - 1
        return [labels if k == free else pinned(size) for k, size in enumerate(factors)]
    roots = flow.labels.find(labels).reshape(factors)
    if not roots.any():
        return [pinned(size) for size in factors]
    options = sorted(wide, key=lambda k: (-factors[k], -k))
    for k in options:
        rows = np.moveaxis(roots, k, 0).reshape(factors[k], -1)
        if (rows == rows[:, :1]).all():
            free = k
            break
    else:
        site = SplitSite(owner(node), tuple(factors), dim)
        free = options[flow.layout.get(site, 0) % len(options)]
        flow.splits[node.name, dim] = Split(site, options, labels)
    rows = np.moveaxis(labels.reshape(factors), free, 0).reshape(factors[free], -1)
    flow.union(np.repeat(rows[:, :1], rows.shape[1], axis=1).reshape(-1), rows.reshape(-1))
    return [rows[:, 0].copy() if k == free else pinned(size) for k, size in enumerate(factors)]


def merge_dims(flow: Propagation, factors: list[Array]) -> Array:
    """Several dimensions seen as one, outermost first: the inverse of `split_dim`."""
    sizes = [len(array) for array in factors]
    cuttable = [k for k, array in enumerate(factors) if flow.labels.cuttable(array)]
    if not cuttable:
        return pinned(math.prod(sizes))
    free = max(cuttable, key=lambda k: (sizes[k], k))
    for k in cuttable:
        if k != free:
            flow.pin(factors[k])
    view = [1] * len(sizes)
    view[free] = sizes[free]
    return np.broadcast_to(factors[free].reshape(view), sizes).reshape(-1).copy()
