"""Labels that cannot belong to a model are refused before anything is learned from
them."""

from __future__ import annotations

import torch

from mlopt.data.parts import Part
from mlopt.errors import DataError


def check_labels(part: Part, outputs: torch.Tensor) -> None:
    """Raises `DataError` when the labels of a part cannot belong to a model with these
    outputs.

    `outputs`: (n, classes) or (n, ..., classes). Only labels that are known without
    reading an input are looked at; `check_batch` sees the others when their batch is
    read.
    """
    targets = part.known_targets()
    if targets is not None:
        check_batch(part.name, targets, outputs)


def check_batch(name: str, target: torch.Tensor, outputs: torch.Tensor) -> None:
    """The same for the targets of one batch. Floats are no labels, and a single output
    has no classes. `name`: the part's."""
    if target.is_floating_point() or outputs.ndim < 2 or not target.numel():
        return
    low, high, classes = int(target.min()), int(target.max()), outputs.shape[-1]
    if low < 0 or high >= classes:
        raise DataError(
            f"the {name} labels run from {low} to {high}, but the model has {classes} outputs",
            f"labels must lie in 0..{classes - 1}",
        )
