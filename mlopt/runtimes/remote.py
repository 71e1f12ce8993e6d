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
from mlopt.processes import importable
from mlopt.runtimes.base import Arrays

DEFAULT_TIMEOUT_S = 300.0


class Worker:
    """One artifact, loaded in a fresh process. Use as a context manager."""

    def __init__(self, name: str, format: Format, path: Path, *, threads: int = 1, device: str = "cpu", precision: str = "fp32",
                 trust: Any = None, pin: bool = False) -> None:  # fmt: skip
        """Start it. Raises `PassFailed` when it cannot load, with the worker's own words."""
        self.name = name
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
        job = {"op": "open", "format": str(format), "path": str(path), "threads": threads, "device": device, "precision": precision}
        self.opened = False
        self._job = {**job, "pin": pin, "trust": None if trust is None else trust.to_json()}
        self.info: dict[str, Any] = {}

    def __enter__(self) -> Worker:
        try:
            self.info = self.ask(self._job)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def ask(self, message: dict[str, Any], timeout_s: float = DEFAULT_TIMEOUT_S) -> dict[str, Any]:
        """Send one request and wait for its answer. Raises `PassFailed` when the worker dies, hangs, or reports an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        expired = threading.Event()

        def end() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(timeout_s, end)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
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

    def run(self, inputs: Arrays, chunk: int | None = None) -> list[NDArray[Any]]:
        """The outputs for these inputs; `chunk`: at most so many samples a call, outputs joined along the first dimension."""
        place = Path(self._scratch.name)
        np.savez(place / "in.npz", *inputs)
        self.ask({"op": "run", "inputs": str(place / "in.npz"), "outputs": str(place / "out.npz"), "chunk": chunk})
        with np.load(place / "out.npz") as archive:
            return [archive[f"arr_{i}"] for i in range(len(archive.files))]

    def prepare(self, inputs: Arrays) -> None:
        """Set the inputs that `block` times."""
        path = Path(self._scratch.name) / "timed.npz"
        np.savez(path, *inputs)
        self.ask({"op": "prepare", "inputs": str(path)})

    def block(self, calls: int) -> list[float]:
        """Seconds of each of `calls` calls in a row."""
        seconds: list[float] = self.ask({"op": "block", "calls": calls})["seconds"]
        return seconds

    def peak_rss_bytes(self) -> int:
        """Largest resident size the worker has had."""
        return int(self.ask({"op": "memory"})["peak_rss_bytes"])

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
