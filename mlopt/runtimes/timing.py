"""The clock around a call. Between two readings nothing allocates, logs or branches:
the clock costs less than a microsecond a call."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlopt.errors import PassFailed
from mlopt.runtimes.base import Call

CLOCKS_AGREE = 0.1
"""Device time may exceed host time by this share before the events are called wrong;
less than that is the host's own waiting."""


def host_times(calls: Sequence[Call], start: int, count: int, flush: Call | None = None) -> list[int]:
    """Nanoseconds of each of `count` calls in a row, which take the bound inputs in
    turn from `start` on.

    `flush` runs before every call, outside its time. Without it a call is timed from
    the end of the one before, so that nothing is left out.
    """
    clock = time.perf_counter_ns
    turn = itertools.islice(itertools.cycle(calls), start % len(calls), start % len(calls) + count)
    if flush is None:
        marks = [clock()]
        for call in turn:
            call()
            marks.append(clock())
        return [after - before for before, after in itertools.pairwise(marks)]
    out = []
    for call in turn:
        flush()
        begin = clock()
        call()
        out.append(clock() - begin)
    return out


def event_times(
    cuda: Any, calls: Sequence[Call], start: int, count: int, flush: Call | None = None
) -> list[int]:
    """The same in device time, by CUDA events around every call (`cuda`: `torch.cuda`);
    one synchronisation at the end.

    Raises `PassFailed` when the device claims more time than passed on the host: then
    the events were not around the work.
    """
    pairs = [(cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)) for _ in range(count)]
    cuda.synchronize()
    began = time.perf_counter_ns()
    for (before, after), call in zip(
        pairs, itertools.islice(itertools.cycle(calls), start % len(calls), None), strict=False
    ):
        if flush is not None:
            flush()
        before.record()
        call()
        after.record()
    cuda.synchronize()
    passed = time.perf_counter_ns() - began
    out = [round(before.elapsed_time(after) * 1e6) for before, after in pairs]
    if sum(out) > passed * (1 + CLOCKS_AGREE):
        raise PassFailed(
            f"CUDA events give {sum(out) / 1e6:.2f} ms where {passed / 1e6:.2f} ms passed on the host",
            "measure with --copies in, by the host's clock",
        )
    return out


def cache_flush(device: str, bytes: int) -> Call:
    """A call that writes over `bytes` of memory, so that what follows finds its caches
    cold."""
    if device == "cuda":
        import torch

        return torch.empty(bytes, dtype=torch.int8, device="cuda").zero_
    buffer = np.zeros(bytes, np.int8)
    return lambda: buffer.fill(1)


@dataclass(frozen=True)
class Slowdown:
    """A delay of known size, by which the gate proves itself: every call takes `every`
    times its own time longer, and a share of the calls (at random) takes `factor` times
    as long."""

    every: float = 0.0
    share: float = 0.0
    factor: float = 1.0

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    def around(self, call: Call, seed: int = 0) -> Call:
        """The same call, slower. It waits as it would compute: spinning."""
        draw, clock = random.Random(seed).random, time.perf_counter_ns

        def slow() -> None:
            begin = clock()
            call()
            end = clock()
            late = self.every + (self.factor - 1.0 if draw() < self.share else 0.0)
            until = end + (end - begin) * late
            while clock() < until:
                pass

        return slow


Timer = Callable[[Sequence[Call], int, int], list[int]]
