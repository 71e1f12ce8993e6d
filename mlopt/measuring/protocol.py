"""How latency is measured: every artifact in a process of its own, in short blocks that
take turns in random order.

All call the same entry on the same inputs, on the same pinned cores, with the garbage
collector off. They never run at once. The first calls of a block re-warm the caches and
are dropped. A round visits all artifacts in a random order and then back (ABBA or BAAB
for two), so that a drift within it cancels; ratios are taken within rounds, so what
disturbs a round disturbs all sides.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from mlopt.errors import MloptError
from mlopt.measuring.generation import Generation, ProcessReport
from mlopt.records.bench import Conditions
from mlopt.runtimes.messages import Opened, Ready, Usage

BLOCK_S = 0.02
LEAST_CALLS, MOST_CALLS = 3, 2000
SLOW_S = 0.05
"""Calls longer than this re-warm their own caches, and a budget holds too few of them
to drop any."""
MOST_FLUSHED = 10
"""Writing over the caches takes far longer than a short call: blocks are kept short by
number then."""
DROPPED_S = 0.002
"""A block starts on caches that another process has used: its first calls are not those
of a server at work."""
LEAST_DROPPED, MOST_DROPPED = 1, 4
SETTLED = 0.02
LEAST_WARM_BLOCKS = 3
WARMUP_LIMIT_S = 3.0
LOW_PERCENT = 10
"""The percentile of a block that stands for it: most of what disturbs a call makes it
longer, so the low end is the quiet one."""


class Timed(Protocol):
    """What the protocol drives: `remote.Worker`, or a fake."""

    name: str
    info: Opened

    def prepare(self, inputs: Path, copies: str = "in", flush: bool = False) -> Ready: ...
    def block(self, calls: int) -> list[float]: ...
    def usage(self) -> Usage: ...


@dataclass(frozen=True)
class Schedule:
    """How long processes take turns: so many seconds, and at least so many rounds."""

    seconds: float
    least_rounds: int


@dataclass(frozen=True)
class WarmUp:
    """How a warm-up ended. `settled`: successive blocks agreed; else the limit ended
    it, and the record says so."""

    per_call_s: float
    spent_s: float
    settled: bool


def warm_up(worker: Timed, clock: Callable[[], float] = time.perf_counter, flush: bool = False) -> WarmUp:
    """Call until the low percentiles of three successive blocks agree within 2%, or for
    three seconds."""
    begin = clock()
    levels = [_level(worker.block(1))]
    while True:
        levels.append(_level(worker.block(calls_of(levels[-1], flush)[0])))
        last = levels[-LEAST_WARM_BLOCKS:]
        settled = len(levels) > LEAST_WARM_BLOCKS and max(last) <= min(last) * (1 + SETTLED)
        spent = clock() - begin
        if settled or spent >= WARMUP_LIMIT_S:
            return WarmUp(levels[-1], spent, settled)


def _level(seconds: list[float]) -> float:
    return float(np.percentile(seconds, LOW_PERCENT))


def calls_of(per_call_s: float, flush: bool = False) -> tuple[int, int]:
    """(calls kept, calls dropped before them) in a block of an artifact that takes so
    long for a call."""
    each = max(per_call_s, 1e-7)
    if each >= SLOW_S:
        return (2 if each < 4 * SLOW_S else 1), 0
    kept = max(LEAST_CALLS, min(MOST_FLUSHED if flush else MOST_CALLS, round(BLOCK_S / each)))
    return kept, max(LEAST_DROPPED, min(MOST_DROPPED, round(DROPPED_S / each)))


def _report(opened: Opened, ready: Ready, warm: WarmUp) -> ProcessReport:
    """What a process has said until its warm-up ended."""
    return ProcessReport(**vars(opened), **vars(ready), warmup_s=warm.spent_s, settled=warm.settled)


def run_generation(
    workers: dict[int, Timed],
    inputs: Path,
    conditions: Conditions,
    schedule: Schedule,
    shuffle: random.Random,
    clock: Callable[[], float] = time.perf_counter,
) -> Generation:
    """Warm up all workers, and let them take turns.

    A worker that dies is in `failed` and out of the rest; the error of worker 0, the
    baseline, is raised: without it there is nothing to compare with.
    """
    made = Generation(began_s=clock())
    calls: dict[int, tuple[int, int]] = {}
    alive = dict(workers)

    def guarded(index: int, work: Callable[[int], None]) -> None:
        try:
            work(index)
        except MloptError as error:
            if index == 0:
                raise
            made.failed[index] = error
            made.blocks.pop(index, None)
            del alive[index]

    def start(index: int) -> None:
        ready = alive[index].prepare(inputs, conditions.copies, conditions.flush)
        warm = warm_up(alive[index], clock, conditions.flush)
        calls[index] = calls_of(warm.per_call_s, conditions.flush)
        made.blocks[index] = []
        made.reports[index] = _report(alive[index].info, ready, warm)

    def end(index: int) -> None:
        made.reports[index] = replace(made.reports[index], **vars(alive[index].usage()))

    def block(index: int) -> None:
        kept, dropped = calls[index]
        made.blocks[index].append(np.asarray(alive[index].block(kept + dropped)[dropped:]))

    for index in shuffle.sample(list(alive), len(alive)):
        guarded(index, start)
    begin, done = clock(), 0
    while done < schedule.least_rounds or clock() - begin < schedule.seconds:
        order = shuffle.sample(list(alive), len(alive))
        for index in (*order, *reversed(order)):
            if index in alive:
                guarded(index, block)
        done += 1
    for index in list(alive):
        guarded(index, end)
    made.seconds = clock() - made.began_s
    return made
