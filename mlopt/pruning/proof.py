"""The proof: the pruned network computes what the dense network computes with the same channels masked.

Masking sets the cut indices of every weight to zero, on the way in and on the way out, so a cut channel carries nothing. Since no
normalisation takes statistics over a cut dimension (those are pinned) and batch-norm statistics are frozen, the two must agree to rounding.
No other pruning library checks this.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from mlopt.model.bundle import canonical
from mlopt.model.capture import evaluating, plain_attention
from mlopt.pruning.surgery import Surgery, cut_tensor, holders

TOLERANCE = 1e-4
"""Largest difference, relative to the largest output, in float32: dropping zeros changes the order of summation, no more."""


@dataclass(frozen=True)
class Proof:
    """What was compared. `error` is relative to the largest masked output; `moved` says how much masking changed the dense output."""

    holds: bool
    error: float
    tolerance: float
    moved: float
    perturbed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def first_tensors(output: Any) -> list[torch.Tensor]:
    """All floating tensors of a nested output, in order."""
    if isinstance(output, torch.Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        return [t for value in output.values() for t in first_tensors(value)]
    if isinstance(output, (tuple, list)):
        return [t for value in output for t in first_tensors(value)]
    return []


def masked(tensor: torch.Tensor, keeps: list[list[int] | None]) -> torch.Tensor:
    """A copy with zeros where indices are cut."""
    out = tensor.detach().clone()
    for dim, keep in enumerate(keeps):
        if keep is not None:
            gone = torch.ones(out.shape[dim], dtype=torch.bool, device=out.device)
            gone[keep] = False
            out.index_fill_(dim, gone.nonzero().flatten(), 0.0)
    return out


def lively(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that would make the comparison say nothing (all zero, as some heads start), replaced by small random ones."""
    generator = torch.Generator().manual_seed(0)
    fixed = {}
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.ndim >= 1 and tensor.numel() > 1 and not name.endswith("running_mean"):
            spread = float(tensor.detach().abs().max())
            if spread < 1e-4:
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32) * 0.1
                fixed[name] = noise.to(tensor.dtype).to(tensor.device)
    return fixed


def prove(dense: nn.Module, pruned: nn.Module, surgery: Surgery, inputs: tuple[torch.Tensor, ...]) -> Proof:
    """Run both on real inputs. Raises whatever the pruned module raises: a size that was not mended, usually."""
    state = canonical(dense)  # a shared tensor goes under its first name, and functional_call ties the others
    alive = {name: tensor for name, tensor in lively(state).items() if not name.endswith("bias")}
    named = {name: tensor for name, _, _, tensor in holders(dense)}
    by_id = {id(named[name]): keeps for name, keeps in surgery.weights.items()}
    dense_state, masked_state, pruned_state = dict(alive), {}, {}
    for name, tensor in state.items():
        keeps = by_id.get(id(tensor))
        source = alive.get(name, tensor)
        if keeps is not None:
            masked_state[name] = masked(source, keeps)
        elif name in alive:
            masked_state[name] = source
        if name in alive:
            pruned_state[name] = cut_tensor(source, keeps) if keeps is not None else source
    with evaluating(dense), evaluating(pruned), torch.no_grad(), plain_attention():
        got = first_tensors(torch.func.functional_call(pruned, pruned_state, inputs))
        want = first_tensors(torch.func.functional_call(dense, masked_state, inputs))
        plain = first_tensors(torch.func.functional_call(dense, dense_state, inputs))
    if [t.shape for t in got] != [t.shape for t in want]:
        raise ValueError(f"the pruned module gives {[tuple(t.shape) for t in got]}, the dense one {[tuple(t.shape) for t in want]}")
    error = max((_distance(a, b) for a, b in zip(got, want, strict=True)), default=0.0)
    moved = max((_distance(a, b) for a, b in zip(want, plain, strict=True)), default=0.0)
    return Proof(error <= TOLERANCE, error, TOLERANCE, moved, tuple(sorted(alive)))


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference relative to the largest reference value; infinite when either holds a NaN."""
    if a.numel() == 0:
        return 0.0
    difference = float((a.double() - b.double()).abs().max())
    scale = max(float(b.double().abs().max()), 1e-6)
    return difference / scale if difference == difference else float("inf")
