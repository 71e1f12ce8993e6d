"""False alarms and power of the gate, real ONNX Runtime sessions, beside what people
use instead on the same samples.

    .venv/bin/python -m benchmarks.gate.rates --beside WHAT

WHAT is `nothing` (a quiet machine, an hour), `busy` (benchmarks.gate.busy at work) or
`gate` (two of these at once, each on a core of its own).

Trials of all rows take turns, so that a change of the machine's mood meets every row.
Every finished trial is appended to `results/gate-rates-BESIDE*.jsonl`; run again, it
goes on where it stopped. `benchmarks.gate.summary` makes the tables. A file named
`pause` beside the results holds it between two trials.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu

from benchmarks.common import RESULTS
from mlopt.judging.selftest import CASES, networks, trial
from mlopt.measuring.duet import Duet
from mlopt.measuring.generation import reports_of, times_of

AA_SHARE = 1.5


def about(duet: Duet) -> dict[str, Any]:
    """What the other methods need of a trial: plain statistics of all calls of each
    side, and the test of Mann and Whitney."""
    generations = duet.generations[0]
    sides = [np.asarray(times_of(generations, index)) for index in (0, 1)]
    numbers = [
        {
            "mean": float(s.mean()),
            "median": float(np.median(s)),
            "min": float(s.min()),
            "p99": float(np.percentile(s, 99)),
        }
        for s in sides
    ]
    return {
        "calls": [len(side) for side in sides],
        "baseline": numbers[0],
        "candidate": numbers[1],
        "mann_whitney_p": float(mannwhitneyu(sides[1], sides[0], alternative="two-sided").pvalue),
        "load": [round(made.load.load or 0.0, 2) for made in generations][-1],
        "busy": float(np.mean([made.load.busy or 0.0 for made in generations])),
        "peak_rss_bytes": [
            max(report.peak_rss_bytes or 0 for report in reports_of(generations, index)) for index in (0, 1)
        ],
    }


def run(path: Path, trials: int) -> None:
    """Trials until every row has as many as it needs."""
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    count = {
        (case.name, case.profile): sum((t["row"], t["profile"]) == (case.name, case.profile) for t in done)
        for case in CASES
    }
    wanted = {case: round(trials * (AA_SHARE if case.want == "PASS" else 1)) for case in CASES}
    with networks() as made, path.open("a") as out:
        while left := [case for case in CASES if count[case.name, case.profile] < wanted[case]]:
            for case in left:
                while (RESULTS / "pause").exists():
                    time.sleep(0.2)
                number = count[case.name, case.profile]
                name = list(made)[number % len(made)]
                verdict, duet = trial(case, *made[name], seed=number)
                answers = {
                    o.question.metric: [
                        o.verdict,
                        *(round(v, 5) for v in (o.found.centre, o.found.low, o.found.high)),
                    ]
                    for o in duet.outcomes
                }
                line = {
                    "at": round(time.time(), 1),
                    "row": case.name,
                    "profile": case.profile,
                    "network": name,
                    "verdict": verdict,
                }
                line |= {
                    "seconds": round(duet.seconds, 2),
                    "epochs": len(duet.generations[0]),
                    "answers": answers,
                    **about(duet),
                }
                out.write(json.dumps(line) + "\n")
                out.flush()
                count[case.name, case.profile] += 1


def main() -> None:
    """Start the neighbours, and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--trials", type=int, default=200, help="of each row; A/A rows get half as many again"
    )
    parser.add_argument("--beside", choices=["nothing", "busy", "gate"], default="nothing")
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    again = [
        sys.executable,
        "-m",
        "benchmarks.gate.rates",
        "--beside",
        "gate",
        "--trials",
        str(arguments.trials // 2),
        "--core",
    ]
    if arguments.beside == "gate" and arguments.core is None:
        both = [subprocess.Popen([*again, str(core)]) for core in sorted(os.sched_getaffinity(0))[:2]]
        for process in both:
            process.wait()
        return
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    neighbour = (
        subprocess.Popen([sys.executable, "-m", "benchmarks.gate.busy", "1e6"])
        if arguments.beside == "busy"
        else None
    )
    suffix = "" if arguments.core is None else f"-{arguments.core}"
    try:
        run(RESULTS / f"gate-rates-{arguments.beside}{suffix}.jsonl", arguments.trials)
    finally:
        if neighbour is not None:
            neighbour.kill()


if __name__ == "__main__":
    main()
