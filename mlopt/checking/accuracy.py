"""The metric of a task, in percent."""

from __future__ import annotations

import torch
from torch import nn

from mlopt.data.sets import Part
from mlopt.model.outputs import logits_of


def score(output: torch.Tensor, target: torch.Tensor) -> tuple[str, float]:
    """(metric name, percent): top-1 accuracy for integer targets, R squared for floats.

    `output`: (n, classes) or (n, ..., classes) for integers, as many numbers as
    `target` for floats.
    """
    if target.is_floating_point():
        target = target.reshape(output.shape).double()
        spread = float((target - target.mean()).square().sum())
        return "r2", 100.0 * (1.0 - float((output.double() - target).square().sum()) / max(spread, 1e-12))
    hits = output.reshape(-1, output.shape[-1]).argmax(-1) == target.reshape(-1)
    return "accuracy", 100.0 * float(hits.double().mean())


def evaluate(module: nn.Module, part: Part | None, device: str = "cpu") -> tuple[str, float] | None:
    """(metric name, percent) on a part, in evaluation mode; None without labels."""
    outputs, targets = predict(module, part, device)
    return None if targets is None or outputs is None else score(outputs, targets)


@torch.no_grad()
def predict(
    module: nn.Module, part: Part | None, device: str = "cpu"
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """All logits and all targets of a part, on the CPU."""
    if part is None:
        return None, None
    outputs: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    mode = module.training
    module.eval()
    for inputs, target in part.batches(256):
        if target is None:
            module.train(mode)
            return None, None
        outputs.append(logits_of(module(*(tensor.to(device) for tensor in inputs))).cpu())
        targets.append(target)
    module.train(mode)
    return torch.cat(outputs), torch.cat(targets)
