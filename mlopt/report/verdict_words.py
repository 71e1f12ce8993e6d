"""The words and figures of a verdict, from `gate.json`: for the screen and for every report. Imports no torch."""

from __future__ import annotations

from typing import Any

from mlopt.report.words import duration, number, size

Data = dict[str, Any]

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


def change(row: Data) -> str:
    """`+0.12% (-1.40% to +1.61%)`: how the candidate's value differs from the baseline's."""
    ratio = row["ratio"]
    if ratio is None:
        return "-"
    if ratio["low"] == ratio["high"]:
        return percent(ratio["estimate"] - 1)
    high = percent(ratio["high"] - 1) if ratio["high"] is not None else "?"
    return f"{percent(ratio['estimate'] - 1)} ({percent(ratio['low'] - 1)} to {high})"


def limit(row: Data) -> str:
    """The tolerance of a row, for people."""
    if row["metric"] == "accuracy":
        return f"-{row['tolerance']:g} points"
    if row["metric"] == "parity":
        return f"{row['unit']} {row['tolerance']:g}"
    sign = "-" if row["metric"] == "throughput" else "+"
    return f"{sign}{100 * row['tolerance']:.3g}%"


def columns() -> tuple[str, ...]:
    """Headings of `table_row`."""
    return ("verdict", "metric", "baseline", "candidate", "change", "tolerance", "")


def table_row(row: Data) -> tuple[str, ...]:
    """One line of the table."""
    name = row["metric"] + (f", batch {row['batch']}" if row["batch"] is not None else "")
    return (
        row["verdict"],
        f"{name}, {row['artifact']}",
        value(row["baseline"], row["unit"]),
        value(row["candidate"], row["unit"]),
        change(row),
        limit(row),
        row["note"],
    )


def row_title(row: Data) -> str:
    """`latency of model.onnx at batch 1`."""
    return f"{row['metric']} of {row['artifact']}" + (f" at batch {row['batch']}" if row["batch"] is not None else "")


def row_sentence(row: Data) -> str:
    """One row in one sentence."""
    told = f"{row_title(row)}: {change(row)}, allowed {limit(row)}" if row["ratio"] else f"{row_title(row)}: allowed {limit(row)}"
    return f"{told}; {row['note']}" if row["note"] else told


def headline(data: Data) -> str:
    """The verdict and what it rests on, in one line."""
    why = data["reason"]
    if why is None:
        deciding = [row for row in data["rows"] if row["verdict"] == data["verdict"]]
        why = row_sentence(deciding[0]) if deciding and data["verdict"] != "PASS" else MEANING[data["verdict"]]
    return f"{data['verdict']}: {why}"
