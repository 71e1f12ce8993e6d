"""What the report of a run says in sentences."""

from __future__ import annotations

from mlopt.records.bench import BenchRow
from mlopt.records.run import COMPRESSED, DENSE, Failure, RunRecord
from mlopt.report.explain import why_from_operators
from mlopt.report.words import number, ratio

SMALLER_NOT_FASTER = 1.05
SHORT_CALL_S = 2e-3


def first_batch(record: RunRecord) -> int:
    """The batch size that tables and charts show."""
    return record.bench[0].batch if record.bench else 1


def row_of(record: RunRecord, name: str | None, batch: int) -> BenchRow | None:
    """What was measured of an artifact."""
    return next((row for row in record.bench if row.artifact == name and row.batch == batch), None)


def accuracy_of(record: RunRecord, name: str) -> float | None:
    """The accuracy of an artifact in percent, by the name that `bench` gives it."""
    if record.accuracy is None:
        return None
    if name == DENSE:
        return record.accuracy.baseline
    if name == COMPRESSED:
        after = [record.accuracy.after.get(entry.name) for entry in record.passes if entry.role == "trunk"]
        found = [value for value in after if value is not None]
        return found[-1] if found else record.accuracy.baseline
    return next((a.parity.metric for a in record.artifacts if a.name == name and a.parity), None)


def fastest(record: RunRecord) -> BenchRow | None:
    """The row with the largest speed-up at the first batch size."""
    rows = [row for row in record.bench if row.speedup and row.batch == first_batch(record)]
    return max(rows, key=lambda row: row.speedup.estimate if row.speedup else 0.0, default=None)


def headlines(record: RunRecord) -> list[str]:
    """What failed, smaller, faster, what it cost: in that order, each one sentence."""
    lines = [*_failures(record), *_smaller(record)]
    best = fastest(record)
    if best is not None and best.speedup is not None:
        word = "Faster" if best.speedup.low > 1 else "Not faster"
        lines.append(
            f"{word}: {best.artifact} runs {ratio(best.speedup)} as fast as {best.speedup.against}, at batch"
            f" {best.batch}."
        )
    return [*lines, *_cost(record), *record.notes]


def _failures(record: RunRecord) -> list[str]:
    words = {"failed": "FAILED", "declined": "DECLINED"}
    lines = [
        f"{words[entry.status]}: {entry.name}: {entry.reason}"
        for entry in record.passes
        if entry.status in words
    ]
    if isinstance(record.error, Failure):
        message = record.error.message
        return lines if any(message in line for line in lines) else [*lines, f"FAILED: {message}"]
    if record.error == "interrupted":
        lines.append("INTERRUPTED: the same command goes on where this run stopped.")
    return lines


def _smaller(record: RunRecord) -> list[str]:
    macs, params = record.compression.macs, record.compression.params
    if not (macs.before and macs.after):
        return []
    fewer = f"{1 - macs.after / macs.before:.0%} fewer MACs ({number(macs.before)} to {number(macs.after)})"
    if params.before and params.after is not None:
        fewer += f", {1 - params.after / params.before:.0%} fewer parameters"
    return [f"Smaller: {fewer}."]


def _cost(record: RunRecord) -> list[str]:
    accuracy = record.accuracy
    if accuracy is None:
        return []
    exports = [a.parity.metric for a in record.artifacts if a.parity and a.parity.metric is not None]
    last = accuracy_of(record, COMPRESSED)
    lowest = min([*exports, *([last] if last is not None else [])], default=accuracy.baseline)
    lost = accuracy.baseline - lowest
    change = f"{lost:.2f} points at most" if lost > 0 else "nothing"
    metric = "R squared" if accuracy.metric == "r2" else accuracy.metric
    count = "?" if accuracy.samples is None else accuracy.samples
    return [
        f"Cost: {change} of {metric} (dense {accuracy.baseline:.2f}%, lowest {lowest:.2f}%, {count} samples)."
    ]


def why_not_faster(record: RunRecord) -> list[str]:
    """Where smaller is not faster, that and why; then what the passes found."""
    lines = []
    for row in record.bench:
        if row.speedup is not None and row.speedup.high < SMALLER_NOT_FASTER:
            what = (
                f"{row.artifact} is not faster than the eager dense model at batch {row.batch}"
                f" ({ratio(row.speedup)})"
            )
            lines.append(f"{what}: {_reason(record, row)}.")
    for kind in ("warning", "note"):
        lines += [
            f"{entry.name}: {found.sentence}"
            for entry in record.passes
            for found in entry.findings
            if found.kind == kind
        ]
    precisions = {artifact.name: artifact.precision for artifact in record.artifacts}
    for row in record.bench:
        lines += why_from_operators(row, precisions.get(row.artifact))
    return lines


def _reason(record: RunRecord, row: BenchRow) -> str:
    """Why an artifact is slow: what its pass said, else the likeliest of what a time
    alone can tell."""
    for entry in record.passes:
        for found in entry.findings:
            if found.kind == "slow" and found.subject == row.artifact:
                return found.sentence.rstrip(".")
    if row.p50_s < SHORT_CALL_S:
        return "a call is so short that the cost of starting operators outweighs their work"
    return "the time is in operators whose work did not shrink (memory-bound or element-wise)"
