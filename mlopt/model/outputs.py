"""What a module returns: its tensors in order, and the one that a loss or a metric
reads."""

from __future__ import annotations

from typing import Any

import torch

from mlopt.errors import DataError


def first_tensors(output: Any) -> list[torch.Tensor]:
    """All floating-point tensors of a nested output, in order."""
    if isinstance(output, torch.Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        return [t for value in output.values() for t in first_tensors(value)]
    if isinstance(output, (tuple, list)):
        return [t for value in output for t in first_tensors(value)]
    return []


def logits_of(output: Any) -> torch.Tensor:
    """The tensor that a loss or a metric reads: `logits` where the output has them,
    else its first tensor.

    Raises `DataError` for an output without tensors.
    """
    while not isinstance(output, torch.Tensor):
        if isinstance(output, dict):
            output = output.get("logits", next(iter(output.values())))
        elif isinstance(output, (tuple, list)) and output:
            output = output[0]
        elif hasattr(output, "logits"):
            output = output.logits
        else:
            raise DataError(
                f"the model returns a {type(output).__name__}, which no loss is defined for",
                "return a tensor of logits",
            )
    return output
