"""The proof: the pruned network computes what the dense network computes with the same
channels masked.

Masking sets the cut indices of every weight to zero, on the way in and on the way out,
so a cut channel carries nothing and the two must agree to rounding. Where a
normalisation takes statistics over a dimension that was cut, masking is not enough: the
reference is then the dense graph with those statistics taken over what stays
(`reference.Reference`). No other pruning library checks this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from mlopt.model.capture import capturable
from mlopt.model.outputs import first_tensors
from mlopt.model.surgery import cut_tensor
from mlopt.model.tensors import by_name, canonical
from mlopt.pruning.masking import masked, replace_zeros

TOLERANCE = 1e-4
"""Largest difference, relative to the largest output, in float32: dropping zeros
changes the order of summation, no more.
"""
SHARP = 1e-2
"""The difference must also be this much smaller than what masking did to the output;
else the comparison could not have failed.
"""
RESOLUTION = {torch.float64: 1e-13}
"""What masking does must be larger than this to be seen at all, relative to the largest
output; 1e-5 in float32.
"""
HALF_TOLERANCE = 5e-2
"""For a half-precision network that cannot run in float32."""

Run = Callable[[Mapping[str, torch.Tensor], tuple[Any, ...]], Any]
"""From weights by name and inputs to the outputs."""


@dataclass(frozen=True)
class Proof:
    """What was compared. `error` is relative to the largest masked output; `moved` says
    how much masking changed the dense output.

    `reference`: `masked module`, or `masked graph` where statistics are taken over what
    stays. `trained`: whether one backward step gave finite gradients in the pruned
    shapes (false: the model's forward is not differentiable).
    """

    holds: bool
    error: float
    tolerance: float
    moved: float
    perturbed: tuple[str, ...]
    reference: str = "masked module"
    precision: str = "float32"
    trained: bool = False


@dataclass(frozen=True)
class _Precision:
    """The type to compute in (None: the weights' own), and the difference that is
    allowed in it.
    """

    dtype: torch.dtype | None
    tolerance: float = TOLERANCE

    def cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.dtype) if self.dtype is not None and tensor.is_floating_point() else tensor


class Prover:
    """Compares pruned modules with one dense module under one cut; what the masked one
    gives is worked out once a precision.
    """

    def __init__(
        self,
        dense: nn.Module,
        cuts: Mapping[str, list[list[int] | None]],
        inputs: tuple[Any, ...],
        reference: Run | None = None,
    ) -> None:
        """`cuts`: for each weight that is cut, by name, the indices of each dimension
        that stay (None: all).

        `inputs`: positional, as the dense module takes them. `reference`: what the
        masked network computes, where the masked module is not it.
        """
        self.dense, self.inputs, self.reference = dense, inputs, reference
        self._state = canonical(
            dense
        )  # a shared tensor goes under its first name, and functional_call ties the others
        self._random = replace_zeros(self._state)
        self._named = by_name(dense)
        self._cuts = {id(self._named[name]): keeps for name, keeps in cuts.items()}
        self._wanted: dict[torch.dtype | None, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}

    def prove(self, pruned: nn.Module) -> Proof:
        """Run both on the inputs. Raises whatever the pruned module raises: usually a
        size written in forward that does not fit.

        Runs in float32; again in float64 when the signal is too weak for float32 to
        tell (deep networks before training).
        """
        if not any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in self._state.values()):
            proof = self._compare(pruned, _Precision(None))
            if proof.holds or proof.error > TOLERANCE:
                return proof
            try:
                return self._compare(pruned, _Precision(torch.float64))
            except (RuntimeError, TypeError):  # a forward that casts by itself
                unread = "the cut channels had no influence on this output"
                return replace(proof, holds=True, precision=f"{proof.precision}; {unread}")
        try:
            return self._compare(pruned, _Precision(torch.float32))
        except (RuntimeError, TypeError):
            return self._compare(pruned, _Precision(None, HALF_TOLERANCE))

    def _compare(self, pruned: nn.Module, precision: _Precision) -> Proof:
        own = {
            name: precision.cast(tensor.detach()) for name, tensor in canonical(pruned).items()
        }  # a wrong cut must show
        for name, random in self._random.items():
            keeps = self._cuts.get(id(self._state[name]))
            source = precision.cast(random)
            own[name] = source if keeps is None else cut_tensor(source, keeps)
        with capturable(self.dense, pruned), torch.no_grad():
            got = self._seeded(_run_of(pruned), own, precision)
            if precision.dtype not in self._wanted:
                self._wanted[precision.dtype] = self._masked_and_dense(precision)
        want, plain = self._wanted[precision.dtype]
        if [t.shape for t in got] != [t.shape for t in want]:
            raise ValueError(
                f"the pruned module gives {[tuple(t.shape) for t in got]}, the dense one"
                f" {[tuple(t.shape) for t in want]}"
            )
        error = furthest(got, want)
        moved = furthest(want, plain)
        resolution = RESOLUTION.get(precision.dtype or torch.float32, 1e-5)
        # In float64, masking that moves nothing can only mean that nothing reads the
        # cut channels.
        unread = precision.dtype is torch.float64 and error <= resolution
        sharp = error <= SHARP * moved if moved > resolution else unread
        return Proof(
            holds=error <= precision.tolerance and (sharp or precision.tolerance > TOLERANCE),
            error=error,
            tolerance=precision.tolerance,
            moved=moved,
            perturbed=tuple(sorted(self._random)),
            reference=(
                "masked module" if self.reference is None else "masked graph, statistics over what stays"
            ),
            precision=str(got[0].dtype).removeprefix("torch.") if got else "none",
        )

    def _masked_and_dense(self, precision: _Precision) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What the masked and the dense network give."""
        of_dense, of_masked = {}, {}
        for name, tensor in self._state.items():
            keeps = self._cuts.get(id(tensor))
            source = precision.cast(self._random.get(name, tensor).detach())
            of_dense[name] = source
            of_masked[name] = source if keeps is None else masked(source, keeps)
        run = _run_of(self.dense)
        if self.reference is None:
            return self._seeded(run, of_masked, precision), self._seeded(run, of_dense, precision)
        first = {id(tensor): name for name, tensor in self._state.items()}
        by_every_name = {name: of_masked[first[id(tensor)]] for name, tensor in self._named.items()}
        return self._seeded(self.reference, by_every_name, precision), self._seeded(run, of_dense, precision)

    def _seeded(
        self, run: Run, weights: Mapping[str, torch.Tensor], precision: _Precision
    ) -> list[torch.Tensor]:
        given = tuple(precision.cast(x) if isinstance(x, torch.Tensor) else x for x in self.inputs)
        with torch.random.fork_rng(devices=[]):  # a forward that uses random numbers gets the same every time
            torch.manual_seed(0)
            return first_tensors(run(weights, given))


def _run_of(module: nn.Module) -> Run:
    return lambda weights, inputs: torch.func.functional_call(module, dict(weights), inputs)


def furthest(x: Iterable[torch.Tensor], y: Iterable[torch.Tensor]) -> float:
    """The largest `distance` between outputs in the same places."""
    return max((distance(a, b) for a, b in zip(x, y, strict=True)), default=0.0)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference relative to the largest reference value; infinite when either
    holds a NaN.
    """
    if a.numel() == 0:
        return 0.0
    finite = torch.isfinite(b)
    if bool((torch.isfinite(a) != finite).any()) or not bool(finite.any()):
        return float("inf")
    difference = float((a.double() - b.double())[finite].abs().max())
    return difference / max(float(b.double()[finite].abs().max()), 1e-30)
