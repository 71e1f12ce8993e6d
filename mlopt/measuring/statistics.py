"""Pure functions on samples. Seconds in, ratios out; nothing here reads a clock.

The comparison of two artifacts: every round gives the difference of the logarithms of a
low percentile of their blocks (`differences`); the rounds of one set of processes are a
group. `interval` is the Hodges-Lehmann centre of all rounds, with the Wilcoxon interval
widened for what rounds of one group share: autocorrelation, and the luck of the
processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mlopt.records.bench import Ratio

Floats = NDArray[np.float64]
PROCESS_SD = 0.005
"""Standard deviation, in log time, that a pair of processes is assumed to add at least.
Measured: 0.15% to 0.35% quiet, to 0.6% under load."""
GROUPS_TO_ESTIMATE = 4
TRIMMED = 0.98
LONGEST_LAG = 8
NORMAL = NormalDist()


def level(seconds: Floats, percent: float | None) -> float:
    """Logarithm of a percentile of a block's calls; None for their mean without the
    slowest 2%."""
    if percent is None:
        return float(np.log(np.sort(seconds)[: max(1, math.ceil(TRIMMED * len(seconds)))].mean()))
    return float(np.log(np.percentile(seconds, percent)))


def differences(baseline: Sequence[Floats], candidate: Sequence[Floats], percent: float | None) -> Floats:
    """One number a round: log time of the candidate minus that of the baseline, each
    the mean over its two blocks of the round."""
    rounds = min(len(baseline), len(candidate)) // 2
    both = [
        np.array([level(block, percent) for block in blocks[: 2 * rounds]]).reshape(-1, 2).mean(1)
        for blocks in (baseline, candidate)
    ]
    return np.asarray(both[1] - both[0])


def walsh_averages(values: Floats) -> Floats:
    """Means of all pairs, each value with itself too, sorted."""
    i, j = np.triu_indices(len(values))
    return np.sort((values[i] + values[j]) / 2)


def hodges_lehmann(values: Floats, confidence: float) -> tuple[float, float, float]:
    """(centre, low, high) of paired differences: the median of Walsh averages and its
    Wilcoxon signed-rank interval.

    Hodges and Lehmann (1963), Ann. Math. Statist. 34; the normal approximation of the
    rank sum. With so few pairs that no rank interval exists, the interval is the whole
    range of the averages.
    """
    n = len(values)
    averages = walsh_averages(values)
    total = len(averages)
    mean = n * (n + 1) / 4
    sd = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    cut = max(0, math.floor(mean - NORMAL.inv_cdf(0.5 + confidence / 2) * sd - 0.5))
    return float(np.median(averages)), float(averages[cut]), float(averages[total - 1 - cut])


def inflation(groups: Sequence[Floats]) -> float:
    """By how much autocorrelation within groups multiplies the variance of a mean, 1 or
    more.

    1 + 2 * (sum of autocorrelations up to the first that is not positive): Geyer
    (1992), Statistical Science 7, in its simplest form. The autocorrelations are pooled
    over groups, each about its own mean.
    """
    centred = [group - group.mean() for group in groups if len(group) > 2]
    power = sum(float(group @ group) for group in centred)
    if power == 0.0:
        return 1.0
    total = 1.0
    for lag in range(1, LONGEST_LAG + 1):
        products = sum(float(group[:-lag] @ group[lag:]) for group in centred if len(group) > lag)
        if products <= 0:
            break
        total += 2 * products / power
    return total


def process_sd(groups: Sequence[Floats], least: float = PROCESS_SD) -> float:
    """Standard deviation between groups beyond what their rounds explain: the moment
    estimate of DerSimonian and Laird (1986), Controlled Clinical Trials 7, but never
    below `least`; that alone while there are fewer than four groups."""
    kept = [group for group in groups if len(group) > 1]
    if len(kept) < GROUPS_TO_ESTIMATE:
        return least
    centres = np.array([np.median(walsh_averages(group)) for group in kept])
    weights = np.array([len(group) / max(_robust_sd(group) ** 2 * HL_VARIANCE, 1e-12) for group in kept])
    mean = float(weights @ centres / weights.sum())
    q = float(weights @ (centres - mean) ** 2)
    between = (q - (len(kept) - 1)) / (weights.sum() - (weights**2).sum() / weights.sum())
    return max(least, math.sqrt(max(0.0, between)))


HL_VARIANCE = math.pi / 3
"""Variance of the Hodges-Lehmann centre of normal samples, over that of their mean."""


def _robust_sd(values: Floats) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


@dataclass(frozen=True)
class Interval:
    """Of a log ratio: `low` and `high` are one-sided bounds at the same normal
    quantile."""

    centre: float
    low: float
    high: float


def interval(
    groups: Sequence[Floats], quantile: float, least_sd: float = PROCESS_SD, or_range: bool = False
) -> Interval:
    """The centre of all rounds, and its bounds at a one-sided normal `quantile` (2.33
    for 1%).

    The distance of a Wilcoxon bound from the centre, times the square root of the
    inflation, is combined in quadrature with the share of the processes: quantile *
    process_sd / sqrt(groups). With too few rounds for the quantile it is infinite, or,
    with `or_range`, takes the whole range of the averages in place of Wilcoxon's
    bounds.
    """
    pooled = np.concatenate(groups)
    centre, low, high = hodges_lehmann(pooled, 2 * NORMAL.cdf(quantile) - 1)
    if not or_range and _no_rank_interval(len(pooled), quantile):
        return Interval(centre, -math.inf, math.inf)
    stretch = math.sqrt(inflation(groups))
    shared = quantile * process_sd(groups, least_sd) / math.sqrt(len(groups))
    return Interval(
        centre,
        centre - math.hypot((centre - low) * stretch, shared),
        centre + math.hypot((high - centre) * stretch, shared),
    )


def _no_rank_interval(n: int, quantile: float) -> bool:
    """Whether even the range of all averages is surer than what is asked: with n pairs
    the surest one-sided level is 2 ** -n."""
    return 2.0**-n > 1 - NORMAL.cdf(quantile)


def ratio_of(groups: Sequence[Floats], confidence: float = 0.95) -> Ratio:
    """The ratio of times, candidate over baseline, with its two-sided interval. A fixed
    number of rounds: for looking again and again there is `sequential`."""
    found = interval(groups, NORMAL.inv_cdf(0.5 + confidence / 2), or_range=True)
    return Ratio(math.exp(found.centre), math.exp(found.low), math.exp(found.high), confidence)


def percentile(samples_s: Sequence[float] | Floats, percent: float) -> float | None:
    """A percentile, or None when fewer than five samples lie beyond it: such a number
    would be an anecdote."""
    data = np.asarray(samples_s, dtype=float)
    beyond = round(len(data) * (100 - percent) / 100, 6)
    return float(np.percentile(data, percent)) if beyond >= 5 or (percent <= 50 and len(data) >= 5) else None
