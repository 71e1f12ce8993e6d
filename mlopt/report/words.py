"""Figures for people."""

from __future__ import annotations

from mlopt.records.bench import BenchRow, Ratio


def size(count: float | None) -> str:
    """Bytes for people."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def duration(seconds: float | None) -> str:
    """Seconds for people, three digits."""
    if seconds is None:
        return "-"
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return (
                f"{seconds * factor:.3g} {unit}"
                if seconds * factor < 1000
                else f"{seconds * factor:.0f} {unit}"
            )
    return f"{seconds * 1e9:.0f} ns"


def number(value: float | None) -> str:
    """A count for people."""
    if value is None:
        return "-"
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f}"


def ratio(found: Ratio | None) -> str:
    """`3.20x (3.10-3.31)`; the first of a comparison has none: it is the unit."""
    return f"{found.estimate:.2f}x ({found.low:.2f}-{found.high:.2f})" if found else "1.00x"


def bench_columns() -> tuple[str, ...]:
    """Headings of `mlopt bench`."""
    return (
        "artifact",
        "runtime",
        "batch",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "per second",
        "cold start",
        "peak memory",
        "faster than the first",
    )


def bench_row(row: BenchRow) -> tuple[str, ...]:
    """One line of `mlopt bench`."""
    return (
        row.artifact,
        f"{row.runtime} ({row.provider})",
        str(row.batch),
        duration(row.p50_s),
        duration(row.p90_s),
        duration(row.p99_s),
        duration(row.p999_s),
        f"{row.throughput_per_s:.1f}",
        duration(row.cold_start_s),
        size(row.peak_rss_bytes),
        ratio(row.speedup),
    )
