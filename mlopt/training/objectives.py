"""What training minimises. An objective maps (module, inputs, target) to the mean loss
over the samples given."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from mlopt.data.sets import Part
from mlopt.errors import DataError
from mlopt.model.outputs import logits_of

Objective = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor | None], torch.Tensor]


def supervised_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy for integer targets (classes last), mean squared error for
    floats."""
    if target.is_floating_point():
        return F.mse_loss(output, target.reshape(output.shape))
    return F.cross_entropy(output.reshape(-1, output.shape[-1]), target.reshape(-1))


def supervised(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], target: torch.Tensor | None
) -> torch.Tensor:
    """The loss against the labels. Raises `DataError` when there are none."""
    if target is None:
        raise DataError(
            "training needs labels, and the data has none", "add y to the .npz file, or leave out this pass"
        )
    return supervised_loss(logits_of(module(*inputs)), target)


def distillation(teacher: nn.Module, temperature: float, alpha: float) -> Objective:
    """`alpha * T^2 * KL(teacher || student)` at temperature T, plus `1 - alpha` of the
    labels' loss; without labels, the teacher alone.

    Hinton et al., arXiv 1503.02531. Float outputs (no class dimension) are matched by
    mean squared error.
    """
    teacher.eval()

    def objective(
        module: nn.Module, inputs: tuple[torch.Tensor, ...], target: torch.Tensor | None
    ) -> torch.Tensor:
        with torch.no_grad():
            teacher_logits = logits_of(teacher(*inputs))
        logits = logits_of(module(*inputs))
        if logits.ndim < 2 or (target is not None and target.is_floating_point()):
            from_teacher = F.mse_loss(logits, teacher_logits)
        else:
            log_p = F.log_softmax(teacher_logits.reshape(-1, teacher_logits.shape[-1]) / temperature, -1)
            log_q = F.log_softmax(logits.reshape(-1, logits.shape[-1]) / temperature, -1)
            from_teacher = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2
        return (
            from_teacher
            if target is None
            else alpha * from_teacher + (1 - alpha) * supervised_loss(logits, target)
        )

    return objective


TAYLOR_BATCHES, TAYLOR_BATCH_SIZE = 8, 32


def taylor_losses(module: nn.Module, part: Part | None, seed: int = 0) -> list[Callable[[], torch.Tensor]]:
    """Losses on a few training batches, whose gradients weigh the channels. Raises
    `DataError` without labels."""
    losses: list[Callable[[], torch.Tensor]] = []
    for inputs, target in (
        itertools.islice(part.batches(TAYLOR_BATCH_SIZE, seed=seed), TAYLOR_BATCHES)
        if part is not None
        else ()
    ):
        if target is not None:
            losses.append(functools.partial(_loss_of, module, inputs, target))
    if not losses:
        raise DataError(
            "Taylor importance needs training data with labels",
            "give --data with labels, or use importance: l2",
        )
    return losses


def _loss_of(module: nn.Module, inputs: tuple[torch.Tensor, ...], target: torch.Tensor) -> torch.Tensor:
    return supervised_loss(logits_of(module(*inputs)), target)
