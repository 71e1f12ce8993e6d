"""The other end of `remote.Worker`: `python -m mlopt.runtimes.worker`. Imports torch only when the artifact needs it."""

from __future__ import annotations

import gc
import itertools
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mlopt.artifact import Format
from mlopt.errors import MloptError, first_line
from mlopt.processes import die_with_parent
from mlopt.runtimes.base import Runtime
from mlopt.runtimes.opening import open_runtime


def pin_to_cores(count: int) -> list[int]:
    """Keep this process on the last `count` cores that it may use; returns them. All workers share them and take turns."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))[-count:]
    os.sched_setaffinity(0, set(cores))
    return cores


def peak_rss_bytes() -> int:
    """Largest resident size of this process. On Linux not `ru_maxrss`, which keeps the size of the parent across fork and exec."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Session:
    """The state of a worker: its runtime and the inputs that are timed."""

    runtime: Runtime
    inputs: list[Any]

    def open(self, job: dict[str, Any]) -> dict[str, Any]:
        cores = pin_to_cores(int(job["threads"])) if job["pin"] and job["device"] == "cpu" else []
        trust = None
        if job["trust"] is not None and job["format"] == Format.MODULE:  # only a bundle asks for it, and it brings torch along
            from mlopt.model.trust import Trust

            trust = Trust.from_json(job["trust"])
        begin = time.perf_counter()
        self.runtime = open_runtime(
            Format(job["format"]), Path(job["path"]), threads=job["threads"], device=job["device"], precision=job["precision"], trust=trust
        )
        runtime = self.runtime
        return {
            "runtime": runtime.name,
            "device": runtime.device,
            "provider": runtime.provider,
            "load_s": time.perf_counter() - begin,
            "cores": cores,
        }

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        inputs = _read(job["inputs"])
        total, chunk = len(inputs[0]), job["chunk"] or len(inputs[0])
        parts = [self.runtime([array[at : at + chunk] for array in inputs]) for at in range(0, total, chunk)]
        joined = [np.concatenate(column) if np.ndim(column[0]) else column[0] for column in zip(*parts, strict=True)]
        np.savez(job["outputs"], *joined)
        return {}

    def prepare(self, job: dict[str, Any]) -> dict[str, Any]:
        self.inputs = _read(job["inputs"])
        self.runtime(self.inputs)
        gc.collect()
        gc.freeze()
        gc.disable()
        return {}

    def block(self, job: dict[str, Any]) -> dict[str, Any]:
        runtime, inputs, clock = self.runtime, self.inputs, time.perf_counter
        marks = [clock()]
        for _ in range(int(job["calls"])):
            runtime(inputs)
            marks.append(clock())
        return {"seconds": [after - before for before, after in itertools.pairwise(marks)]}

    def memory(self, job: dict[str, Any]) -> dict[str, Any]:
        return {"peak_rss_bytes": peak_rss_bytes()}


def _read(path: str) -> list[Any]:
    with np.load(path) as archive:
        return [archive[f"arr_{i}"] for i in range(len(archive.files))]


def main() -> None:
    """Answer requests until standard input closes."""
    die_with_parent()
    # Libraries print to file descriptor 1; answers go to a copy of it that they cannot reach.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session = Session()
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = getattr(session, job["op"])(job)
        except MloptError as error:
            answer = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        except Exception as error:  # whatever a runtime raises belongs to the parent
            answer = {"error": f"{type(error).__name__}: {first_line(error)}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
