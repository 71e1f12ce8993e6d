"""The tables of the report of a run."""

from __future__ import annotations

from mlopt.records.bench import BenchRow
from mlopt.records.run import COMPRESSED, DENSE, Amount, Parity, PassEntry, RunRecord
from mlopt.report.blocks import Table
from mlopt.report.run_words import accuracy_of, fastest, first_batch, row_of
from mlopt.report.words import duration, ratio, size

SHOWN_OPERATORS = 6
Row = tuple[str, ...]


def artifact_table(record: RunRecord) -> tuple[Row, tuple[Row, ...]]:
    """(columns, rows): size, latency, speed-up, accuracy, and how far each artifact is
    from its module."""
    metric = record.accuracy.metric if record.accuracy else None
    batch = first_batch(record)
    columns = (
        "artifact",
        "size",
        f"p50, batch {batch}",
        "p90",
        "speed-up",
        *([f"{metric} %"] if metric else []),
        "error",
    )
    rows = [_artifact_row(record, name, count, parity, batch) for name, count, parity in _artifacts(record)]
    return columns, tuple(rows)


def _artifacts(record: RunRecord) -> list[tuple[str, float | None, Parity | None]]:
    """(name, bytes, parity) of everything that was made or measured, the dense module
    first."""
    weights = record.compression.bytes
    measured = dict.fromkeys(row.artifact for row in record.bench)
    out: list[tuple[str, float | None, Parity | None]] = []
    if DENSE in measured or weights.before:
        out.append((DENSE, weights.before, None))
    if COMPRESSED in measured:
        out.append((COMPRESSED, weights.after, None))
    out += [(artifact.name, artifact.bytes, artifact.parity) for artifact in record.artifacts]
    return out + [(name, None, None) for name in measured if name not in {entry[0] for entry in out}]


def _artifact_row(
    record: RunRecord, name: str, count: float | None, parity: Parity | None, batch: int
) -> Row:
    bench, accuracy = row_of(record, name, batch), accuracy_of(record, name)
    return (
        name,
        size(count),
        duration(bench.p50_s) if bench else "not run",
        duration(bench.p90_s) if bench else "-",
        ratio(bench.speedup) if bench else "-",
        *([f"{accuracy:.2f}" if accuracy is not None else "-"] if record.accuracy else []),
        f"{parity.max_error:.1e}" if parity and parity.max_error is not None else "-",
    )


def _made_by(entry: PassEntry) -> str:
    """What `bench` calls the thing that a pass made."""
    return COMPRESSED if entry.role == "trunk" and not entry.trains else entry.name


def gains_table(record: RunRecord) -> Table:
    """What each pass gave: size, time, accuracy."""
    batch = first_batch(record)
    sizes: dict[str | None, float | None] = {artifact.name: artifact.bytes for artifact in record.artifacts}
    sizes |= {DENSE: record.compression.bytes.before, COMPRESSED: record.compression.bytes.after}
    trunk = record.accuracy.baseline if record.accuracy else None
    rows = []
    for entry in record.passes:
        if entry.status not in ("ok", "cached"):
            continue
        bench = row_of(record, _made_by(entry), batch)
        gain = (bench.step or bench.speedup) if bench else None
        before, after = (sizes.get(gain.against), sizes.get(_made_by(entry))) if gain else (None, None)
        now = record.accuracy.after.get(entry.name) if record.accuracy else None
        since = trunk if now is not None else None
        if entry.role == "trunk" and now is not None:
            trunk = now
        rows.append(
            (
                entry.name,
                gain.against if gain else "-",
                f"{size(before)} to {size(after)}" if before and after else "-",
                ratio(gain) if gain else ("same shape" if entry.trains else "-"),
                f"{now - since:+.2f}" if now is not None and since is not None else "-",
            )
        )
    return Table(
        "What each pass gave",
        ("pass", "made from", "size", "faster by", "accuracy, points"),
        tuple(rows),
        left=2,
    )


def operators_table(record: RunRecord) -> Table:
    """The slowest operators of the dense module, and of the fastest artifact."""
    chosen: list[BenchRow | None] = [record.bench[0] if record.bench else None, fastest(record)]
    rows = []
    for row in chosen:
        operators = row.operators if row else ()
        total = sum(operator.seconds for operator in operators) or 1.0
        for operator in operators[:SHOWN_OPERATORS]:
            kind = operator.kind if operator.kind != operator.name else ""
            about = ", ".join(part for part in (kind, operator.precision, operator.provider) if part)
            share = f"{operator.seconds / total:.0%}"
            rows.append(
                (row.artifact if row else "", operator.name, about, duration(operator.seconds), share)
            )
    columns = ("artifact", "operator", "kind", "time a call", "of the shown")
    return Table("Slowest operators, before and after", columns, tuple(rows), left=3)


def environment_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Where and how it was made and measured."""
    machine, seconds, load = record.environment, record.seconds, record.environment.load_at_start
    signature = "; ".join(
        f"{spec.name}={','.join(map(str, spec.dims))} {spec.dtype}" for spec in record.input
    )
    rows = [
        ("CPU", f"{machine.cpu}, {machine.cores} cores{', virtual' if machine.virtual else ''}"),
        ("Instruction sets", " ".join(machine.isa) or "unknown"),
        ("GPU", machine.gpu or "none"),
        ("Governor, kernel", f"{machine.governor or 'not readable'}, {machine.kernel}"),
        ("Load at start", ", ".join(f"{value:.1f}" for value in load) if load else "unknown"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
        ("Model", f"{record.source.kind}, SHA-256 {str(record.source.sha256)[:16]}"),
        ("Input", signature or "unknown"),
    ]
    shares = _what_remains(record)
    if shares:
        rows.append(("What remains", shares))
    if record.bench:
        rounds = {row.rounds for row in record.bench}
        first = record.bench[0]
        how = f"{min(rounds)} to {max(rounds)} interleaved rounds, {first.epochs} set(s) of fresh processes"
        rows.append(("Measured", f"{how}, {first.threads} thread(s), 95% intervals"))
    if seconds is not None:
        parts = f"training {seconds.training:.1f}, export {seconds.export:.1f}, timing {seconds.timing:.1f}"
        rows.append(("Run time", f"{seconds.total:.1f} s: {parts}, mlopt itself {seconds.mlopt:.1f}"))
    return rows


def _what_remains(record: RunRecord) -> str:
    """Every budget as it was realised."""
    names = {"macs": "MACs", "params": "parameters"}
    shares = []
    for key in ("macs", "params", "bytes", "channels"):
        count: Amount = getattr(record.compression, key)
        if count.before and count.after:
            shares.append(f"{count.after / count.before:.1%} of the {names.get(key, key)}")
    return ", ".join(shares)
