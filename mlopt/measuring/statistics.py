"""Pure functions on samples. Seconds in, ratios out; nothing here reads a clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ratio:
    """An estimate with its interval at `confidence`. A speed-up of 2 means: takes half as long."""

    estimate: float
    low: float
    high: float
    confidence: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def hodges_lehmann(differences: NDArray[np.float64], confidence: float) -> tuple[float, float, float]:
    """(centre, low, high) of paired differences: the median of Walsh averages and its Wilcoxon signed-rank interval.

    Hodges and Lehmann (1963), Ann. Math. Statist. 34; the normal approximation of the rank sum. With so few pairs that no rank
    interval exists, the interval is the whole range of the averages.
    """
    n = len(differences)
    i, j = np.triu_indices(n)
    averages = np.sort((differences[i] + differences[j]) / 2)
    total = len(averages)
    mean = n * (n + 1) / 4
    sd = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    cut = max(0, math.floor(mean - NormalDist().inv_cdf(0.5 + confidence / 2) * sd - 0.5))
    return float(np.median(averages)), float(averages[cut]), float(averages[total - 1 - cut])


def speedup(baseline_s: Sequence[float], candidate_s: Sequence[float], confidence: float = 0.95) -> Ratio:
    """How many times faster the candidate is, from one number a round for each (rounds are paired)."""
    differences = np.log(np.asarray(baseline_s, dtype=float)) - np.log(np.asarray(candidate_s, dtype=float))
    centre, low, high = hodges_lehmann(differences, confidence)
    return Ratio(math.exp(centre), math.exp(low), math.exp(high), confidence)


def percentile(samples_s: Sequence[float], percent: float) -> float | None:
    """A percentile, or None when fewer than five samples lie beyond it: such a number would be an anecdote."""
    data = np.asarray(samples_s, dtype=float)
    beyond = round(len(data) * (100 - percent) / 100, 6)
    return float(np.percentile(data, percent)) if beyond >= 5 or (percent <= 50 and len(data) >= 5) else None
