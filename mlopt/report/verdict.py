"""What the report of a gate says, before it is rendered."""

from __future__ import annotations

import math
from typing import Any

from mlopt.report.blocks import Block, Code, Distributions, Document, Drawings, Facts, Judged, Lines, Ratios, Shape, Table
from mlopt.report.verdict_words import columns, headline, percent, row_title, table_row
from mlopt.report.words import duration, size

Data = dict[str, Any]
DRIFT = 0.03
BUSY_SESSION = 0.8
SMALLEST = 5e-5


def verdict_document(data: Data) -> Document:
    """The document of a `gate.json`."""
    import yaml

    title = f"mlopt gate: {data['candidate']['given']} against {data['baseline']['given']}"
    blocks: list[Block] = [
        Table("Judged", columns(), tuple(table_row(row) for row in data["rows"]), left=2, words=1),
        Drawings("", (*_ratios(data), *_distributions(data))),
        Lines("Notes", tuple(data["notes"])),
        Lines("How far to trust this", tuple(_doubts(data))),
        _measured(data),
        Facts("Environment", tuple(_facts(data))),
        Code("Policy", "gate.yaml", yaml.safe_dump(data["policy"], sort_keys=False)),
        Code("Reproduce", "the command", data.get("command") or ""),
    ]
    return Document.of(title, data["verdict"], data["verdict"] == "PASS", [headline(data)], blocks)


def _ratios(data: Data) -> list[Ratios]:
    rows = [
        Judged(
            row_title(row),
            row["ratio"]["estimate"] - 1,
            row["ratio"]["low"] - 1,
            math.inf if row["ratio"]["high"] is None else row["ratio"]["high"] - 1,
            -row["tolerance"] if row["metric"] == "throughput" else row["tolerance"],
            row["verdict"],
            percent(row["ratio"]["estimate"] - 1),
        )
        for row in data["rows"]
        if row["ratio"] is not None
    ]
    return [Ratios("Change against the tolerance", "dashed: the tolerance; the shaded side is too far", tuple(rows))] if rows else []


def _distributions(data: Data) -> list[Distributions]:
    out = []
    for found in data["comparisons"]:
        labels = (f"baseline {found['against']}", f"candidate {found['artifact']}")
        shapes = tuple(
            Shape(label, h["low_s"], h["high_s"], tuple(h["counts"]), h["beyond"]) for label, h in zip(labels, found["histograms"], strict=True)
        )
        out.append(Distributions(f"Calls, {found['artifact']}, batch {found['batch']}", "further left is faster", shapes))
    return out


def _measured(data: Data) -> Table:
    """Plain figures of both sides."""
    rows = []
    for found in data["comparisons"]:
        for row in found["bench"]:
            times = [duration(row[key]) for key in ("p10_s", "p50_s", "p90_s", "p99_s", "p999_s")]
            cold = duration(row["load_s"])
            rows.append((row["artifact"], str(row["batch"]), *times, cold, size(row["peak_rss_bytes"]), str(row["samples"]), str(row["epochs"])))
    heads = ("artifact", "batch", "p10", "p50", "p90", "p99", "p99.9", "load", "memory", "calls", "processes")
    return Table("Measured", heads, tuple(rows))


def _doubts(data: Data) -> list[str]:
    """What a careful reader would want to know of the conditions."""
    out = []
    for found in data["comparisons"]:
        load, name = found["load"], found["artifact"]
        if abs(found["drift"]) > DRIFT:
            out.append(f"{name}: the baseline's own time drifted by {found['drift']:+.1%} between first and last processes; both sides saw it.")
        if (load.get("busy") or 0) > BUSY_SESSION:
            out.append(
                f"{name}: the cores were {load['busy']:.0%} busy, more than the gate itself needs; the verdict allows for it and takes longer."
            )
        if (load.get("stolen") or 0) > 0.01:
            out.append(f"{name}: the hypervisor took {load['stolen']:.1%} of the time.")
        if not all(row["settled"] for row in found["bench"]):
            out.append(f"{name}: the times had not settled when the warm-up ended.")
        if found["bench"] and found["bench"][0]["p50_s"] < SMALLEST:
            out.append(
                f"{name}: a call takes {duration(found['bench'][0]['p50_s'])}; at this length the cost of calling is part of what is compared."
            )
    if data["kind"] == "stored":
        out.append("The baseline was only numbers: stored numbers cannot say PASS.")
    return out


def _facts(data: Data) -> list[tuple[str, str]]:
    environment, conditions = data["environment"], data["conditions"]
    sides = []
    for name in ("candidate", "baseline"):
        shown = [f"{a['name']} ({a['format'] or 'numbers only'}), SHA-256 {a['sha256'][:16]}" for a in data[name]["artifacts"]]
        sides.append((name.capitalize(), "; ".join(dict.fromkeys(shown))))
    how = f"{conditions['threads']} thread(s) on {conditions['device']}, copies {conditions['copies']} of the time"
    return [
        *sides,
        ("Kind", data["kind"]),
        ("Conditions", how),
        ("CPU", f"{environment['cpu']}, {environment['cores']} cores{', virtual' if environment.get('virtual') else ''}"),
        ("GPU", environment["gpu"] or "none"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in environment["versions"].items())),
        ("Commit", data.get("commit") or "unknown"),
        ("Date", data.get("created") or "unknown"),
        ("Chance of a wrong FAIL", f"{1 - data['policy']['confidence']:.2g} at most for the whole gate, with the truth at a tolerance"),
    ]
