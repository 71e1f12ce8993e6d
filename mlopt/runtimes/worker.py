"""The other end of `remote.Worker`: `python -m mlopt.runtimes.worker`. Imports torch
only when the artifact needs it."""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlopt.errors import MloptError, first_line
from mlopt.runtimes.base import Arrays, Call, Runtime
from mlopt.runtimes.messages import (
    Answer,
    BlockJob,
    Done,
    Opened,
    OpenJob,
    PrepareJob,
    Profiled,
    ProfileJob,
    Ready,
    Refused,
    Request,
    RunJob,
    Served,
    ServeJob,
    Times,
    Usage,
    UsageJob,
    from_line,
    to_line,
)
from mlopt.runtimes.opening import open_runtime
from mlopt.runtimes.timing import Slowdown, Timer, cache_flush, event_times, host_times
from mlopt.system.processes import die_with_parent

FLUSH_BYTES = 128 * 2**20
"""More than the last cache of any processor that serves models, and than the L2 of a
GPU."""


def pin_to_cores(count: int) -> list[int]:
    """Keep this process on the last `count` cores that it may use; returns them. All
    workers share them and take turns."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))[-count:]
    os.sched_setaffinity(0, set(cores))
    return cores


def peak_rss_bytes() -> int:
    """Largest resident size of this process. On Linux not `ru_maxrss`, which keeps the
    size of the parent across fork and exec."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Session:
    """The state of a worker: its runtime, and the calls that are timed."""

    runtime: Runtime
    calls: list[Call]
    timer: Timer
    slowdown: Slowdown | None
    at = 0
    """How many calls were timed so far: where the next block begins in the rotation of
    input sets."""

    def answer(self, request: Request) -> Answer:
        """Do what is asked. Raises what the runtime raises."""
        match request:
            case OpenJob():
                return self.open(request)
            case RunJob():
                return self.run(request)
            case PrepareJob():
                return self.prepare(request)
            case BlockJob():
                return self.block(request)
            case ServeJob():
                return self.serve(request)
            case ProfileJob():
                return Profiled(tuple(self.runtime.profile(read_sets(request.inputs)[0], request.calls)))
            case UsageJob():
                return self.usage()

    def open(self, job: OpenJob) -> Opened:
        """Load the artifact, on cores of its own where that is asked for."""
        cores = pin_to_cores(job.options.threads) if job.pin and job.options.device == "cpu" else []
        begin = time.perf_counter()
        self.runtime = runtime = open_runtime(job.opener, job.options)
        load_s = time.perf_counter() - begin
        self.slowdown = job.slowdown
        return Opened(runtime.name, runtime.device, runtime.provider, runtime.precision, load_s, tuple(cores))

    def run(self, job: RunJob) -> Done:
        """The outputs for one set of inputs, joined along the first dimension."""
        (inputs,) = read_sets(job.inputs)
        total, chunk = len(inputs[0]), job.chunk or len(inputs[0])
        parts = [self.runtime([array[at : at + chunk] for array in inputs]) for at in range(0, total, chunk)]
        joined = [
            np.concatenate(column) if np.ndim(column[0]) else column[0] for column in zip(*parts, strict=True)
        ]
        np.savez(job.outputs, *joined)
        return Done()

    def prepare(self, job: PrepareJob) -> Ready:
        """Bind the inputs that `block` will take in turn; the first answer ends the
        cold start."""
        sets = read_sets(job.inputs)
        begin = time.perf_counter()
        self.runtime(sets[0])
        first_s = time.perf_counter() - begin
        self.calls = [self.runtime.bind(inputs, job.copies == "in", job.cuda_graph) for inputs in sets]
        if self.slowdown is not None:
            self.calls = [self.slowdown.around(call, seed) for seed, call in enumerate(self.calls)]
        flush = cache_flush(self.runtime.device, FLUSH_BYTES) if job.flush else None
        if self.runtime.device == "cuda" and job.copies == "out" and self.runtime.provider == "torch":
            import torch

            self.timer, clock = partial(event_times, torch.cuda, flush=flush), "cuda events"
        else:
            self.timer, clock = partial(host_times, flush=flush), "host"
        gc.collect()
        gc.freeze()
        gc.disable()
        return Ready(first_s, clock)

    def block(self, job: BlockJob) -> Times:
        """Time some calls in a row."""
        nanoseconds = self.timer(self.calls, self.at, job.calls)
        self.at += len(nanoseconds)
        return Times(tuple(nanoseconds))

    def serve(self, job: ServeJob) -> Served:
        """As many calls as fit into so many seconds."""
        done, begin = 0, time.perf_counter()
        while (passed := time.perf_counter() - begin) < job.seconds:
            self.calls[done % len(self.calls)]()
            done += 1
        return Served(done, passed)

    def usage(self) -> Usage:
        """Memory, and how often the system took the core away."""
        preempted = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        return Usage(peak_rss_bytes(), _peak_device_bytes(self.runtime.device), preempted)


def _peak_device_bytes(device: str) -> int | None:
    """PyTorch's own count; other runtimes do not say, and NVML (in the parent) does."""
    if device != "cuda" or "torch" not in sys.modules:
        return None
    import torch

    return int(torch.cuda.max_memory_allocated())


def read_sets(path: Path) -> list[list[Any]]:
    """Input sets as `remote.write_sets` wrote them."""
    with np.load(path) as archive:
        keys = [tuple(map(int, name.split("_"))) for name in archive.files]
        sets, inputs = (1 + max(key[at] for key in keys) for at in (0, 1))
        return [[archive[f"{i}_{j}"] for j in range(inputs)] for i in range(sets)]


def write_sets(path: Path, sets: list[Arrays]) -> None:
    """Several sets of positional inputs in one file."""
    arrays: dict[str, NDArray[Any]] = {
        f"{i}_{j}": array for i, inputs in enumerate(sets) for j, array in enumerate(inputs)
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]


def main() -> None:
    """Answer requests until standard input closes."""
    die_with_parent()
    # Libraries print to file descriptor 1; answers go to a copy of it that they cannot
    # reach.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session = Session()
    for line in sys.stdin:
        try:
            answer = session.answer(from_line(line))
        except MloptError as error:
            answer = Refused(error.message, error.hint, error.exit_code)
        except Exception as error:  # whatever a runtime raises belongs to the parent
            answer = Refused(f"{type(error).__name__}: {first_line(error)}")
        answers.write(to_line(answer))
        answers.flush()


if __name__ == "__main__":
    main()
