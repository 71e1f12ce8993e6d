"""What the report of a gate says, before it is rendered."""

from __future__ import annotations

import yaml

from mlopt.records.gate import Comparison, GateRecord
from mlopt.report.blocks import (
    Block,
    Code,
    Distributions,
    Document,
    Drawings,
    Judged,
    Lines,
    Properties,
    Ratios,
    Shape,
    Table,
)
from mlopt.report.verdict_words import columns, headline, percent, table_row
from mlopt.report.words import duration, size

DRIFT = 0.03
BUSY_SESSION = 0.8
STOLEN = 0.01
SMALLEST_S = 5e-5


def verdict_document(record: GateRecord) -> Document:
    """The document of a verdict."""
    title = f"mlopt gate: {record.candidate.given} against {record.baseline.given}"
    blocks: list[Block] = [
        Table("Judged", columns(), tuple(table_row(row) for row in record.rows), left=2, words=1),
        Drawings("", (*_ratios(record), *_distributions(record))),
        Lines("Notes", record.notes),
        Lines("How far to trust this", tuple(_doubts(record))),
        _measured(record),
        Properties("Environment", tuple(_environment(record))),
        Code("Policy", "gate.yaml", yaml.safe_dump(record.policy, sort_keys=False)),
        Code("Reproduce", "the command", record.command or ""),
    ]
    return Document.of(title, record.verdict, record.verdict == "PASS", [headline(record)], blocks)


def _ratios(record: GateRecord) -> list[Ratios]:
    rows = [
        Judged(
            row.title,
            row.ratio.estimate - 1,
            row.ratio.low - 1,
            row.ratio.high - 1,
            -row.tolerance if row.metric == "throughput" else row.tolerance,
            row.verdict,
            percent(row.ratio.estimate - 1),
        )
        for row in record.rows
        if row.ratio is not None
    ]
    return (
        [
            Ratios(
                "Change against the tolerance",
                "dashed: the tolerance; the shaded side is too far",
                tuple(rows),
            )
        ]
        if rows
        else []
    )


def _distributions(record: GateRecord) -> list[Distributions]:
    out = []
    for found in record.comparisons:
        labels = (f"baseline {found.against}", f"candidate {found.artifact}")
        shapes = tuple(
            Shape(label, h.low_s, h.high_s, h.counts, h.beyond)
            for label, h in zip(labels, found.histograms, strict=True)
        )
        out.append(
            Distributions(f"Calls, {found.artifact}, batch {found.batch}", "further left is faster", shapes)
        )
    return out


def _measured(record: GateRecord) -> Table:
    """Plain figures of both sides."""
    rows = []
    for found in record.comparisons:
        for row in found.bench:
            times = [
                duration(seconds)
                for seconds in (row.p10_s, row.p50_s, row.p90_s, row.p99_s, row.p999_s, row.load_s)
            ]
            rows.append(
                (
                    row.artifact,
                    str(row.batch),
                    *times,
                    size(row.peak_rss_bytes),
                    str(row.samples),
                    str(row.epochs),
                )
            )
    heads = ("artifact", "batch", "p10", "p50", "p90", "p99", "p99.9", "load", "memory", "calls", "processes")
    return Table("Measured", heads, tuple(rows))


def _doubts(record: GateRecord) -> list[str]:
    """What a careful reader would want to know of the conditions."""
    out = [sentence for found in record.comparisons for sentence in _doubts_of(found)]
    if record.kind == "stored":
        out.append("The baseline was only numbers: stored numbers cannot say PASS.")
    return out


def _doubts_of(found: Comparison) -> list[str]:
    out, name = [], found.artifact
    busy, stolen = found.load.busy or 0.0, found.load.stolen or 0.0
    if abs(found.drift) > DRIFT:
        out.append(
            f"{name}: the baseline's own time drifted by {found.drift:+.1%} between first and last processes;"
            " both sides saw it."
        )
    if busy > BUSY_SESSION:
        out.append(
            f"{name}: the cores were {busy:.0%} busy, more than the gate itself needs; the verdict allows for"
            " it and takes longer."
        )
    if stolen > STOLEN:
        out.append(f"{name}: the hypervisor took {stolen:.1%} of the time.")
    if not all(row.settled for row in found.bench):
        out.append(f"{name}: the times had not settled when the warm-up ended.")
    if found.bench and found.bench[0].p50_s < SMALLEST_S:
        call = duration(found.bench[0].p50_s)
        out.append(
            f"{name}: a call takes {call}; at this length the cost of calling is part of what is compared."
        )
    return out


def _environment(record: GateRecord) -> list[tuple[str, str]]:
    """What was compared, how, and where."""
    machine, conditions = record.environment, record.conditions
    sides = []
    for name, side in (("Candidate", record.candidate), ("Baseline", record.baseline)):
        shown = [f"{a.name} ({a.format or 'numbers only'}), SHA-256 {a.sha256[:16]}" for a in side.artifacts]
        sides.append((name, "; ".join(dict.fromkeys(shown))))
    how = f"{conditions.threads} thread(s) on {conditions.device}, copies {conditions.copies} of the time"
    rows = [
        *sides,
        ("Kind", record.kind),
        ("Conditions", how),
        ("CPU", f"{machine.cpu}, {machine.cores} cores{', virtual' if machine.virtual else ''}"),
        ("GPU", machine.gpu or "none"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
        ("Commit", record.commit or "unknown"),
        ("Date", record.created or "unknown"),
    ]
    confidence = record.policy.get("confidence")
    if isinstance(confidence, float):
        wrong = f"{1 - confidence:.2g} at most for the whole gate, with the truth at a tolerance"
        rows.append(("Chance of a wrong FAIL", wrong))
    return rows
