"""The outputs of an artifact against those of the module that it came from, on the same
inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlopt.artifact import Json
from mlopt.errors import PassFailed
from mlopt.recipe.schema import Tolerance


@dataclass(frozen=True)
class ParityResult:
    """Errors are absolute, over all outputs; `max_error` is relative to the largest
    reference output; `agreement` is the share of equal arg-max over the last dimension
    of the first output (None when it has fewer than two classes)."""

    max_abs_error: float
    mean_abs_error: float
    max_error: float
    cosine: float
    agreement: float | None
    samples: int
    finite: bool

    def to_json(self) -> Json:
        """As in a record."""
        return asdict(self)


def compare(reference: Sequence[NDArray[Any]], got: Sequence[NDArray[Any]]) -> ParityResult:
    """Compare output lists of equal shapes. Raises `PassFailed` when shapes differ."""
    shapes = [a.shape for a in reference], [a.shape for a in got]
    if shapes[0] != shapes[1]:
        raise PassFailed(
            f"the outputs have shapes {shapes[1]}, the module gives {shapes[0]}",
            "check --input: is the batch dimension dynamic?",
        )
    a = (
        np.concatenate([array.astype(np.float64).ravel() for array in reference])
        if reference
        else np.zeros(0)
    )
    b = np.concatenate([array.astype(np.float64).ravel() for array in got]) if got else np.zeros(0)
    finite = bool(np.isfinite(b).all())
    difference = np.abs(a - b) if finite else np.full(max(1, a.size), np.inf)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b)) if finite else 0.0
    cosine = (1.0 if finite and np.array_equal(a, b) else 0.0) if norms == 0.0 else float(a @ b) / norms
    agreement = None
    if reference and reference[0].ndim >= 2 and reference[0].shape[-1] >= 2:
        agreement = float((reference[0].argmax(-1) == got[0].argmax(-1)).mean())
    worst = float(difference.max(initial=0.0))
    return ParityResult(
        max_abs_error=worst,
        mean_abs_error=float(difference.mean()) if difference.size else 0.0,
        max_error=worst / max(float(np.abs(a).max(initial=0.0)), 1e-12),
        cosine=cosine,
        agreement=agreement,
        samples=len(reference[0]) if reference and reference[0].ndim else 0,
        finite=finite,
    )


def judge(result: ParityResult, tolerance: Tolerance, name: str) -> None:
    """Raises `PassFailed` for a NaN, an Inf, or a breach of the tolerance."""
    hint = "raise the tolerance in the recipe (parity:) only if you know why it differs"
    if not result.finite:
        raise PassFailed(
            f"{name} gives NaN or infinite outputs",
            "quantize with more calibration samples, or use a wider precision",
        )
    if result.max_error > tolerance.max_error:
        raise PassFailed(
            f"{name} differs by {result.max_error:.2e} of the largest output (tolerance"
            f" {tolerance.max_error:g})",
            hint,
        )
    if result.cosine < tolerance.min_cosine:
        raise PassFailed(
            f"{name} has cosine {result.cosine:.6f} with the module (tolerance {tolerance.min_cosine:g})",
            hint,
        )
