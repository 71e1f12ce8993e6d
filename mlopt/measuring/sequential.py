"""Looking again and again without raising the error rate: alpha spending.

A verdict may be looked for after every generation of processes. Were each look made at
1%, the chance that one of many is wrong would be several times that (15.8% at 5%,
measured on real traces). Lan and DeMets (1983), Biometrika 70: fix how much of the
error may have been spent by the time a share `t` of the budget is gone, here
alpha * t**1.5 (Kim and DeMets 1987, Biometrika 74), and choose each look's boundary
accordingly. The boundaries follow from the joint distribution of the looks, integrated
numerically as Armitage, McPherson and Rowe (1969), J. R. Statist. Soc. A 132.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np

from mlopt.measuring.statistics import NORMAL, Floats, Interval, interval

POWER = 1.5
LEAST_GROUPS = 2
"""One set of processes cannot tell a slow file from an unlucky process."""
PATIENCE = 20.0
"""A verdict that would take more than this many times what was spent is called out of
reach."""
LIMIT, POINTS = 6.0, 601
GRID = np.linspace(-LIMIT, LIMIT, POINTS)
STEP = 2 * LIMIT / (POINTS - 1)


def spent(share: float, alpha: float) -> float:
    """How much of `alpha` may be used up when this share of the budget is."""
    return alpha * math.pow(min(1.0, max(0.0, share)), POWER)


class Spending:
    """The boundaries of one test that is looked at repeatedly."""

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._shares: tuple[float, ...] = ()

    def look(self, share: float) -> float:
        """The normal quantile for a look when this share of the budget is used (shares
        grow from look to look): with it, the chance of having crossed any boundary so
        far is `spent(share)` where the true value lies on the limit."""
        self._shares += (share,)
        return _boundary(self._alpha, self._shares)[0]


@lru_cache(maxsize=512)
def _boundary(alpha: float, shares: tuple[float, ...]) -> tuple[float, Floats]:
    """The boundary at the last of these looks, and the density among paths that have
    not crossed any yet, on the grid.

    The statistic is a Brownian motion in the share of the budget. Each look goes on
    from the one before, which is remembered.
    """
    share, last = shares[-1], shares[-2] if len(shares) > 1 else 0.0
    density = np.exp(-(GRID**2) / 2) / math.sqrt(2 * math.pi)
    if last:
        # z at this look, given z at the last: mean z * sqrt(last / this), variance 1 -
        # last / this
        kept = min(last / share, 1 - 1e-6)
        density = _carried(_boundary(alpha, shares[:-1])[1], math.sqrt(kept), math.sqrt(1 - kept))
    above = np.cumsum(density[::-1])[::-1] * STEP
    boundary = _tail_quantile(above, spent(share, alpha) - spent(last, alpha))
    return boundary, np.where(boundary >= GRID, density, 0.0)


def _carried(density: Floats, slope: float, sd: float) -> Floats:
    """The density after one more step; where the step is narrower than the grid can
    show, it is widened to that."""
    width = max(sd, STEP)
    kernel = np.exp(-(((GRID[:, None] - slope * GRID[None, :]) / width) ** 2) / 2) / (
        width * math.sqrt(2 * math.pi)
    )
    return np.asarray(kernel @ density * STEP)


def _tail_quantile(above: Floats, target: float) -> float:
    """Where the upper tail falls to `target`, linear in its logarithm between grid
    points; the end of the grid for nothing to spend."""
    index = int(np.searchsorted(-above, -target))
    if target <= 0 or index >= POINTS:
        return LIMIT
    if index == 0:
        return -LIMIT
    high, low = math.log(above[index - 1]), math.log(max(float(above[index]), 1e-300))
    return float(GRID[index - 1] + STEP * (high - math.log(target)) / (high - low))


@dataclass(frozen=True)
class Look:
    """What is known after a look. `verdict`: PASS, FAIL, or empty while it is open.
    `found`: the log ratio with the bounds that this look used."""

    verdict: Literal["PASS", "FAIL", ""]
    found: Interval
    confidence: float


@dataclass
class SequentialTest:
    """Is the log ratio above `limit`? FAIL when its lower bound is, PASS when its upper
    bound is not; each wrong with a chance of `alpha_fail` and `alpha_pass` at most,
    however often it was looked at, for a true ratio on the limit (and far less for one
    that is not)."""

    limit: float
    alpha_fail: float
    alpha_pass: float
    _fail: Spending = field(init=False)
    _pass: Spending = field(init=False)

    def __post_init__(self) -> None:
        self._fail, self._pass = Spending(self.alpha_fail), Spending(self.alpha_pass)

    def look(self, groups: Sequence[Floats], share: float) -> Look:
        """Look when this share of the budget is used. `groups`: differences of each set
        of processes so far."""
        kept = [group for group in groups if len(group)]
        if len(kept) < LEAST_GROUPS:
            return Look("", Interval(0.0, -math.inf, math.inf), 0.0)
        for_fail, for_pass = self._fail.look(share), self._pass.look(share)
        against = interval(kept, for_fail)
        against_pass = against if for_pass == for_fail else interval(kept, for_pass)
        found = Interval(against.centre, against.low, against_pass.high)
        verdict: Literal["PASS", "FAIL", ""] = (
            "FAIL" if found.low > self.limit else "PASS" if found.high < self.limit else ""
        )
        return Look(verdict, found, 2 * NORMAL.cdf(for_fail) - 1)


def longer_s(found: Interval, limit: float, spent_s: float) -> float | None:
    """About how many more seconds until the bound on the nearer side leaves the limit,
    if widths shrink with the square root of time; None when that is out of reach: then
    the ratio lies at the limit."""
    bound = found.high if found.centre < limit else found.low
    distance, half = abs(found.centre - limit), abs(bound - found.centre)
    if not math.isfinite(half) or distance * math.sqrt(PATIENCE) < half:
        return None
    return spent_s * max(0.0, (half / distance) ** 2 - 1)
