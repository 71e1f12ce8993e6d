"""The charts of the report of a run."""

from __future__ import annotations

from mlopt.records.run import COMPRESSED, DENSE, RunRecord
from mlopt.report.blocks import Bars, Point, Step, Waterfall
from mlopt.report.run_words import fastest, first_batch, row_of
from mlopt.report.words import duration, ratio, size


def bars(record: RunRecord) -> list[Bars]:
    """Size, latency and accuracy, each over what was made; a chart of one bar is
    none."""
    charts = []
    points = _sizes(record)
    if len(points) > 1:
        charts.append(Bars("Size on disk", "shorter is better", tuple(points)))
    times = _times(record)
    if len(times) > 1:
        charts.append(Bars(f"Latency, p50, batch {first_batch(record)}", "shorter is better", tuple(times)))
    accuracy = record.accuracy
    if accuracy is not None and accuracy.after:
        steps = [Point("dense", accuracy.baseline, f"{accuracy.baseline:.2f}%")]
        steps += [Point(name, max(value, 0.0), f"{value:.2f}%") for name, value in accuracy.after.items()]
        charts.append(
            Bars(f"{accuracy.metric.capitalize()} after each pass", "longer is better", tuple(steps))
        )
    return charts


def _sizes(record: RunRecord) -> list[Point]:
    weights = record.compression.bytes
    named = [(DENSE, weights.before)] if weights.before else []
    if weights.after and weights.after != weights.before:
        named.append((COMPRESSED, weights.after))
    named += [(artifact.name, artifact.bytes) for artifact in record.artifacts]
    return [Point(name, count / 1e6, size(count)) for name, count in named]


def _times(record: RunRecord) -> list[Point]:
    """In ms, with the interval of the speed-up as an interval of the time."""
    points = []
    for row in record.bench:
        if row.batch == first_batch(record):
            base = record.bench[0].p50_s * 1e3
            low, high = (base / row.speedup.high, base / row.speedup.low) if row.speedup else (None, None)
            points.append(Point(row.artifact, row.p50_s * 1e3, duration(row.p50_s), low, high))
    return points


def waterfall(record: RunRecord) -> list[Waterfall]:
    """From the dense module to the fastest artifact: what each step took off the
    time."""
    best = fastest(record)
    if best is None or best.speedup is None or best.speedup.low <= 1:
        return []
    path = [best]
    while len(path) < len(record.bench) and path[-1].step is not None:
        parent = row_of(record, path[-1].step.against, best.batch)
        if parent is None:
            break
        path.append(parent)
    base = record.bench[0]
    level = base.p50_s * 1e3
    steps = [Step(base.artifact, 0.0, level, duration(base.p50_s))]
    for row in reversed(path):
        if row.speedup is None:  # the dense module itself
            continue
        after = base.p50_s * 1e3 / row.speedup.estimate
        steps.append(Step(row.artifact, level, after, ratio(row.step or row.speedup).split(" ")[0]))
        level = after
    title = f"How the time fell, batch {best.batch}"
    return [Waterfall(title, "each step against the one above", tuple(steps))] if len(steps) > 2 else []
