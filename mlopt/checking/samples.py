"""Which samples an artifact is evaluated on, and how many at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from mlopt.data.sets import Part
from mlopt.errors import DataError

CHUNK = 64
"""Samples of one call, where the artifact leaves its batch open."""
MAX_SAMPLES, MAX_BYTES = 10_000, 256 * 2**20
"""How much of the evaluation data is used at most, for it is held in memory."""


class EvaluationSamples(NamedTuple):
    """`inputs`: positional arrays, samples first. `target`: labels of the same samples,
    None without. `chunk`: samples of one call."""

    inputs: list[NDArray[Any]]
    target: torch.Tensor | None
    chunk: int = CHUNK

    def in_batches_of(self, fixed: int | None) -> EvaluationSamples:
        """Cut to whole batches where an artifact's batch is fixed.

        Raises `DataError` when there are fewer samples than one batch.
        """
        if fixed is None:
            return self
        count = len(self.inputs[0])
        whole = count // fixed * fixed
        if not whole:
            raise DataError(
                f"the data has {count} samples, the artifact takes {fixed} at once", "give more data"
            )
        target = None if self.target is None else self.target[:whole]
        return EvaluationSamples([array[:whole] for array in self.inputs], target, fixed)


def evaluation_samples(part: Part, fixed: int | None = None) -> EvaluationSamples:
    """The samples of a part of the data, cut to whole batches where an artifact's batch
    is fixed at `fixed`. Raises `DataError` when there are fewer than one batch."""
    one, _ = part.take(1)
    each = sum(tensor.numel() * tensor.element_size() for tensor in one)
    tensors, target = part.take(max(1, min(MAX_SAMPLES, MAX_BYTES // max(1, each))))
    return EvaluationSamples([tensor.numpy() for tensor in tensors], target).in_batches_of(fixed)
