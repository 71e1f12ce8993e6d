"""The statistics of a comparison, on scripted numbers, on synthetic traces of every bad
kind, and on traces that were recorded under load."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlopt.measuring.sequential import SequentialTest, Spending, longer_s, spent
from mlopt.measuring.statistics import (
    NORMAL,
    PROCESS_SD,
    Floats,
    Interval,
    differences,
    hodges_lehmann,
    inflation,
    interval,
    level,
    percentile,
    process_sd,
    ratio_of,
)

ALPHA = 0.01
RECORDED = Path(__file__).parent / "data" / "latency-traces.npz"
Rng = np.random.Generator


def test_hodges_lehmann_by_hand() -> None:
    centre, low, high = hodges_lehmann(np.array([1.0, 2.0, 6.0]), 0.95)
    assert centre == np.median([1, 1.5, 3.5, 2, 4, 6])
    assert (low, high) == (1.0, 6.0)  # three pairs: no rank interval at 95%, so the whole range


def test_a_percentile_needs_samples_beyond_it() -> None:
    assert percentile([1.0] * 49, 90) is None
    assert percentile([1.0] * 50, 90) == 1.0
    assert percentile([1.0] * 499, 99) is None
    assert percentile([1.0, 2.0, 3.0, 4.0, 5.0], 50) == 3.0


def test_differences_pair_the_blocks_of_a_round() -> None:
    """A drift within a round cancels: the first artifact of an ABBA round is early and
    late, the other in the middle."""
    drift = np.exp(np.array([0.0, 0.1, 0.2, 0.3]))
    baseline = [np.full(9, 1e-3 * drift[0]), np.full(9, 1e-3 * drift[3])]
    candidate = [np.full(9, 1.05e-3 * drift[1]), np.full(9, 1.05e-3 * drift[2])]
    np.testing.assert_allclose(differences(baseline, candidate, 10), [math.log(1.05)])
    assert (
        len(differences(baseline * 3, candidate * 2, 10)) == 2
    )  # a round that only one side took part in does not count


def test_the_mean_without_the_slowest() -> None:
    assert level(np.array([*[1.0] * 98, 50.0, 60.0]), None) == pytest.approx(0.0)
    assert level(np.array([*[1.0] * 90, *[1.5] * 10]), None) == pytest.approx(math.log((90 + 8 * 1.5) / 98))


def test_autocorrelation_widens_and_independence_does_not() -> None:
    draw = np.random.default_rng(0)
    independent = [draw.standard_normal(50) for _ in range(20)]
    assert 1.0 <= inflation(independent) < 1.15
    rho, correlated = 0.6, []
    for _ in range(40):
        values = [draw.standard_normal()]
        for _ in range(59):
            values.append(rho * values[-1] + math.sqrt(1 - rho**2) * draw.standard_normal())
        correlated.append(np.array(values))
    assert inflation(correlated) == pytest.approx(
        (1 + rho) / (1 - rho), rel=0.25
    )  # the truth for such a series
    assert inflation([np.ones(5)]) == 1.0


def test_the_luck_of_processes_is_found() -> None:
    draw = np.random.default_rng(0)
    groups = [draw.normal(0, 0.002, 12) + draw.normal(0, 0.02) for _ in range(40)]
    assert process_sd(groups) == pytest.approx(0.02, rel=0.3)
    assert process_sd([draw.normal(0, 0.01, 12) for _ in range(40)]) == pytest.approx(
        PROCESS_SD, abs=0.003
    )  # nothing to find: the floor
    assert process_sd(groups[:3]) == PROCESS_SD  # too few to tell


def grouped(
    draw: Rng,
    truth: float,
    noise: Callable[[Rng, int], Floats],
    groups: int = 6,
    rounds: int = 10,
    luck: float = 0.003,
) -> list[Floats]:
    return [truth + draw.normal(0, luck) + noise(draw, rounds) for _ in range(groups)]


def bursts(draw: Rng, n: int) -> Floats:
    """Now and then a neighbour wakes: a fifth of the rounds are off by up to a half,
    either way."""
    return draw.normal(0, 0.005, n) + np.where(draw.random(n) < 0.2, draw.uniform(-0.5, 0.5, n), 0.0)


def bimodal(draw: Rng, n: int) -> Floats:
    """Two speeds of the processor, met by either side."""
    return draw.normal(0, 0.004, n) + draw.choice([-0.03, 0.0, 0.03], n, p=[0.25, 0.5, 0.25])


def heavy(draw: Rng, n: int) -> Floats:
    return np.asarray(draw.standard_t(1.5, n) * 0.006)


def drifting(draw: Rng, n: int) -> Floats:
    """What is left of a drift after the rounds cancelled most of it: neighbouring
    rounds are alike."""
    walk = np.cumsum(draw.normal(0, 0.004, n))
    return np.asarray(walk - walk.mean() + draw.normal(0, 0.004, n))


NOISES = [bursts, bimodal, heavy, drifting]


@pytest.mark.parametrize("noise", NOISES)
def test_the_interval_holds_the_truth(noise: Callable[[Rng, int], Floats]) -> None:
    draw = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        ratio = ratio_of(grouped(draw, math.log(1.04), noise))
        hits += ratio.low <= 1.04 <= ratio.high
    assert hits / 300 >= 0.93  # wider than 95% is allowed: the floor for processes is above these


def looked_at(groups: list[Floats], limit: float, least_sd: float = PROCESS_SD) -> str:
    """The verdict of a test that is looked at after every group."""
    test = SequentialTest(limit, ALPHA, ALPHA)
    for number in range(1, len(groups) + 1):
        look = test.look(groups[:number], number / len(groups))
        if look.verdict:
            return look.verdict
    return "INCONCLUSIVE"


@pytest.mark.parametrize("noise", NOISES)
def test_no_false_alarm_and_real_ones_found(noise: Callable[[Rng, int], Floats]) -> None:
    """The same file never fails at 2.5%; 8% slower never passes. Six groups of ten
    rounds for each of 150 trials."""
    draw, limit = np.random.default_rng(2), math.log(1.025)
    same = [looked_at(grouped(draw, 0.0, noise), limit) for _ in range(150)]
    slower = [looked_at(grouped(draw, math.log(1.08), noise), limit) for _ in range(150)]
    assert "FAIL" not in same
    assert "PASS" not in slower
    assert slower.count("FAIL") >= 120


def test_looking_often_costs_no_error() -> None:
    """With the truth on the limit, forty looks: both errors stay near 1%, and what was
    spent early is little."""
    draw, limit, trials = np.random.default_rng(3), math.log(1.02), 400
    shares = np.arange(1, 41) / 40
    boundaries = [Spending(ALPHA)]
    quantiles = [boundaries[0].look(share) for share in shares]
    paths = np.cumsum(draw.standard_normal((40_000, 40)), axis=1) / np.sqrt(40) / np.sqrt(shares)
    crossed = paths > np.array(quantiles)
    assert crossed.any(1).mean() == pytest.approx(ALPHA, abs=0.002)
    assert crossed[:, :10].any(1).mean() == pytest.approx(spent(0.25, ALPHA), abs=0.001)
    naive = (paths > NORMAL.inv_cdf(1 - ALPHA)).any(1).mean()
    assert naive > 3 * ALPHA  # what looking each time at 1% would have cost

    def noise(draw: Rng, n: int) -> Floats:
        return draw.normal(0, 0.02, n)

    verdicts = [
        looked_at(grouped(draw, limit, noise, groups=12, luck=PROCESS_SD), limit) for _ in range(trials)
    ]
    assert verdicts.count("FAIL") <= 3 * ALPHA * trials
    assert verdicts.count("PASS") <= 3 * ALPHA * trials


def test_one_set_of_processes_decides_nothing() -> None:
    test = SequentialTest(0.0, ALPHA, ALPHA)
    assert test.look([np.full(500, 1.0)], 0.5).verdict == ""
    assert test.look([np.full(500, 1.0), np.full(500, 1.0)], 1.0).verdict == "FAIL"


def test_too_few_rounds_decide_nothing() -> None:
    """Three pairs cannot be surer than one in eight, however large the difference."""
    found = interval([np.array([1.0, 1.0]), np.array([1.0])], NORMAL.inv_cdf(0.99))
    assert found.low == -math.inf
    assert found.high == math.inf


def test_how_much_longer() -> None:
    half_way = Interval(0.01, 0.0, 0.03)
    assert longer_s(half_way, 0.02, 10.0) == pytest.approx(30.0)  # twice too wide: four times the time in all
    assert longer_s(Interval(0.0199, 0.0, 0.04), 0.02, 10.0) is None  # at the limit itself no time would do
    assert longer_s(Interval(0.01, -math.inf, math.inf), 0.02, 10.0) is None


def recorded() -> dict[tuple[str, str], list[Floats]]:
    """Differences of each recorded set of processes, by (model, candidate)."""
    out: dict[tuple[str, str], list[Floats]] = {}
    with np.load(RECORDED) as archive:
        for entry in json.loads(str(archive["index"])):
            blocks = archive[entry["key"]][:, 4:] * 1e-7
            sides = [
                [block for side, block in zip(entry["sides"], blocks, strict=True) if side == wanted]
                for wanted in "AX"
            ]
            out.setdefault((entry["model"], entry["candidate"]), []).append(
                differences(sides[0], sides[1], 10)
            )
    return out


@pytest.mark.parametrize("model", ["conv", "mlp"])
def test_recorded_traces(model: str) -> None:
    """At load 5 to 15, in windows of 12 sets of processes: the same file never fails,
    and passes more often than not; 5% and 10% more is found."""
    traces = recorded()
    same = traces[model, "same"]
    windows = [same[at : at + 12] for at in range(0, len(same), 12)]
    for limit, slower in ((0.025, 0.05), (0.015, 0.05), (0.025, 0.10)):
        assert all(looked_at(window, math.log1p(limit)) != "FAIL" for window in windows)
        shifted = [[group + math.log1p(slower) for group in window] for window in windows]
        assert [looked_at(window, math.log1p(limit)) for window in shifted] == ["FAIL"] * len(windows)
    passed = [looked_at(window, math.log1p(0.025)) for window in windows]
    assert passed.count("PASS") >= 2


@pytest.mark.parametrize(("model", "truth"), [("conv", 0.057), ("mlp", 0.038)])
def test_a_recorded_slower_network(model: str, truth: float) -> None:
    ratio = ratio_of(recorded()[model, "slower-2"], 0.99)
    assert ratio.low - 0.005 <= 1 + truth <= ratio.high + 0.005
    assert looked_at(recorded()[model, "slower-2"][:12], math.log1p(0.015)) == "FAIL"
