"""Fresh processes, generation after generation: what `bench`, the gate and the search
for a latency all sample with."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mlopt.artifact import Artifact
from mlopt.errors import MloptError
from mlopt.measuring.environment import load_between, load_now
from mlopt.measuring.generation import Generation
from mlopt.measuring.gpu import Gpu, between
from mlopt.measuring.protocol import Schedule, run_generation
from mlopt.model.trust import Trust
from mlopt.records.bench import Concurrent, Conditions, GpuState, Operator
from mlopt.runtimes.base import Arrays
from mlopt.runtimes.messages import Served, ServeJob
from mlopt.runtimes.remote import Worker, WorkerSpec
from mlopt.runtimes.timing import Slowdown
from mlopt.runtimes.worker import write_sets

GENERATION_S = 0.8
"""Processes are renewed this often: where memory happens to lie makes one process of
the same file faster than another, by up to 2%."""
START_SHARE = 0.5
"""A generation samples for at least this share of what its start cost, so that heavy
runtimes do not spend a budget on starting."""
LEAST_ROUNDS, LEAST_COLLECTED = 3, 8
"""Below eight rounds a 95% interval of a single set of processes would be little more
than their range."""
MOST_GENERATIONS, COLLECT_START_SHARE = 10, 2.0
PROFILED_CALLS = 5
ROTATED_BYTES, MOST_SETS = 4 * 2**20, 16


@dataclass(frozen=True)
class Contender:
    """An artifact to be timed. `device`: where it runs instead of the device of the
    conditions.

    `slowdown`: a known delay around each call, for the gate's self-test.
    """

    name: str
    artifact: Artifact
    trust: Trust | None = None
    device: str | None = None
    slowdown: Slowdown | None = None

    def takes(self, batch: int) -> bool:
        """Whether it can run this batch size."""
        return self.artifact.fixed_batch in (None, batch)


@dataclass(frozen=True)
class Workload:
    """Inputs that all contenders are timed on, at one batch size.

    `sets` take turns, so that no input is in a cache because it was just used.
    """

    batch: int
    sets: tuple[Arrays, ...]


def sets_for(bytes_each: int) -> int:
    """How many input sets to rotate: enough that together they do not fit a core's own
    cache."""
    return max(2, min(MOST_SETS, ROTATED_BYTES // max(1, bytes_each)))


def start_worker(contender: Contender, conditions: Conditions, pin: bool = True) -> Worker:
    """A fresh process for a contender; it loads while the caller goes on. `pin`: on the
    cores that all take turns on."""
    artifact = contender.artifact
    spec = WorkerSpec(
        artifact.format,
        artifact.path,
        threads=conditions.threads,
        device=contender.device or conditions.device,
        precision=artifact.precision,
        trust=contender.trust,
        pin=pin,
        cuda_graph=conditions.cuda_graph,
        slowdown=contender.slowdown,
    )
    return Worker(contender.name, spec)


class Sampler:
    """Starts all contenders in fresh processes for each generation. Contender 0 is the
    baseline.

    Use as a context manager: inputs lie in a scratch directory.
    """

    def __init__(
        self, contenders: list[Contender], workloads: list[Workload], conditions: Conditions, seed: int = 0
    ) -> None:
        self.contenders, self.workloads, self.conditions = contenders, workloads, conditions
        self._shuffle = random.Random(seed)
        self._stack = contextlib.ExitStack()
        self._gpu = Gpu.open() if conditions.device == "cuda" else None
        self._inputs: list[Path] = []
        self.lost: dict[int, MloptError] = {}
        """Contenders that could not be loaded or died: they are not started again."""
        self.operators: dict[int, tuple[Operator, ...]] = {}
        """Profiles by contender, once `collect` was asked for them."""

    def __enter__(self) -> Sampler:
        scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mlopt-inputs-")))
        self._inputs = [scratch / f"{number}.npz" for number in range(len(self.workloads))]
        for path, workload in zip(self._inputs, self.workloads, strict=True):
            write_sets(path, list(workload.sets))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def started(self, side_by_side: bool = True) -> Iterator[dict[int, Worker]]:
        """Workers of all contenders that are not lost; loading side by side is quicker,
        one after the other is what a cold start is measured with. Raises what the
        baseline raises."""
        with contextlib.ExitStack() as stack:
            order = [index for index in range(len(self.contenders)) if index not in self.lost]
            self._shuffle.shuffle(order)
            waiting = {index: self._start(index) for index in order} if side_by_side else {}
            for worker in waiting.values():
                stack.callback(worker.close)
            ready: dict[int, Worker] = {}
            for index in order:
                try:
                    ready[index] = (
                        waiting[index].__enter__()
                        if side_by_side
                        else stack.enter_context(self._start(index))
                    )
                except MloptError as error:
                    if index == 0:
                        raise
                    self.lost[index] = error
            yield ready

    def _start(self, index: int) -> Worker:
        return start_worker(self.contenders[index], self.conditions)

    def generation(
        self,
        seconds: Callable[[float], float] | float = GENERATION_S,
        side_by_side: bool = True,
        rounds: int = LEAST_ROUNDS,
        after: Callable[[dict[int, Worker]], None] = lambda workers: None,
    ) -> list[Generation]:
        """One set of fresh processes: a `Generation` for each workload.

        `seconds` of sampling for each, or how many, given what the start took; `rounds`
        at least. `after` is given the workers before they end.
        """
        out = []
        began, load, card = time.perf_counter(), load_now(), self._read_gpu()
        with self.started(side_by_side) as workers:
            start_s = time.perf_counter() - began
            length = seconds(start_s) if callable(seconds) else max(seconds, START_SHARE * start_s)
            for workload, inputs in zip(self.workloads, self._inputs, strict=True):
                able = {
                    i: w
                    for i, w in workers.items()
                    if i not in self.lost and self.contenders[i].takes(workload.batch)
                }
                made = Generation()
                if 0 in able:
                    made = run_generation(
                        dict(able), inputs, self.conditions, Schedule(length, rounds), self._shuffle
                    )
                    self.lost |= made.failed
                out.append(made)
            after(workers)
        load_meanwhile, gpu_meanwhile = load_between(load, load_now()), between(card, self._read_gpu())
        for made in out:
            made.load, made.gpu, made.seconds = (
                load_meanwhile,
                gpu_meanwhile,
                (time.perf_counter() - began) / len(out),
            )
        return out

    def _read_gpu(self) -> GpuState | None:
        return self._gpu.read() if self._gpu else None

    def collect(self, budget_s: float, profile: bool = False) -> list[list[Generation]]:
        """Generations, by workload, until about `budget_s` seconds of every workload
        were sampled, starts not counted: for figures, not for verdicts.

        The first set of processes loads one after the other, for the cold start.
        `profile`: the last set is asked for its `operators` when its timing is done.
        """
        wanted = 1

        def length(start_s: float) -> float:
            nonlocal wanted
            if not out:
                each = max(GENERATION_S * len(self.contenders) / 2, COLLECT_START_SHARE * start_s)
                wanted = max(1, min(MOST_GENERATIONS, round(budget_s / each)))
            return budget_s / wanted

        def after(workers: dict[int, Worker]) -> None:
            if profile and len(out) + 1 >= wanted:
                self._read_profiles(workers)

        out: list[list[Generation]] = []
        while len(out) < wanted:
            out.append(self.generation(length, side_by_side=bool(out), rounds=LEAST_COLLECTED, after=after))
        return [list(column) for column in zip(*out, strict=True)]

    def _read_profiles(self, workers: dict[int, Worker]) -> None:
        """The operators of every contender that can run the first workload. Timing with
        a profiler on is another thing than timing."""
        for index, worker in workers.items():
            if index not in self.lost and self.contenders[index].takes(self.workloads[0].batch):
                with contextlib.suppress(
                    MloptError
                ):  # a profile explains; without it there is one explanation less
                    self.operators[index] = tuple(worker.profile(self._inputs[0], PROFILED_CALLS))

    def throughput(self, sessions: int, seconds: float) -> dict[int, Concurrent]:
        """Each contender with so many processes of it at work at once, on the first
        workload. Joules are from NVML's counter."""
        out: dict[int, Concurrent] = {}
        batch = self.workloads[0].batch
        for index, contender in enumerate(self.contenders):
            if index in self.lost or not contender.takes(batch):
                continue
            with contextlib.ExitStack() as stack:
                started = [start_worker(contender, self.conditions, pin=False) for _ in range(sessions)]
                workers = [stack.enter_context(worker) for worker in started]
                for worker in workers:
                    worker.prepare(self._inputs[0], self.conditions.copies)
                before = self._read_gpu()
                for worker in workers:
                    worker.send(ServeJob(seconds))
                answers = [worker.receive(Served) for worker in workers]
                card = between(before, self._read_gpu())
            done = batch * sum(answer.calls for answer in answers)
            rate = batch * sum(answer.calls / answer.seconds for answer in answers)
            spent = None if card is None else card.energy_j
            out[index] = Concurrent(sessions, rate, None if spent is None else spent / max(1, done))
        return out
