"""Tables of `benchmarks.gate.rates`: the gate, and beside it what people use instead,
on the samples of the same trials.

    .venv/bin/python -m benchmarks.gate.summary

Other methods, each given the calls that the gate took:
- stored mean, stored median, stored minimum: the candidate's figure against the
  baseline's of an earlier trial of the same network, FAIL past 5%; this is also the
  rule of pytest-benchmark's `--benchmark-compare-fail=mean:5%` (or `median:5%`,
  `min:5%`). The earlier trial is 20 to 60 trials back, about a CI job apart.
- Mann-Whitney: per call, p < 0.05 and the candidate's median the larger.
Writes `results/gate-rates.json`. Trials are kept as `results/gate-rates-*.jsonl.gz`.
"""

from __future__ import annotations

import gzip
import json
import math
import random
from typing import Any

import numpy as np

from benchmarks.common import RESULTS
from mlopt.judging.selftest import CASES
from mlopt.measuring.environment import fingerprint
from mlopt.records.edge import to_json

Trial = dict[str, Any]
EARLIER = (20, 60)
THRESHOLD = 0.05


def upper_bound(hits: int, trials: int) -> float:
    """The 95% upper bound (Clopper and Pearson) of a rate; 3/n for none."""
    from scipy.stats import beta

    return 1.0 if hits == trials else float(beta.ppf(0.95, hits + 1, trials - hits))


def stored(trials: list[Trial], everything: list[Trial], figure: str) -> float:
    """Share of trials that a stored figure of an earlier trial would have failed."""
    draw, fails = random.Random(0), []
    for trial in trials:
        back = range(trial["number"] - EARLIER[1], trial["number"] - EARLIER[0])
        earlier = [
            t
            for t in everything
            if (t["network"], t["file"]) == (trial["network"], trial["file"]) and t["number"] in back
        ]
        if earlier:
            fails.append(
                trial["candidate"][figure] > draw.choice(earlier)["baseline"][figure] * (1 + THRESHOLD)
            )
    return float(np.mean(fails)) if fails else math.nan


def mann_whitney(trials: list[Trial]) -> float:
    """Share of trials that the test of Mann and Whitney on single calls would have
    failed."""
    return float(
        np.mean(
            [
                t["mann_whitney_p"] < 0.05 and t["candidate"]["median"] > t["baseline"]["median"]
                for t in trials
            ]
        )
    )


def table(condition: str) -> list[dict[str, Any]]:
    """One row a kind of comparison."""
    everything = []
    for path in sorted(RESULTS.glob(f"gate-rates-{condition}*.jsonl*")):
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        everything += [
            json.loads(line) | {"number": number, "file": path.name}
            for number, line in enumerate(text.splitlines())
        ]
    out = []
    for case in CASES:
        trials = [t for t in everything if (t["row"], t["profile"]) == (case.name, case.profile)]
        if not trials:
            continue
        verdicts = [t["verdict"] for t in trials]
        seconds = [t["seconds"] for t in trials]
        wrong = verdicts.count("FAIL" if case.want == "PASS" else "PASS")
        out.append(
            {
                "row": case.name,
                "profile": case.profile,
                "trials": len(trials),
                "right": verdicts.count(case.want) / len(trials),
                "wrong": wrong,
                "wrong_upper_95": upper_bound(wrong, len(trials)),
                "inconclusive": verdicts.count("INCONCLUSIVE") / len(trials),
                "right_by_network": {
                    n: float(np.mean([t["verdict"] == case.want for t in trials if t["network"] == n]))
                    for n in {t["network"] for t in trials}
                },
                "median_s": float(np.median(seconds)),
                "longest_s": max(seconds),
                "busy": float(np.median([t["busy"] for t in trials])),
                "others_fail": {
                    "stored mean": stored(trials, everything, "mean"),
                    "stored median": stored(trials, everything, "median"),
                    "stored minimum": stored(trials, everything, "min"),
                    "Mann-Whitney": mann_whitney(trials),
                },
            }
        )
    return out


def markdown(rows: list[dict[str, Any]]) -> str:
    """The tables of README.md."""
    lines = [
        "| truth, profile | comparisons | right | wrong | inconclusive | median, longest |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        wrong = f"{r['wrong']} (under {r['wrong_upper_95']:.1%})"
        shown = (
            f"{r['right']:.1%} | {wrong} | {r['inconclusive']:.1%} | {r['median_s']:.1f} s,"
            f" {r['longest_s']:.1f} s"
        )
        lines.append(f"| {r['row']}, {r['profile']} | {r['trials']} | {shown} |")
    lines += [
        "",
        "| judged FAIL by | " + " | ".join(f"{r['row']}, {r['profile']}" for r in rows) + " |",
        "|---|" + "---:|" * len(rows),
    ]
    lines.append(
        "| mlopt gate | "
        + " | ".join(f"{(r['right'] if r['row'] != 'A/A' else r['wrong'] / r['trials']):.0%}" for r in rows)
        + " |"
    )
    for name in rows[0]["others_fail"]:
        lines.append(f"| {name} | " + " | ".join(f"{r['others_fail'][name]:.0%}" for r in rows) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print and keep the tables."""
    result = {condition: table(condition) for condition in ("nothing", "busy", "gate")}
    for condition, rows in result.items():
        if rows:
            print(f"\nbeside {condition}\n\n{markdown(rows)}")
    (RESULTS / "gate-rates.json").write_text(
        json.dumps({"environment": to_json(fingerprint()), **result}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
