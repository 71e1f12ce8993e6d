"""What the harness costs: nanoseconds around a call that does nothing, and p50 of real
networks beside a bare timing loop of the same session.

.venv/bin/python -m benchmarks.gate.overhead
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from benchmarks.common import write
from mlopt.judging.selftest import networks
from mlopt.measuring.protocol import Schedule, run_generation
from mlopt.measuring.sampling import Contender, Sampler
from mlopt.records.bench import Conditions
from mlopt.runtimes.onnx_runtime import OnnxRuntime
from mlopt.runtimes.timing import host_times
from mlopt.runtimes.worker import pin_to_cores

ROUNDS = 12


def bare(session: OnnxRuntime, inputs: list[np.ndarray], calls: int) -> list[int]:
    """The loop that anyone would write."""
    feed, out = {"x": inputs[0]}, []
    for _ in range(calls):
        begin = time.perf_counter_ns()
        session._session.run(None, feed)
        out.append(time.perf_counter_ns() - begin)
    return out


def main() -> None:
    """Bare loop and harness take turns in this process; the protocol as a whole (fresh
    pinned processes) stands beside them."""
    pin_to_cores(1)
    nothing = [lambda: None] * 16
    result: dict[str, object] = {
        "harness_ns_a_call": min(statistics.median(host_times(nothing, 0, 20_000)) for _ in range(20)),
        "networks": {},
    }
    with networks() as made:
        for name, (artifact, workload) in made.items():
            session = OnnxRuntime(artifact.path, 1, "cpu", "fp32")
            bound = [session.bind(inputs, True, False) for inputs in workload.sets]
            one = [session.bind(workload.sets[0], True, False)]
            ratios, rotated, calls = [], [], 300
            bare(session, list(workload.sets[0]), calls)
            for _ in range(ROUNDS):
                loop = statistics.median(bare(session, list(workload.sets[0]), calls))
                ratios.append(statistics.median(host_times(one, 0, calls)) / loop)
                rotated.append(statistics.median(host_times(bound, 0, calls)) / loop)
            with (
                Sampler([Contender(name, artifact)], [workload], Conditions()) as sampler,
                sampler.started() as workers,
            ):
                fresh = []
                for _ in range(ROUNDS):
                    generation = run_generation(
                        dict(workers), sampler._inputs[0], Conditions(), Schedule(0.3, 3), sampler._shuffle
                    )
                    p50 = float(np.median(np.concatenate(generation.blocks[0]))) * 1e9
                    fresh.append(p50 / statistics.median(bare(session, list(workload.sets[0]), calls)))
            result["networks"][name] = {  # type: ignore[index]
                "p50_over_bare_loop": statistics.median(ratios),
                "with_rotated_inputs": statistics.median(rotated),
                "whole_protocol": statistics.median(fresh),
            }
    write("gate-overhead", result)


if __name__ == "__main__":
    main()
