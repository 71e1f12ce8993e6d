"""A budget in time: prune, measure on the runtime that will serve, adjust, until the
ratio's interval contains the target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mlopt.pruning.budget import Amount
from mlopt.pruning.pruner import CLOSE, Pruned, Pruner

MAX_TRIALS = 8
LEAST_STEP = 0.004
"""MAC shares nearer than this give the same widths."""


@dataclass(frozen=True)
class TimeRatio:
    """Time of the pruned network over time of the dense one, with its 95% interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Trial:
    """One step of the search: the share of the MACs that was left, and what was
    measured.
    """

    macs: float
    ratio: TimeRatio


def as_share_of_time(pruned: Pruned, trials: list[Trial], remain: float) -> tuple[Pruned, Trial]:
    """What `prune_to_latency` gave, its report in shares of the time instead of the
    MACs; and the trial that it is.
    """
    best = min(trials, key=lambda trial: abs(trial.ratio.estimate - remain))
    report = replace(
        pruned.report, amount=str(Amount("latency", 1.0 - remain)), asked=remain, reached=best.ratio.estimate
    )
    return replace(pruned, report=report), best


def prune_to_latency(
    pruner: Pruner, remain: float, measure: Callable[[Pruned], TimeRatio]
) -> tuple[Pruned, list[Trial]]:
    """The cut whose measured time is nearest to `remain` of the dense time, and every
    step towards it.

    Regula falsi on the share of the MACs. Stops when the interval contains the target
    and the estimate is within 3 points of it, when the floor of the widths is reached,
    or after eight cuts. Raises what `Pruner.prune` raises.
    """
    low, high = (0.0, 0.0), (1.0, 1.0)  # (share of the MACs, share of the time): brackets of the target
    trials: list[Trial] = []
    best: tuple[float, Pruned] | None = None
    share = remain
    for _ in range(MAX_TRIALS):
        pruned = pruner.prune(Amount("macs", 1.0 - share))
        reached = pruned.report.reached
        ratio = measure(pruned)
        trials.append(Trial(reached, ratio))
        miss = abs(ratio.estimate - remain)
        if best is None or miss < best[0]:
            best = miss, pruned
        if miss <= CLOSE / 3 or (miss <= CLOSE and ratio.low <= remain <= ratio.high):
            break
        if ratio.estimate > remain:
            high = (share, ratio.estimate)
            if reached > share + CLOSE:
                break  # the widths are at their floor: less is not possible
        else:
            low = (share, ratio.estimate)
        span = high[1] - low[1]
        nearer = low[0] + (high[0] - low[0]) * ((remain - low[1]) / span if span > 0 else 0.5)
        # Regula falsi is slow on a convex curve: never less than a quarter into the
        # bracket.
        edge = (high[0] - low[0]) / 4
        share = min(max(nearer, low[0] + edge, 0.02), high[0] - edge)
        if high[0] - low[0] < LEAST_STEP:
            break
    assert best is not None
    return best[1], trials
