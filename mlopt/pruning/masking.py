"""Weights with zeros where a cut would take something away: what the dense side of a
proof runs on.
"""

from __future__ import annotations

import torch


def masked(tensor: torch.Tensor, keeps: list[list[int] | None]) -> torch.Tensor:
    """A copy with zeros where indices are cut."""
    out = tensor.detach().clone()
    for dim, keep in enumerate(keeps):
        if keep is not None:
            gone = torch.ones(out.shape[dim], dtype=torch.bool, device=out.device)
            gone[keep] = False
            out.index_fill_(dim, gone.nonzero().flatten(), 0.0)
    return out


def replace_zeros(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Small random weights for those that are all zero, as some heads start: behind
    them a comparison would see nothing.
    """
    generator = torch.Generator().manual_seed(0)
    replaced = {}
    for name, tensor in state.items():
        if (
            tensor.is_floating_point()
            and tensor.ndim >= 1
            and tensor.numel() > 1
            and not name.endswith(("running_mean", "bias"))
        ):
            spread = float(tensor.detach().abs().max())
            if spread < 1e-4:
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32) * 0.1
                replaced[name] = noise.to(tensor.dtype).to(tensor.device)
    return replaced
