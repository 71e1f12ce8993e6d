"""Which architectures of the zoo each tool prunes to half of the MACs with no
configuration. Every trial is a process of its own."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import write
from mlopt.model.capture import no_cache

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from zoo import ZOO

TIMEOUT_S = 60.0
CLOSE = 0.03


def with_mlopt(name: str) -> dict[str, Any]:
    """One architecture with mlopt."""
    from mlopt.pruning.pruner import prune_module

    module, inputs = ZOO[name]()
    report = prune_module(module, inputs, "macs:0.5").report
    return {"left": report.reached, "rung": report.rung, "error": report.proof.error}


def with_peer(name: str) -> dict[str, Any]:
    """One architecture with torch-pruning, its ratio of channels searched for the same
    MACs."""
    from benchmarks.pruning.peer import prune_to, works

    module, inputs = ZOO[name]()
    with no_cache(
        module
    ):  # a cache of keys and values among the outputs is nothing that a gradient could start from
        made, share = prune_to(module.eval(), inputs, 0.5)
        works(made, inputs)
    return {"left": share}


class Trial:
    """A forked child that runs one trial and writes its result into a pipe. Forked from
    a process with one thread only."""

    def __init__(self, work: Callable[[str], dict[str, Any]], name: str) -> None:
        self._read, out = os.pipe()
        self._begin = time.monotonic()
        self._child = os.fork()
        if self._child:
            os.close(out)
            return
        os.close(self._read)
        torch.manual_seed(0)
        try:
            result: dict[str, Any] = work(name)
        except BaseException as error:  # whatever a tool raises is its result
            result = {
                "failed": f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
            }
        os.write(out, json.dumps(result).encode())
        os._exit(0)

    def poll(self) -> dict[str, Any] | None:
        """The result, once there is one; a child that is too slow is killed."""
        seconds = time.monotonic() - self._begin
        done = bool(os.waitpid(self._child, os.WNOHANG)[0])
        if not done and seconds < TIMEOUT_S:
            return None
        if not done:
            os.kill(self._child, 9)
            os.waitpid(self._child, 0)
        with os.fdopen(self._read, "rb") as stream:
            text = stream.read() if done else b""
        if not done:
            return {"failed": f"hangs: the search took over {TIMEOUT_S:.0f} s"}
        return {**json.loads(text or '{"failed": "crashed"}'), "seconds": seconds}


def run_all(
    jobs: list[tuple[str, Callable[[str], dict[str, Any]], str]],
) -> dict[tuple[str, str], dict[str, Any]]:
    """Every (tool, work, name), as many at a time as there are cores."""
    waiting, running, results = list(jobs), {}, {}
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            tool, work, name = waiting.pop(0)
            running[tool, name] = Trial(work, name)
        for key in list(running):
            result = running[key].poll()
            if result is not None:
                results[key] = result
                del running[key]
        time.sleep(0.02)
    return results


def verdict(result: dict[str, Any]) -> str:
    """`hit`, `off target`, `does nothing` or `fails`."""
    if "failed" in result:
        return "hangs" if result["failed"].startswith("hangs") else "fails"
    if result["left"] > 0.97:
        return "does nothing"
    return "hit" if abs(result["left"] - 0.5) <= CLOSE else "off target"


def main() -> None:
    """Run both tools on the zoo and keep the table."""
    torch.set_num_threads(1)
    import transformers  # noqa: F401 - before forking

    tools = {"mlopt": with_mlopt, "torch-pruning 1.6.1": with_peer}
    results = run_all([(tool, work, name) for name in ZOO for tool, work in tools.items()])
    table: dict[str, Any] = {name: {tool: results[tool, name] for tool in tools} for name in ZOO}
    counts: dict[str, dict[str, int]] = {}
    for tool in tools:
        counts[tool] = {}
        for row in table.values():
            row[tool]["verdict"] = verdict(row[tool])
            counts[tool][row[tool]["verdict"]] = counts[tool].get(row[tool]["verdict"], 0) + 1
    rungs: dict[str, int] = {}
    for row in table.values():
        rung = row["mlopt"].get("rung", "none")
        rungs[rung] = rungs.get(rung, 0) + 1
    write(
        "pruning-coverage",
        {
            "command": "python -m benchmarks.pruning.coverage",
            "architectures": len(ZOO),
            "counts": counts,
            "rungs": rungs,
            "table": table,
        },
    )


if __name__ == "__main__":
    main()
