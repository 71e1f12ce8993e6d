"""Whether a pruned network can be trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mlopt.model.capture import capturable
from mlopt.model.outputs import first_tensors


def trains(pruned: nn.Module, inputs: tuple[Any, ...]) -> bool:
    """One backward step: every gradient is finite and has its parameter's shape. False
    when the output depends on no parameter.

    Raises `ValueError` for a gradient that is not finite where the pruned output is.
    """
    named = {name: p for name, p in pruned.named_parameters() if p.is_floating_point()}
    with capturable(pruned), torch.enable_grad():
        flags = {name: p.requires_grad for name, p in named.items()}
        try:
            for parameter in named.values():
                parameter.requires_grad_(True)
            outputs = [t.float() for t in first_tensors(pruned(*inputs)) if t.requires_grad]
            if not outputs:
                return False
            loss = torch.stack(
                [torch.nan_to_num(t, posinf=0.0, neginf=0.0).square().mean() for t in outputs]
            ).sum()
            gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        finally:
            for name, parameter in named.items():
                parameter.requires_grad_(flags[name])
    for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
        if gradient is not None and (
            gradient.shape != parameter.shape or not bool(torch.isfinite(gradient).all())
        ):
            raise ValueError(f"the gradient of {name} is not finite after pruning")
    return any(gradient is not None for gradient in gradients)
