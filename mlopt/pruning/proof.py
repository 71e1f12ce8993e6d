"""The proof: the pruned network computes what the dense network computes with the same channels masked.

Masking sets the cut indices of every weight to zero, on the way in and on the way out, so a cut channel carries nothing and the two must
agree to rounding. Where a normalisation takes statistics over a dimension that was cut, masking is not enough: the reference is then the
dense graph with those statistics taken over what stays (`graph.Reference`). No other pruning library checks this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from mlopt.model.capture import capturable
from mlopt.model.outputs import first_tensors
from mlopt.model.surgery import Surgery, cut_tensor
from mlopt.model.tensors import canonical, holders

TOLERANCE = 1e-4
"""Largest difference, relative to the largest output, in float32: dropping zeros changes the order of summation, no more."""
SHARP = 1e-2
"""The difference must also be this much smaller than what masking did to the output; else the comparison could not have failed."""
RESOLUTION = {torch.float64: 1e-13}
"""What masking does must be larger than this to be seen at all, relative to the largest output; 1e-5 in float32."""
HALF_TOLERANCE = 5e-2
"""For a half-precision network that cannot run in float32."""

Run = Callable[[Mapping[str, torch.Tensor], tuple[Any, ...]], Any]
"""From weights by name and inputs to the outputs."""


@dataclass(frozen=True)
class Proof:
    """What was compared. `error` is relative to the largest masked output; `moved` says how much masking changed the dense output.

    `reference`: `masked module`, or `masked graph` where statistics are taken over what stays. `trained`: whether one backward step gave
    finite gradients in the pruned shapes (false: the model's forward is not differentiable).
    """

    holds: bool
    error: float
    tolerance: float
    moved: float
    perturbed: tuple[str, ...]
    reference: str = "masked module"
    precision: str = "float32"
    trained: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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
        if tensor.is_floating_point() and tensor.ndim >= 1 and tensor.numel() > 1 and not name.endswith(("running_mean", "bias")):
            spread = float(tensor.detach().abs().max())
            if spread < 1e-4:
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32) * 0.1
                fixed[name] = noise.to(tensor.dtype).to(tensor.device)
    return fixed


Wanted = dict[Any, tuple[list[torch.Tensor], list[torch.Tensor]]]
"""What the masked and the dense network give, by precision: the same for every attempt at one cut."""


def prove(
    dense: nn.Module, pruned: nn.Module, surgery: Surgery, inputs: tuple[Any, ...], reference: Run | None = None, wanted: Wanted | None = None
) -> Proof:
    """Run both on real inputs. Raises whatever the pruned module raises: a size that was not mended, usually.

    `reference`: what the masked network computes, where the masked module is not it. Runs in float32; again in float64 when the signal is
    too weak for float32 to tell (deep networks before training). `wanted` is filled by the first call and spares the next ones half the work.
    """
    wanted = {} if wanted is None else wanted
    if not any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in canonical(dense).values()):
        proof = _compare(dense, pruned, surgery, inputs, reference, wanted, None)
        if proof.holds or proof.error > TOLERANCE:
            return proof
        try:
            return _compare(dense, pruned, surgery, inputs, reference, wanted, torch.float64)
        except (RuntimeError, TypeError):  # a forward that casts by itself
            return _vacuous(proof)
    try:
        return _compare(dense, pruned, surgery, inputs, reference, wanted, torch.float32)
    except (RuntimeError, TypeError):
        return _compare(dense, pruned, surgery, inputs, reference, wanted, None, HALF_TOLERANCE)


def _vacuous(proof: Proof) -> Proof:
    return replace(proof, holds=True, precision=f"{proof.precision}; the cut channels had no influence on this output")


def _compare(
    dense: nn.Module,
    pruned: nn.Module,
    surgery: Surgery,
    inputs: tuple[Any, ...],
    reference: Run | None,
    wanted: Wanted,
    dtype: torch.dtype | None,
    tolerance: float = TOLERANCE,
) -> Proof:
    def cast(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor

    state = canonical(dense)  # a shared tensor goes under its first name, and functional_call ties the others
    alive = lively(state)
    named = {name: tensor for name, _, _, tensor in holders(dense)}
    by_id = {id(named[name]): keeps for name, keeps in surgery.weights.items()}
    of_dense: dict[str, torch.Tensor] = {}
    of_masked: dict[str, torch.Tensor] = {}
    of_pruned: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        keeps = by_id.get(id(tensor))
        source = cast(alive.get(name, tensor).detach())
        if dtype not in wanted:
            of_dense[name] = source
            of_masked[name] = source if keeps is None else masked(source, keeps)
        if name in alive:
            of_pruned[name] = source if keeps is None else cut_tensor(source, keeps)
    for name, tensor in canonical(pruned).items():  # its own weights: a wrong cut must show
        of_pruned.setdefault(name, cast(tensor.detach()))
    given = tuple(cast(x) if isinstance(x, torch.Tensor) else x for x in inputs)

    def run(module: nn.Module) -> Run:
        return lambda weights, inputs: torch.func.functional_call(module, dict(weights), inputs)

    def seeded(run: Run, weights: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        with torch.random.fork_rng(devices=[]):  # a forward that draws (random masking) draws the same every time
            torch.manual_seed(0)
            return first_tensors(run(weights, given))

    first_of = {id(tensor): name for name, tensor in state.items()}
    every = {name: first_of[id(tensor)] for name, tensor in named.items()}

    def by_every_name(weights: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        return {name: weights[first] for name, first in every.items()}

    with capturable(dense, pruned), torch.no_grad():
        got = seeded(run(pruned), of_pruned)
        if dtype not in wanted:
            want = seeded(run(dense), of_masked) if reference is None else seeded(reference, by_every_name(of_masked))
            wanted[dtype] = want, seeded(run(dense), of_dense)
    want, plain = wanted[dtype]
    if [t.shape for t in got] != [t.shape for t in want]:
        raise ValueError(f"the pruned module gives {[tuple(t.shape) for t in got]}, the dense one {[tuple(t.shape) for t in want]}")
    error = max((distance(a, b) for a, b in zip(got, want, strict=True)), default=0.0)
    moved = max((distance(a, b) for a, b in zip(want, plain, strict=True)), default=0.0)
    precision = str(got[0].dtype).removeprefix("torch.") if got else "none"
    resolution = RESOLUTION.get(dtype or torch.float32, 1e-5)
    # In float64, masking that moves nothing can only mean that the cut channels are dead.
    sharp = error <= SHARP * moved if moved > resolution else (dtype is torch.float64 and error <= resolution)
    return Proof(
        holds=error <= tolerance and (sharp or tolerance > TOLERANCE),
        error=error,
        tolerance=tolerance,
        moved=moved,
        perturbed=tuple(sorted(alive)),
        reference="masked module" if reference is None else "masked graph, statistics over what stays",
        precision=precision,
    )


def trains(pruned: nn.Module, inputs: tuple[Any, ...]) -> bool:
    """One backward step: every gradient is finite and has its parameter's shape. False when the output depends on no parameter.

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
            loss = torch.stack([torch.nan_to_num(t, posinf=0.0, neginf=0.0).square().mean() for t in outputs]).sum()
            gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        finally:
            for name, parameter in named.items():
                parameter.requires_grad_(flags[name])
    for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
        if gradient is not None and (gradient.shape != parameter.shape or not bool(torch.isfinite(gradient).all())):
            raise ValueError(f"the gradient of {name} is not finite after pruning")
    return any(gradient is not None for gradient in gradients)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference relative to the largest reference value; infinite when either holds a NaN."""
    if a.numel() == 0:
        return 0.0
    finite = torch.isfinite(b)
    if bool((torch.isfinite(a) != finite).any()) or not bool(finite.any()):
        return float("inf")
    difference = float((a.double() - b.double())[finite].abs().max())
    return difference / max(float(b.double()[finite].abs().max()), 1e-30)
