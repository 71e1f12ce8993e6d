"""From what was measured to the rows of a verdict."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from mlopt.judging.outputs import Answers
from mlopt.judging.policy import Anomaly, Memory, Policy, effective
from mlopt.judging.sides import Side
from mlopt.judging.verdict import Row, Word, by_limit, by_values
from mlopt.measuring.duet import Duet, Outcome, told
from mlopt.measuring.protocol import Conditions, Epoch
from mlopt.measuring.rows import bench_rows, gpu_of, load_of
from mlopt.measuring.sampling import Shape
from mlopt.measuring.statistics import Ratio


def still_rows(new: Side, old: Side, answers: Answers, policy: Policy) -> list[Row]:
    """Rows that need no clock: size and accuracy."""
    rows = []
    if policy.size is not None:
        limit = effective(policy.size.tolerance, policy.size.floor_bytes, old.bytes)
        ratio = new.bytes / max(1, old.bytes)
        word = by_limit(new.bytes, old.bytes, limit)
        rows.append(Row("size", new.label, "bytes", old.bytes, new.bytes, limit, word, ratio=Ratio(ratio, ratio, ratio, 1.0)))
    both = answers.accuracy
    if both is None and old.accuracy is not None and new.accuracy is not None:
        both = old.accuracy, new.accuracy
    if policy.accuracy is not None and both is not None:
        lost = both[0] - both[1]
        word = "FAIL" if lost > policy.accuracy.max_drop else "PASS"
        where = f"{answers.metric}, measured here" if answers.accuracy is not None else "as both runs recorded it"
        note = f"{lost:+.2f} points lost; {where}"
        rows.append(Row("accuracy", new.label, "%", both[0], both[1], policy.accuracy.max_drop, word, note=note))
    return rows


def sampled_row(outcome: Outcome, label: str, batch: int, duet: Duet, limits: Anomaly) -> Row:
    """A question's answer as a row."""
    question, found = outcome.question, outcome.found
    old, new = (typical(duet.epochs[outcome.shape], entry, question.percent) for entry in (0, 1))
    ratio = Ratio(math.exp(found.centre), _exp(found.low), _exp(found.high), outcome.confidence)
    row = Row(question.metric, label, "s", old, new, math.expm1(question.limit), _word(outcome), batch, ratio, outcome.seconds)
    if question.metric == "throughput":
        row = replace(row, unit="1/s", baseline=batch / old, candidate=batch / new, tolerance=-math.expm1(-question.limit), ratio=ratio.inverse())
    if outcome.verdict == "INCONCLUSIVE":
        row = _open(row, outcome, any(other.verdict == "FAIL" for other in duet.outcomes))
    if question.metric == "latency" and (ratio.low > limits.max_loss or ratio.high < 1 / limits.max_gain):
        row = replace(row, verdict="ANOMALOUS", note=f"too large to be real: {ratio.estimate:.2g} times the baseline's time")
    return row


def _open(row: Row, outcome: Outcome, failed: bool) -> Row:
    """A row that was not decided, with what that means."""
    if outcome.question.guard:
        return replace(row, verdict="PASS", note=f"not sure: no loss past {row.tolerance:.0%} was seen, and none is excluded")
    if failed:
        return replace(row, note="not pursued: another metric had failed")
    if not math.isfinite(outcome.found.low):
        return replace(row, note=f"too few samples to tell anything: --budget {math.ceil(4 * outcome.seconds)}")
    if outcome.longer_s is None:
        return replace(row, note="the ratio lies so near the tolerance that more time would not tell")
    return replace(row, note=f"about {outcome.longer_s:.0f} s more would tell: --budget {math.ceil(outcome.seconds + 1.5 * outcome.longer_s)}")


def memory_row(label: str, duet: Duet, policy: Memory) -> Row:
    """Peak memory of the processes of each epoch."""
    epochs = [epoch for epoch in duet.epochs[0] if 0 in epoch.info and 1 in epoch.info]
    old, new = (np.array(told(epochs, entry, "peak_rss_bytes"), dtype=float) for entry in (0, 1))
    limit = effective(policy.tolerance, policy.floor_bytes, float(np.median(old)))
    ratios = sorted((new / old).tolist())
    ratio = Ratio(ratios[len(ratios) // 2], ratios[0], ratios[-1], 1.0)
    note = f"peak resident size; the range of {len(ratios)} pairs of processes"
    word = by_values(ratios, limit)
    return Row("memory", label, "bytes", float(np.median(old)), float(np.median(new)), limit, word, ratio=ratio, note=note)


def typical(epochs: list[Epoch], entry: int, percent: float | None) -> float:
    """Seconds of a call of an entry: the median over its blocks of what stands for a block."""
    blocks = [block for epoch in epochs for block in epoch.blocks.get(entry, [])]
    return float(np.median([np.mean(block) if percent is None else np.percentile(block, percent) for block in blocks]))


def _word(outcome: Outcome) -> Word:
    return "PASS" if outcome.verdict == "PASS" else "FAIL" if outcome.verdict == "FAIL" else "INCONCLUSIVE"


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def drawn(new: Side, old: Side, shape: Shape, epochs: list[Epoch], conditions: Conditions) -> dict[str, Any]:
    """What the report draws of a comparison."""
    low = [typical([epoch], 0, 10.0) for epoch in epochs if epoch.blocks.get(0)]
    drift = low[-1] / low[0] - 1 if len(low) > 1 else 0.0
    rows = bench_rows([f"baseline {old.label}", f"candidate {new.label}"], shape.batch, epochs, conditions)
    for row in rows:
        row.pop("operators")
    return {
        "artifact": new.label,
        "against": old.label,
        "batch": shape.batch,
        "epochs": len(epochs),
        "drift": drift,
        "load": load_of(epochs),
        "histograms": [row.pop("histogram") for row in rows],
        "bench": rows,
    }


def throttled(duet: Duet) -> list[tuple[Word, str]]:
    """A GPU that slowed itself down measured itself, not the artifact."""
    card = gpu_of([epoch for column in duet.epochs for epoch in column])
    return [("INVALID", f"the GPU was throttled while it was timed: {', '.join(card['throttled'])}")] if card and card["throttled"] else []
