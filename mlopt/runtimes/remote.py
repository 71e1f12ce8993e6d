"""A runtime in a process of its own: a crash is one failed artifact, memory is its own,
and nothing else runs in it.

Parent and worker send each other lines of JSON (`messages.py`) over pipes; arrays go
through .npz files in a scratch directory.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlopt.errors import MloptError, PassFailed, last_lines
from mlopt.model.trust import Trust
from mlopt.runtimes.base import Arrays, OpenOptions
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
    Times,
    Usage,
    UsageJob,
    from_line,
    to_line,
)
from mlopt.runtimes.opening import opener_of
from mlopt.runtimes.timing import Slowdown
from mlopt.runtimes.worker import write_sets
from mlopt.system.processes import python_path

if TYPE_CHECKING:
    from mlopt.records.bench import Operator

A = TypeVar("A", bound=Answer)

DEFAULT_TIMEOUT_S = 300.0
LEAST_PATIENCE_S, PATIENCE = 30.0, 50
"""A block hangs when it takes this many times what its first call took, and at least
these seconds."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker loads, and how it shall run: `base.OpenOptions` of an artifact of
    this `format`.

    `pin`: keep the process on as many cores as it has threads. `slowdown`: a delay
    around every timed call, by which the gate is tested.
    """

    format: str
    path: Path
    threads: int = 1
    device: str = "cpu"
    precision: str = "fp32"
    trust: Trust | None = None
    pin: bool = False
    cuda_graph: bool = False
    slowdown: Slowdown | None = None

    def job(self) -> OpenJob:
        """The first request. Raises `UsageError` for a format that mlopt cannot run."""
        options = OpenOptions(
            self.path, self.threads, self.device, self.precision, self.trust, self.cuda_graph
        )
        return OpenJob(opener_of(self.format), options, self.pin, self.slowdown)


class Worker:
    """One artifact, loaded in a fresh process. Use as a context manager.

    The process starts, and begins to load, when the object is made; entering it waits
    until it is ready. So several load side by side. `info` is what it said when it was
    ready.
    """

    info: Opened

    def __init__(self, name: str, spec: WorkerSpec) -> None:
        """`name`: what errors call it. Raises `UsageError` for a format that mlopt
        cannot run."""
        job = spec.job()
        self.name = name
        self._scratch = tempfile.TemporaryDirectory(prefix="mlopt-worker-")
        self._log = (Path(self._scratch.name) / "log").open("w+")
        threads = str(spec.threads)
        environment = {
            **os.environ,
            "PYTHONPATH": python_path(),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlopt.runtimes.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self._graph, self._first_s = spec.cuda_graph, 0.0
        self.send(job)

    def __enter__(self) -> Worker:
        """Raises `PassFailed` when it cannot load, with the worker's own words."""
        try:
            self.info = self.receive(Opened)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, request: Request) -> None:
        """Ask without waiting. A process that has died is found by `receive`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(to_line(request))
            self._process.stdin.flush()

    def receive(self, kind: type[A], timeout_s: float = DEFAULT_TIMEOUT_S) -> A:
        """The answer to what was sent, which must be of this kind.

        Raises `PassFailed` when the worker dies, hangs, or reports an error.
        """
        assert self._process.stdout is not None
        expired = threading.Event()

        def end() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(timeout_s, end)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            tail = last_lines(self._log.read())
            what = f"did not answer within {timeout_s:.0f} s" if expired.is_set() else f"died with {code}"
            raise PassFailed(
                f"the process that runs {self.name} {what}{': ' + tail if tail else ''}",
                "open the file by itself with mlopt bench",
            )
        answer = from_line(line)
        if isinstance(answer, Refused):
            raise _as_error(answer, self.name)
        if not isinstance(answer, kind):
            raise PassFailed(f"{self.name} answered with {type(answer).__name__}, not {kind.__name__}")
        return answer

    def ask(self, request: Request, kind: type[A], timeout_s: float = DEFAULT_TIMEOUT_S) -> A:
        """Send one request and wait for its answer. Raises as `receive`."""
        self.send(request)
        return self.receive(kind, timeout_s)

    def run(
        self, inputs: Arrays, chunk: int | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[NDArray[Any]]:
        """The outputs for these inputs; `chunk`: at most so many samples a call,
        outputs joined along the first dimension."""
        place = Path(self._scratch.name)
        write_sets(place / "in.npz", [inputs])
        self.ask(RunJob(place / "in.npz", place / "out.npz", chunk), Done, timeout_s)
        with np.load(place / "out.npz") as archive:
            return [archive[f"arr_{i}"] for i in range(len(archive.files))]

    def prepare(self, inputs: Path, copies: str = "in", flush: bool = False) -> Ready:
        """Bind the input sets that `block` times (a file of `write_sets`). `copies`:
        `in` or `out` of the time."""
        ready = self.ask(PrepareJob(inputs, copies, flush, self._graph), Ready)
        self._first_s = ready.first_s
        return ready

    def block(self, calls: int) -> list[float]:
        """Seconds of each of `calls` calls in a row."""
        patience = max(LEAST_PATIENCE_S, PATIENCE * calls * self._first_s)
        return [nanoseconds * 1e-9 for nanoseconds in self.ask(BlockJob(calls), Times, patience).ns]

    def profile(self, inputs: Path, calls: int) -> list[Operator]:
        """Every operator with its seconds a call, the slowest first:
        `Runtime.profile`."""
        return list(self.ask(ProfileJob(inputs, calls), Profiled).operators)

    def usage(self) -> Usage:
        """Memory so far, and how often the system took the core away."""
        return self.ask(UsageJob(), Usage)

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                self._process.stdin.close()  # type: ignore[union-attr]
            try:
                self._process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        for stream in (self._process.stdout, self._process.stdin):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._log.close()
        self._scratch.cleanup()


def _as_error(answer: Refused, name: str) -> MloptError:
    error: MloptError = PassFailed(f"{name}: {answer.error}", answer.hint)
    if answer.exit_code:
        error.exit_code = answer.exit_code
    return error
