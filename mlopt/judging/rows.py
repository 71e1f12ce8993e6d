"""From what was measured to the rows of a verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mlopt.judging.outputs import Answers
from mlopt.judging.policy import Anomaly, Memory, Policy, effective
from mlopt.judging.sides import Side
from mlopt.judging.verdict import Reason, by_limit, by_values
from mlopt.measuring.duet import Duet, Outcome
from mlopt.measuring.generation import Generation
from mlopt.measuring.rows import bench_rows, gpu_of, load_of
from mlopt.measuring.sampling import Workload
from mlopt.records.bench import Conditions, Ratio
from mlopt.records.gate import Comparison, GateRow


def size_and_accuracy_rows(new: Side, old: Side, answers: Answers, policy: Policy) -> list[GateRow]:
    """What is counted, not timed."""
    rows = []
    if policy.size is not None:
        limit = effective(policy.size.tolerance, policy.size.floor_bytes, old.bytes)
        ratio = new.bytes / max(1, old.bytes)
        word = by_limit(new.bytes, old.bytes, limit)
        rows.append(
            GateRow(
                "size",
                new.label,
                "bytes",
                old.bytes,
                new.bytes,
                limit,
                word,
                ratio=Ratio(ratio, ratio, ratio, 1.0),
            )
        )
    both = answers.accuracy
    if both is None and old.accuracy is not None and new.accuracy is not None:
        both = old.accuracy, new.accuracy
    if policy.accuracy is not None and both is not None:
        lost = both[0] - both[1]
        word = "FAIL" if lost > policy.accuracy.max_drop else "PASS"
        where = (
            f"{answers.metric}, measured here" if answers.accuracy is not None else "as both runs recorded it"
        )
        note = f"{lost:+.2f} points lost; {where}"
        rows.append(
            GateRow("accuracy", new.label, "%", both[0], both[1], policy.accuracy.max_drop, word, note=note)
        )
    return rows


def sampled_row(outcome: Outcome, label: str, batch: int, duet: Duet, limits: Anomaly) -> GateRow:
    """A question's answer as a row."""
    question, found = outcome.question, outcome.found
    old, new = (median_s(duet.generations[outcome.workload], index, question.percent) for index in (0, 1))
    ratio = Ratio(math.exp(found.centre), _exp(found.low), _exp(found.high), outcome.confidence)
    row = GateRow(
        question.metric,
        label,
        "s",
        old,
        new,
        math.expm1(question.limit),
        outcome.verdict,
        batch,
        ratio,
        outcome.seconds,
    )
    if question.metric == "throughput":
        row = replace(
            row,
            unit="1/s",
            baseline=batch / old,
            candidate=batch / new,
            tolerance=-math.expm1(-question.limit),
            ratio=ratio.inverse(),
        )
    if outcome.verdict == "INCONCLUSIVE":
        row = _undecided(row, outcome, any(other.verdict == "FAIL" for other in duet.outcomes))
    if question.metric == "latency" and (ratio.low > limits.max_loss or ratio.high < 1 / limits.max_gain):
        row = replace(
            row,
            verdict="ANOMALOUS",
            note=f"too large to be real: {ratio.estimate:.2g} times the baseline's time",
        )
    return row


def _undecided(row: GateRow, outcome: Outcome, failed: bool) -> GateRow:
    """A row that was not decided, with what that means."""
    if outcome.question.guard:
        return replace(
            row,
            verdict="PASS",
            note=f"not sure: no loss past {row.tolerance:.0%} was seen, and none is excluded",
        )
    if failed:
        return replace(row, note="not pursued: another metric had failed")
    if not math.isfinite(outcome.found.low):
        return replace(
            row, note=f"too few samples to tell anything: --budget {math.ceil(4 * outcome.seconds)}"
        )
    if outcome.longer_s is None:
        return replace(row, note="the ratio lies so near the tolerance that more time would not tell")
    return replace(
        row,
        note=(
            f"about {outcome.longer_s:.0f} s more would tell: --budget"
            f" {math.ceil(outcome.seconds + 1.5 * outcome.longer_s)}"
        ),
    )


def memory_row(label: str, duet: Duet, policy: Memory) -> GateRow:
    """Peak memory of the processes of each generation in which both were alive to the
    end."""
    peaks = [
        [made.reports[index].peak_rss_bytes for index in (0, 1)]
        for made in duet.generations[0]
        if {0, 1} <= set(made.reports)
    ]
    old, new = np.array([pair for pair in peaks if None not in pair], dtype=float).T
    limit = effective(policy.tolerance, policy.floor_bytes, float(np.median(old)))
    ratios = sorted((new / old).tolist())
    ratio = Ratio(ratios[len(ratios) // 2], ratios[0], ratios[-1], 1.0)
    note = f"peak resident size; the range of {len(ratios)} pairs of processes"
    word = by_values(ratios, limit)
    return GateRow(
        "memory",
        label,
        "bytes",
        float(np.median(old)),
        float(np.median(new)),
        limit,
        word,
        ratio=ratio,
        note=note,
    )


def median_s(generations: list[Generation], index: int, percent: float | None) -> float:
    """Seconds of a call of contender `index`: the median over its blocks of what stands
    for a block."""
    blocks = [block for made in generations for block in made.blocks.get(index, [])]
    return float(
        np.median([np.mean(block) if percent is None else np.percentile(block, percent) for block in blocks])
    )


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def comparison(
    new: Side, old: Side, workload: Workload, generations: list[Generation], conditions: Conditions
) -> Comparison:
    """What the report draws of a candidate and its baseline."""
    low = [median_s([made], 0, 10.0) for made in generations if made.blocks.get(0)]
    rows = bench_rows(
        [f"baseline {old.label}", f"candidate {new.label}"], workload.batch, generations, conditions
    )
    return Comparison(
        artifact=new.label,
        against=old.label,
        batch=workload.batch,
        epochs=len(generations),
        drift=low[-1] / low[0] - 1 if len(low) > 1 else 0.0,
        load=load_of(generations),
        histograms=tuple(row.histogram for row in rows if row.histogram is not None),
        bench=tuple(replace(row, operators=(), histogram=None) for row in rows),
    )


def throttled(duet: Duet) -> list[Reason]:
    """A GPU that slowed itself down measured itself, not the artifact."""
    card = gpu_of([made for column in duet.generations for made in column])
    if card is None or not card.throttled:
        return []
    return [Reason("INVALID", f"the GPU was throttled while it was timed: {', '.join(card.throttled)}")]
