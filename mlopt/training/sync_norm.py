"""Batch normalisation over all processes, on the CPU too: `nn.SyncBatchNorm` takes GPU
modules only.

With it, N processes compute what one process would with the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn import functional as collective
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class SyncNorm(_BatchNorm):
    """Takes over a batch norm's state; in training its statistics are those of the
    global batch."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        return None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C, ...) to the same shape."""
        if not self.training:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        dims = [0, *range(2, input.dim())]
        view = [1, -1, *([1] * (input.dim() - 2))]
        count = torch.tensor([input.numel() / input.shape[1]], dtype=torch.float64)
        dist.all_reduce(count)
        n = float(count)
        # Two passes: mean first, then centred squares, which does not cancel as E[x^2]
        # - E[x]^2 does.
        mean: torch.Tensor = collective.all_reduce(input.sum(dims)) / n  # type: ignore[no-untyped-call]
        centred = input - mean.view(view)
        squares = centred.square().sum(dims)
        variance: torch.Tensor = collective.all_reduce(squares) / n  # type: ignore[no-untyped-call]
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                assert self.num_batches_tracked is not None
                self.num_batches_tracked += 1
                momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.detach(), momentum)
                self.running_var.lerp_(variance.detach() * (n / max(1.0, n - 1)), momentum)
        out = centred * (variance + self.eps).rsqrt().view(view)
        if self.weight is not None:
            out = out * self.weight.view(view) + self.bias.view(view)
        return out


def synchronised(module: nn.Module, device: str) -> nn.Module:
    """The module with every batch norm synchronised; parameter names and tensors stay
    the same."""
    if device != "cpu":
        convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
        converted: nn.Module = convert(module)
        return converted
    if isinstance(module, _BatchNorm):
        new = SyncNorm.__new__(SyncNorm)
        new.__dict__.update(module.__dict__)
        return new
    for name, child in list(module._modules.items()):
        if child is not None:
            module._modules[name] = synchronised(child, device)
    return module
