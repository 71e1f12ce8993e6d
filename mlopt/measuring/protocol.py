"""How latency is measured: every artifact in a process of its own, in short blocks that take turns in random order.

All call the same entry (arrays on the host in, arrays on the host out), on the same pinned cores, with the garbage collector off. They
never run at once. The first calls of a block re-warm the caches and are dropped. A round gives one number an artifact, the median of
its block; ratios are taken within rounds, so what disturbs a round disturbs both sides.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mlopt.errors import MloptError
from mlopt.measuring.statistics import percentile, speedup
from mlopt.runtimes.base import Arrays

BLOCK_S = 0.05
WARMUP_S = 0.3
WARMUP_LIMIT_S = 3.0
STABLE = 0.03
MIN_ROUNDS, MAX_ROUNDS = 8, 60


class Timed(Protocol):
    """What the protocol drives: `remote.Worker`, or a fake."""

    name: str
    info: dict[str, Any]

    def prepare(self, inputs: Arrays) -> None: ...
    def block(self, calls: int) -> list[float]: ...
    def peak_rss_bytes(self) -> int: ...


@dataclass
class Samples:
    """What was measured of one artifact at one batch size. `worker`: its place in the list; `rounds_s`: one median
    a round; `calls_s`: every kept call."""

    name: str
    batch: int
    worker: int = 0
    calls_s: list[float] = field(default_factory=list)
    rounds_s: list[float] = field(default_factory=list)
    warmup_s: float = 0.0


def warm_up(worker: Timed, clock: Callable[[], float]) -> tuple[float, float]:
    """Call until two successive blocks agree within 3%; (seconds a call, seconds spent)."""
    begin = clock()
    previous, calls = 0.0, 1
    while True:
        block = worker.block(calls)
        current = float(np.median(block))
        spent = clock() - begin
        stable = previous > 0 and abs(current / previous - 1) < STABLE
        if (spent >= WARMUP_S and stable) or spent >= WARMUP_LIMIT_S:
            return current, spent
        previous, calls = current, max(1, min(1000, round(BLOCK_S / max(current, 1e-7))))


def measure(
    workers: list[Timed], inputs: Arrays, batch: int, budget_s: float, seed: int = 0, clock: Callable[[], float] = time.monotonic
) -> tuple[list[Samples], list[tuple[str, MloptError]]]:
    """Time all workers on the same inputs: (samples of those that lived, names and errors of those that did not).

    Stops after `budget_s` seconds of sampling, but never before `MIN_ROUNDS` rounds. Raises what the first worker, the baseline, raises:
    without it there is nothing to compare with.
    """
    shuffle = random.Random(seed)
    alive = {index: Samples(worker.name, batch, index) for index, worker in enumerate(workers)}
    calls: dict[int, int] = {}
    failed: list[tuple[str, MloptError]] = []

    def guarded(index: int, work: Callable[[], None]) -> None:
        try:
            work()
        except MloptError as error:
            if index == 0:
                raise
            failed.append((workers[index].name, error))
            del alive[index]

    def start(index: int) -> None:
        workers[index].prepare(inputs)
        per_call, alive[index].warmup_s = warm_up(workers[index], clock)
        calls[index] = max(3, min(2000, round(BLOCK_S / max(per_call, 1e-7))))

    def block(index: int) -> None:
        dropped = 1 + calls[index] // 20
        seconds = workers[index].block(calls[index] + dropped)[dropped:]
        alive[index].calls_s += seconds
        alive[index].rounds_s.append(float(np.median(seconds)))

    for index in list(alive):
        guarded(index, lambda index=index: start(index))  # type: ignore[misc]
    begin = clock()
    for done in range(MAX_ROUNDS):
        if done >= MIN_ROUNDS and clock() - begin >= budget_s:
            break
        for index in shuffle.sample(list(alive), len(alive)):
            guarded(index, lambda index=index: block(index))  # type: ignore[misc]
    return list(alive.values()), failed


def rows(workers: list[Timed], samples: list[Samples], threads: int) -> list[dict[str, Any]]:
    """The `bench` rows of `run.json`; the first worker is the baseline."""
    baseline = samples[0]
    out = []
    for sample in samples:
        worker = workers[sample.worker]
        p50 = percentile(sample.calls_s, 50)
        assert p50 is not None
        ratio = speedup(baseline.rounds_s, sample.rounds_s)
        memory: int | None = None
        with contextlib.suppress(NotImplementedError):
            memory = worker.peak_rss_bytes()
        out.append(
            {
                "artifact": sample.name,
                "runtime": worker.info.get("runtime"),
                "provider": worker.info.get("provider"),
                "device": worker.info.get("device"),
                "batch": sample.batch,
                "threads": threads,
                "p50_s": p50,
                "p90_s": percentile(sample.calls_s, 90),
                "p99_s": percentile(sample.calls_s, 99),
                "throughput_per_s": sample.batch / p50,
                "peak_rss_bytes": memory,
                "load_s": worker.info.get("load_s"),
                "samples": len(sample.calls_s),
                "rounds": len(sample.rounds_s),
                "speedup": None if sample is baseline else {**ratio.to_json(), "against": baseline.name},
            }
        )
    return out
