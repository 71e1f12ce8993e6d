"""Statistics on scripted samples, and the protocol on a runtime that has no clock of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mlopt.errors import PassFailed
from mlopt.measuring.protocol import MIN_ROUNDS, measure, rows
from mlopt.measuring.statistics import hodges_lehmann, percentile, speedup
from mlopt.runtimes.base import Fake


def test_hodges_lehmann_by_hand() -> None:
    centre, low, high = hodges_lehmann(np.array([1.0, 2.0, 6.0]), 0.95)
    assert centre == np.median([1, 1.5, 3.5, 2, 4, 6])
    assert (low, high) == (1.0, 6.0)  # three pairs: no rank interval at 95%, so the whole range


def test_interval_covers_the_truth() -> None:
    """At 95% the interval must hold the true ratio in about 19 of 20 samples, heavy tails included."""
    generator = np.random.default_rng(0)
    hits, trials = 0, 400
    for _ in range(trials):
        noise = generator.standard_t(2, size=(2, 25)) * 0.02
        ratio = speedup(np.exp(noise[0]) * 2.0, np.exp(noise[1]), 0.95)
        hits += ratio.low <= 2.0 <= ratio.high
    assert 0.92 <= hits / trials <= 0.985


def test_speedup_ignores_what_disturbs_both_sides() -> None:
    drift = np.linspace(1, 3, 30)
    ratio = speedup(2e-3 * drift, 1e-3 * drift)
    assert math.isclose(ratio.estimate, 2.0)
    assert math.isclose(ratio.low, 2.0)
    assert math.isclose(ratio.high, 2.0)


def test_a_percentile_needs_samples_beyond_it() -> None:
    assert percentile([1.0] * 49, 90) is None
    assert percentile([1.0] * 50, 90) == 1.0
    assert percentile([1.0] * 499, 99) is None
    assert percentile([1.0, 2.0, 3.0, 4.0, 5.0], 50) == 3.0


class Scripted:
    """A worker around a fake runtime: blocks move one shared clock by what the script says."""

    def __init__(self, name: str, latencies_s: list[float], clock: list[float]) -> None:
        self.name, self.info = name, {"runtime": "fake", "provider": "fake", "device": "none"}
        self._runtime, self._clock = Fake(latencies_s), clock

    def prepare(self, inputs: Any) -> None:
        self._inputs = inputs

    def block(self, calls: int) -> list[float]:
        out = []
        for _ in range(calls):
            before = self._runtime.clock()
            self._runtime(self._inputs)
            out.append(self._runtime.clock() - before)
        self._clock[0] += sum(out)
        return out

    def peak_rss_bytes(self) -> int:
        return 1


def test_protocol_finds_the_scripted_ratio() -> None:
    clock = [0.0]
    workers = [Scripted("slow", [2e-3, 2.2e-3], clock), Scripted("fast", [1e-3, 1.1e-3], clock)]
    samples, failed = measure(workers, [np.zeros(1)], 1, budget_s=2.0, clock=lambda: clock[0])
    assert not failed
    result = rows(workers, samples, 1)
    assert result[0]["speedup"] is None
    assert result[1]["speedup"]["estimate"] == pytest.approx(2.0, rel=0.02)
    assert result[1]["speedup"]["against"] == "slow"
    assert result[0]["p50_s"] == pytest.approx(2.1e-3, rel=0.06)
    assert len(samples[0].rounds_s) == len(samples[1].rounds_s) >= MIN_ROUNDS


def test_protocol_keeps_to_its_budget_and_to_its_least() -> None:
    clock = [0.0]
    workers = [Scripted("a", [1.0], clock), Scripted("b", [1.0], clock)]
    samples, _ = measure(workers, [np.zeros(1)], 1, budget_s=0.1, clock=lambda: clock[0])
    assert all(len(sample.rounds_s) == MIN_ROUNDS for sample in samples)


def test_the_first_calls_of_a_block_are_dropped() -> None:
    clock = [0.0]

    class ColdStart(Scripted):
        def block(self, calls: int) -> list[float]:
            return [50e-3, *([5e-3] * (calls - 1))]

    worker = ColdStart("a", [1.0], clock)
    (sample,), _ = measure([worker], [np.zeros(1)], 1, budget_s=0.1, clock=iter(np.arange(0, 1000, 0.5)).__next__)
    assert max(sample.calls_s) == 5e-3


class Crashing(Scripted):
    """Dies on its 700th call."""

    calls = 0

    def block(self, calls: int) -> list[float]:
        self.calls += calls
        if self.calls > 700:
            raise PassFailed("the process died")
        return super().block(calls)


def test_a_crash_costs_its_own_row_and_the_baselines_costs_all() -> None:
    clock = [0.0]
    workers = [Scripted("a", [1e-3], clock), Crashing("b", [1e-3], clock), Scripted("c", [5e-4], clock)]
    samples, failed = measure(workers, [np.zeros(1)], 1, budget_s=3.0, clock=lambda: clock[0])
    assert [name for name, _ in failed] == ["b"]
    assert [row["artifact"] for row in rows(workers, samples, 1)] == ["a", "c"]
    assert rows(workers, samples, 1)[1]["speedup"]["estimate"] == pytest.approx(2.0, rel=0.01)
    with pytest.raises(PassFailed):
        measure([Crashing("b", [1e-3], clock), Scripted("c", [5e-4], clock)], [np.zeros(1)], 1, budget_s=3.0, clock=lambda: clock[0])
