"""The words and figures of a verdict: for the screen and for every report. Imports no
torch."""

from __future__ import annotations

import math

from mlopt.records.gate import GateRecord, GateRow
from mlopt.report.words import duration, number, size

MEANING = {
    "PASS": "everything that was judged is within its tolerance",
    "FAIL": "a metric is past its tolerance",
    "INCONCLUSIVE": "the time was not enough to tell",
    "ANOMALOUS": "a gain or loss is too large to be real: look for a wrong file or a fallback",
    "INCOMPARABLE": "there was nothing to compare with",
    "INVALID": "the candidate does not work, or was not measured under fair conditions",
}


def value(amount: float | None, unit: str) -> str:
    """A figure in its unit, for people."""
    if amount is None:
        return "-"
    if unit == "s":
        return duration(amount)
    if unit == "bytes":
        return size(amount)
    if unit == "1/s":
        return f"{number(amount)}/s"
    return f"{amount:.2f}%" if unit == "%" else f"{amount:.4g}"


def percent(share: float) -> str:
    """A difference with its sign: `+1.20%`. Past a factor of two, that factor."""
    return f"{100 * share:+.2f}%" if abs(share) < 1 else f"x{1 + share:.3g}"


def change(row: GateRow) -> str:
    """`+0.12% (-1.40% to +1.61%)`: how the candidate's value differs from the
    baseline's."""
    ratio = row.ratio
    if ratio is None:
        return "-"
    if ratio.low == ratio.high:
        return percent(ratio.estimate - 1)
    high = percent(ratio.high - 1) if math.isfinite(ratio.high) else "?"
    return f"{percent(ratio.estimate - 1)} ({percent(ratio.low - 1)} to {high})"


def limit(row: GateRow) -> str:
    """The tolerance of a row, for people."""
    if row.metric == "accuracy":
        return f"-{row.tolerance:g} points"
    if row.metric == "parity":
        return f"{row.unit} {row.tolerance:g}"
    sign = "-" if row.metric == "throughput" else "+"
    return f"{sign}{100 * row.tolerance:.3g}%"


def columns() -> tuple[str, ...]:
    """Headings of `table_row`."""
    return ("verdict", "metric", "baseline", "candidate", "change", "tolerance", "")


def table_row(row: GateRow) -> tuple[str, ...]:
    """One line of the table."""
    name = row.metric + (f", batch {row.batch}" if row.batch is not None else "")
    return (
        row.verdict,
        f"{name}, {row.artifact}",
        value(row.baseline, row.unit),
        value(row.candidate, row.unit),
        change(row),
        limit(row),
        row.note,
    )


def row_sentence(row: GateRow) -> str:
    """One row in one sentence."""
    sentence = (
        f"{row.title}: {change(row)}, allowed {limit(row)}"
        if row.ratio
        else f"{row.title}: allowed {limit(row)}"
    )
    return f"{sentence}; {row.note}" if row.note else sentence


def headline(record: GateRecord) -> str:
    """The verdict and what it rests on, in one line."""
    why = record.reason
    if why is None:
        deciding = [row for row in record.rows if row.verdict == record.verdict]
        why = row_sentence(deciding[0]) if deciding and record.verdict != "PASS" else MEANING[record.verdict]
    return f"{record.verdict}: {why}"
