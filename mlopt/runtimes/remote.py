"""A runtime in a process of its own: a crash is one failed artifact, memory is its own, and nothing else runs in it.

Parent and worker speak JSON lines over pipes; arrays go through .npz files in a scratch directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlopt.artifact import Format
from mlopt.errors import EXIT_OK, MloptError, PassFailed
from mlopt.runtimes.base import Arrays
from mlopt.runtimes.timing import Slowdown
from mlopt.runtimes.worker import write_sets
from mlopt.system.processes import importable

DEFAULT_TIMEOUT_S = 300.0
LEAST_PATIENCE_S, PATIENCE = 30.0, 50
"""A block hangs when it takes this many times what its first call took, and at least these seconds."""


class Worker:
    """One artifact, loaded in a fresh process. Use as a context manager.

    The process starts, and begins to load, when the object is made; entering it waits until it is ready. So several load side by side.
    """

    def __init__(self, name: str, format: Format, path: Path, *, threads: int = 1, device: str = "cpu", precision: str = "fp32",
                 trust: Any = None, pin: bool = False, cuda_graph: bool = False, slowdown: Slowdown | None = None) -> None:  # fmt: skip
        """`slowdown`: a delay around every timed call, by which the gate is tested."""
        self.name = name
        self.info: dict[str, Any] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="mlopt-worker-")
        self._log = (Path(self._scratch.name) / "log").open("w+")
        environment = {**os.environ, "PYTHONPATH": importable(), "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlopt.runtimes.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self._graph, self._first_s = cuda_graph, 0.0
        job = {"op": "open", "format": str(format), "path": str(path), "threads": threads, "device": device, "precision": precision}
        job |= {"pin": pin, "trust": None if trust is None else trust.to_json(), "cuda_graph": cuda_graph}
        self.send({**job, "slowdown": None if slowdown is None else slowdown.to_json()})

    def __enter__(self) -> Worker:
        """Raises `PassFailed` when it cannot load, with the worker's own words."""
        try:
            self.info = self.receive()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def send(self, message: dict[str, Any]) -> None:
        """Ask without waiting. A process that has died is found by `receive`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def receive(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> dict[str, Any]:
        """The answer to what was sent. Raises `PassFailed` when the worker dies, hangs, or reports an error."""
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
            tail = " | ".join(self._log.read().strip().splitlines()[-3:])
            what = f"did not answer within {timeout_s:.0f} s" if expired.is_set() else f"died with {code}"
            raise PassFailed(f"the process that runs {self.name} {what}{': ' + tail if tail else ''}", "open the file by itself with mlopt bench")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _as_error(answer, self.name)
        return answer

    def ask(self, message: dict[str, Any], timeout_s: float = DEFAULT_TIMEOUT_S) -> dict[str, Any]:
        """Send one request and wait for its answer. Raises as `receive`."""
        self.send(message)
        return self.receive(timeout_s)

    def run(self, inputs: Arrays, chunk: int | None = None, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[NDArray[Any]]:
        """The outputs for these inputs; `chunk`: at most so many samples a call, outputs joined along the first dimension."""
        place = Path(self._scratch.name)
        write_sets(place / "in.npz", [inputs])
        self.ask({"op": "run", "inputs": str(place / "in.npz"), "outputs": str(place / "out.npz"), "chunk": chunk}, timeout_s)
        with np.load(place / "out.npz") as archive:
            return [archive[f"arr_{i}"] for i in range(len(archive.files))]

    def prepare(self, inputs: Path, copies: str = "in", flush: bool = False) -> dict[str, Any]:
        """Bind the input sets that `block` times (a file of `write_sets`); returns {first_s, clock}. `copies`: `in` or `out` of the time."""
        answer = self.ask({"op": "prepare", "inputs": str(inputs), "copies": copies, "flush": flush, "cuda_graph": self._graph})
        self._first_s = float(answer["first_s"])
        return answer

    def block(self, calls: int) -> list[float]:
        """Seconds of each of `calls` calls in a row."""
        patience = max(LEAST_PATIENCE_S, PATIENCE * calls * self._first_s)
        return [nanoseconds * 1e-9 for nanoseconds in self.ask({"op": "block", "calls": calls}, patience)["ns"]]

    def profile(self, inputs: Path, calls: int) -> list[dict[str, Any]]:
        """Seconds a call of every operator, slowest first: `Runtime.profile`."""
        operators: list[dict[str, Any]] = self.ask({"op": "profile", "inputs": str(inputs), "calls": calls})["operators"]
        return operators

    def usage(self) -> dict[str, Any]:
        """{peak_rss_bytes, peak_device_bytes, preempted: how often the system took the core away}."""
        return self.ask({"op": "usage"})

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


def _as_error(answer: dict[str, Any], name: str) -> MloptError:
    code = int(answer.get("exit_code", EXIT_OK))
    error: MloptError = PassFailed(f"{name}: {answer['error']}", str(answer.get("hint", "")))
    if code:
        error.exit_code = code
    return error
