"""Fresh processes, epoch after epoch: what `bench`, the gate and the search for a latency all sample with."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from mlopt.artifact import Artifact
from mlopt.errors import MloptError
from mlopt.measuring.environment import load_between, load_now
from mlopt.measuring.gpu import Gpu, between
from mlopt.measuring.protocol import Conditions, Epoch, run_epoch
from mlopt.records.bench import Operator
from mlopt.runtimes.base import Arrays
from mlopt.runtimes.messages import Served, ServeJob
from mlopt.runtimes.remote import Worker, WorkerSpec
from mlopt.runtimes.timing import Slowdown
from mlopt.runtimes.worker import write_sets

EPOCH_S = 0.8
"""Processes are renewed this often: where memory happens to lie makes one process of the same file faster than another, by up to 2%."""
START_SHARE = 0.5
"""An epoch samples for at least this share of what its start cost, so that heavy runtimes do not spend a budget on starting."""
LEAST_ROUNDS, LEAST_COLLECTED = 3, 8
"""Below eight rounds a 95% interval of a single set of processes would be little more than their range."""
MOST_EPOCHS, COLLECT_START_SHARE = 10, 2.0
PROFILED_CALLS = 5
ROTATED_BYTES, MOST_SETS = 4 * 2**20, 16


@dataclass(frozen=True)
class Entry:
    """An artifact to be timed. `slowdown`: a known delay around each call, for the gate's self-test."""

    name: str
    artifact: Artifact
    trust: Any = None
    device: str | None = None
    slowdown: Slowdown | None = None


@dataclass(frozen=True)
class Shape:
    """Inputs that all entries are timed on, at one batch size. `sets` take turns, so that no input is in a cache because it was just used."""

    batch: int
    sets: tuple[Arrays, ...]


