"""Runs the command line in a process of its own, watches its memory, and writes
results."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mlopt.measuring.environment import fingerprint
from mlopt.records.edge import to_json

RESULTS = Path(__file__).resolve().parent / "results"


def tree_pss(pid: int) -> int:
    """Bytes that a process and all its descendants hold; pages that they share (the
    libraries) count once in all (proportional set size)."""
    total, todo = 0, [pid]
    while todo:
        process = todo.pop()
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
            for task in Path(f"/proc/{process}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
        except (OSError, ValueError, IndexError, StopIteration):
            continue
    return total


def run_mlopt(arguments: list[str]) -> tuple[dict[str, Any], float, int]:
    """(run record, seconds, peak bytes of the process tree). Raises when the run
    fails."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen([sys.executable, "-m", "mlopt", *arguments, "--json"], stdout=out)
        peak = watch(child)
        out.seek(0)
        text = out.read()
    if child.returncode:
        raise SystemExit(f"mlopt {' '.join(arguments)} ended with {child.returncode}")
    return json.loads(text), time.perf_counter() - begin, peak


def watch(child: subprocess.Popen[bytes]) -> int:
    """Wait for a process; the largest `tree_pss` seen."""
    peak = 0
    while child.poll() is None:
        peak = max(peak, tree_pss(child.pid))
        try:
            child.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    return peak


def write(name: str, data: dict[str, Any]) -> None:
    """Keep a result with its environment, and print it."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(
        json.dumps({"environment": to_json(fingerprint()), **data}, indent=1) + "\n"
    )
    print(json.dumps(data, indent=1))
