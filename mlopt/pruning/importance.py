"""How much a channel matters. The score of a class is summed over every weight that
carries it, then divided by its group's mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mlopt.pruning.groups import Group
from mlopt.pruning.propagation import Propagation

KINDS = ("l2", "l1", "taylor", "bn", "random")
"""`random` is the control; `bn` is network slimming (Liu et al., arXiv 1708.06519)."""


def l2(tensor: torch.Tensor) -> torch.Tensor:
    """Squared magnitude; summed over a slice it is the squared L2 norm (Li et al.,
    arXiv 1608.08710, over the whole group).
    """
    return tensor.detach().float().square()


def l1(tensor: torch.Tensor) -> torch.Tensor:
    """Magnitude; summed over a slice it is the L1 norm."""
    return tensor.detach().float().abs()


def taylor_of(gradients: dict[str, torch.Tensor]) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """First-order change of the loss when a weight goes: weight times gradient
    (Molchanov et al., arXiv 1906.10771).
    """

    def score(name: str, tensor: torch.Tensor) -> torch.Tensor:
        gradient = gradients.get(name)
        return (
            torch.zeros_like(tensor, dtype=torch.float32)
            if gradient is None
            else (tensor.detach() * gradient).float()
        )

    return score


def mean_gradients(
    module: nn.Module, losses: Iterable[Callable[[], torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """The gradient of the summed losses for every parameter; the module's own `.grad`
    fields are left as they were.
    """
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    total: dict[str, torch.Tensor] = {}
    for loss in losses:
        grads = torch.autograd.grad(loss(), list(named.values()), allow_unused=True)
        for name, gradient in zip(named, grads, strict=True):
            if gradient is not None:
                total[name] = total[name] + gradient if name in total else gradient
    return total


def score_classes(
    flow: Propagation,
    groups: list[Group],
    weights: Mapping[str, torch.Tensor],
    kind: str,
    gradients: dict[str, torch.Tensor] | None = None,
    seed: int = 0,
) -> list[NDArray[np.float64]]:
    """For each group, one score a class (mean 1 within the group). `kind`: one of
    `KINDS`.

    `bn` ranks by the scale of the normalisations a channel passes; a group without any
    falls back to `l2`.
    """
    if kind == "random":
        draw = np.random.default_rng(seed)
        return [2 * draw.random(len(group.classes)) for group in groups]
    totals = np.zeros(len(flow.labels))
    scales = np.zeros(len(flow.labels))
    taylor = taylor_of(gradients or {})
    for name, dims in flow.weights.items():
        tensor = weights[name]
        if kind == "bn" and tensor.ndim == 1 and name in flow.scales:
            np.add.at(scales, flow.labels.find(dims[0]), tensor.detach().double().abs().cpu().numpy())
        if tensor.ndim < 2:
            continue  # biases and normalisation scales follow; counting them would reward a large bias
        roots = [flow.labels.find(dim) for dim in dims]
        if not any(root.any() for root in roots):
            continue
        contribution = (
            taylor(name, tensor) if kind == "taylor" else l1(tensor) if kind == "l1" else l2(tensor)
        )
        for dim, root in enumerate(roots):
            if root.any():
                other = [k for k in range(tensor.ndim) if k != dim]
                by_index = contribution.sum(other).double().abs().cpu().numpy()
                np.add.at(totals, root, by_index)
    scores = []
    for group in groups:
        values = totals[group.classes]
        if kind == "bn" and scales[group.classes].any():
            values = scales[group.classes]
        scores.append(values / max(float(values.mean()), 1e-30))
    return scores
