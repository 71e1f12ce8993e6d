"""Example inputs for an artifact: real ones where there is data, synthetic ones where
there is none."""

from __future__ import annotations

import torch

from mlopt.artifact import Artifact
from mlopt.data.sets import DataSet
from mlopt.errors import DataError
from mlopt.model.inputs import synthetic

SYNTHETIC_SAMPLES = 8
"""More synthetic samples would show no more than these."""


def samples_for(
    artifact: Artifact, count: int, data: DataSet, seed: int = 0
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
    """Inputs (samples first) and targets of about `count` samples: calibration data if
    there is any, else other data, else synthetic inputs without targets.

    For a fixed batch the count is a multiple of it. Raises `DataError` when the data
    has fewer inputs than the model.
    """
    fixed = artifact.fixed_batch
    part = data.any_part()
    if part is None:
        if fixed is None:
            return synthetic(artifact.inputs, dynamic=min(count, SYNTHETIC_SAMPLES), seed=seed), None
        return synthetic(artifact.inputs, seed=seed), None
    inputs, target = part.take(count if fixed is None else max(fixed, count // fixed * fixed))
    if len(inputs) != len(artifact.inputs):
        raise DataError(
            f"the data gives {len(inputs)} inputs a batch, the model takes {len(artifact.inputs)}",
            "give --input once for each",
        )
    if fixed is not None and len(inputs[0]) < fixed:
        raise DataError(
            f"the model's batch is fixed at {fixed}, the data has {len(inputs[0])} samples",
            "leave the batch dynamic: --input batch,...",
        )
    return inputs, target