def sets_for(bytes_each: int) -> int:
    """How many input sets to rotate: enough that together they do not fit a core's own cache."""
    return max(2, min(MOST_SETS, ROTATED_BYTES // max(1, bytes_each)))


class Sampler:
    """Starts all entries in fresh processes for each epoch. Entry 0 is the baseline. Use as a context manager: inputs lie in a scratch directory."""

    def __init__(self, entries: list[Entry], shapes: list[Shape], conditions: Conditions, seed: int = 0) -> None:
        self.entries, self.shapes, self.conditions = entries, shapes, conditions
        self._shuffle = random.Random(seed)
        self._stack = contextlib.ExitStack()
        self._gpu = Gpu.open() if conditions.device == "cuda" else None
        self.lost: dict[int, MloptError] = {}
        """Entries that could not be loaded or died: they are not started again."""
        self.operators: dict[int, list[Operator]] = {}
        """Profiles, once `collect` was asked for them: rows of `Runtime.profile`, by entry."""

    def __enter__(self) -> Sampler:
        scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mlopt-inputs-")))
        self._inputs = [scratch / f"{number}.npz" for number in range(len(self.shapes))]
        for path, shape in zip(self._inputs, self.shapes, strict=True):
            write_sets(path, list(shape.sets))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def worker(self, entry: Entry, pin: bool = True) -> Worker:
        """A fresh process for an entry; it loads while the caller goes on."""
        artifact, on = entry.artifact, self.conditions
        spec = WorkerSpec(artifact.format, artifact.path, on.threads, entry.device or on.device, artifact.precision,
                          entry.trust, pin, on.cuda_graph, entry.slowdown)  # fmt: skip
        return Worker(entry.name, spec)

    @contextlib.contextmanager
    def started(self, side_by_side: bool = True) -> Iterator[dict[int, Any]]:
        """Workers of all entries that are not lost; loading side by side is quicker, one after the other is what a cold start is measured
        with. Raises what the baseline raises."""
        with contextlib.ExitStack() as stack:
            order = [index for index in range(len(self.entries)) if index not in self.lost]
            self._shuffle.shuffle(order)
            waiting = {index: self.worker(self.entries[index]) for index in order} if side_by_side else {}
            for worker in waiting.values():
                stack.callback(worker.close)
            ready: dict[int, Any] = {}
            for index in order:
                try:
                    ready[index] = waiting[index].__enter__() if side_by_side else stack.enter_context(self.worker(self.entries[index]))
                except MloptError as error:
                    if index == 0:
                        raise
                    self.lost[index] = error
            yield ready

    def epoch(
        self,
        seconds: Callable[[float], float] | float = EPOCH_S,
        side_by_side: bool = True,
        rounds: int = LEAST_ROUNDS,
        after: Callable[[dict[int, Any]], None] = lambda workers: None,
    ) -> list[Epoch]:
        """One set of fresh processes: an `Epoch` for each shape. `seconds` of sampling for each, or how many, given what the start took; `rounds` at
        least. `after` is given the workers before they end."""
        out = []
        began, load, card = time.perf_counter(), load_now(), self._gpu.read() if self._gpu else None
        with self.started(side_by_side) as workers:
            start_s = time.perf_counter() - began
            length = seconds(start_s) if callable(seconds) else max(seconds, START_SHARE * start_s)
            for shape, inputs in zip(self.shapes, self._inputs, strict=True):
                able = {i: w for i, w in workers.items() if i not in self.lost and self.entries[i].artifact.fixed_batch in (None, shape.batch)}
                epoch = Epoch()
                if 0 in able:
                    epoch = run_epoch(able, inputs, self.conditions, length, rounds, self._shuffle)
                    self.lost |= epoch.failed
                out.append(epoch)
            after(workers)
        passed = load_between(load, load_now())
        if self._gpu is not None:
            passed["gpu"] = between(card, self._gpu.read())
        for epoch in out:
            epoch.load, epoch.seconds = passed, (time.perf_counter() - began) / len(out)
        return out

    def collect(self, budget_s: float, profile: bool = False) -> list[list[Epoch]]:
        """Epochs until about `budget_s` seconds of every shape were sampled, starts not counted: for figures, not for verdicts.

        The first set of processes loads one after the other, for the cold start. `profile`: the last set is asked for its `operators` when its timing
        is done.
        """
        wanted = 1

        def length(start_s: float) -> float:
            nonlocal wanted
            if not out:
                wanted = max(1, min(MOST_EPOCHS, round(budget_s / max(EPOCH_S * len(self.entries) / 2, COLLECT_START_SHARE * start_s))))
            return budget_s / wanted

        def after(workers: dict[int, Any]) -> None:
            if profile and len(out) + 1 >= wanted:
                self._read_profiles(workers)

        out: list[list[Epoch]] = []
        while len(out) < wanted:
            out.append(self.epoch(length, side_by_side=bool(out), rounds=LEAST_COLLECTED, after=after))
        return [list(column) for column in zip(*out, strict=True)]

    def _read_profiles(self, workers: dict[int, Any]) -> None:
        """The operators of every entry that can run the first shape. Timing with a profiler on is another thing than timing."""
        for index, worker in workers.items():
            if index not in self.lost and self.entries[index].artifact.fixed_batch in (None, self.shapes[0].batch):
                with contextlib.suppress(MloptError):  # a profile explains; without it there is one explanation less
                    self.operators[index] = worker.profile(self._inputs[0], PROFILED_CALLS)

    def throughput(self, sessions: int, seconds: float) -> dict[int, dict[str, Any]]:
        """Each entry with so many processes of it at work at once, on the first shape: {sessions, throughput_per_s, joules_per_sample}, the last
        from NVML's counter, None without it."""
        out: dict[int, dict[str, Any]] = {}
        for index, entry in enumerate(self.entries):
            if index in self.lost or entry.artifact.fixed_batch not in (None, self.shapes[0].batch):
                continue
            with contextlib.ExitStack() as stack:
                workers = [stack.enter_context(self.worker(entry, pin=False)) for _ in range(sessions)]
                for worker in workers:
                    worker.prepare(self._inputs[0], self.conditions.copies)
                before = self._gpu.read() if self._gpu else None
                for worker in workers:
                    worker.send(ServeJob(seconds))
                answers = [worker.receive(Served) for worker in workers]
                spent = (between(before, self._gpu.read() if self._gpu else None) or {}).get("energy_j")
            done = self.shapes[0].batch * sum(answer.calls for answer in answers)
            rate = self.shapes[0].batch * sum(answer.calls / answer.seconds for answer in answers)
            out[index] = {"sessions": sessions, "throughput_per_s": rate, "joules_per_sample": None if spent is None else spent / max(1, done)}
        return out
