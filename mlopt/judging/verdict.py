"""Verdicts: one a row, one of the whole, and the exit code. Pure; what is written here is what scripts read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mlopt.measuring.statistics import Ratio

Word = Literal["PASS", "FAIL", "INCONCLUSIVE", "ANOMALOUS", "INCOMPARABLE", "INVALID"]

EXIT_CODES: dict[str, int] = {"PASS": 0, "FAIL": 1, "ANOMALOUS": 1, "INVALID": 1, "INCONCLUSIVE": 5, "INCOMPARABLE": 6}

WORST_FIRST: tuple[Word, ...] = ("INVALID", "ANOMALOUS", "FAIL", "INCOMPARABLE", "INCONCLUSIVE", "PASS")
"""Which verdict of many is that of the whole. Wrong outputs say more than a slow call; a loss that cannot be real says more than its
size; a sure no says more than a doubt."""

SCHEMA_VERSION = 1


@dataclass
class Row:
    """One metric of one artifact at one shape. `baseline` and `candidate` are in `unit`; `ratio` is the candidate's over the baseline's."""

    metric: str
    artifact: str
    unit: str
    baseline: float | None
    candidate: float | None
    tolerance: float
    verdict: Word
    batch: int | None = None
    ratio: Ratio | None = None
    seconds: float = 0.0
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio.to_json() if self.ratio else None}

    @property
    def title(self) -> str:
        """`latency of model.onnx at batch 1`."""
        return f"{self.metric} of {self.artifact}" + (f" at batch {self.batch}" if self.batch is not None else "")


@dataclass
class Verdict:
    """What the gate says. `kind`: `interleaved` when both were run side by side, `stored` when the baseline was only numbers. `comparisons`: what
    a report draws: distributions, epochs, conditions, one entry an artifact and shape."""

    kind: Literal["interleaved", "stored"]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    reasons: list[tuple[Word, str]] = field(default_factory=list)
    """Verdicts that belong to no row: a crash, a baseline of another machine."""

    @property
    def verdict(self) -> Word:
        """Of the whole."""
        return worst([*(row.verdict for row in self.rows), *(word for word, _ in self.reasons)])

    @property
    def reason(self) -> str | None:
        """Why the verdict is what it is, where that is no row's doing."""
        return "; ".join(why for word, why in self.reasons if word == self.verdict) or None

    @property
    def exit_code(self) -> int:
        """0 PASS; 1 FAIL, ANOMALOUS, INVALID; 5 INCONCLUSIVE; 6 INCOMPARABLE."""
        return EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """`gate.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict,
            "kind": self.kind,
            "exit_code": self.exit_code,
            "reason": self.reason,
            **self.about,
            "rows": [row.to_json() for row in self.rows],
            "notes": self.notes,
            "comparisons": self.comparisons,
        }


def worst(words: Iterable[Word]) -> Word:
    """The verdict of several; INCOMPARABLE of none, for then nothing was compared."""
    found = set(words)
    return next((word for word in WORST_FIRST if word in found), "INCOMPARABLE")


def by_limit(candidate: float, baseline: float, tolerance: float) -> Word:
    """For what is counted, not sampled: FAIL past the tolerance."""
    return "FAIL" if candidate > baseline * (1 + tolerance) else "PASS"


def by_values(ratios: list[float], tolerance: float) -> Word:
    """For a few values with little noise (peak memory of each process): FAIL when all are past the tolerance, PASS when the middle one is not."""
    ordered = sorted(ratios)
    if ordered[0] > 1 + tolerance:
        return "FAIL"
    return "PASS" if ordered[len(ordered) // 2] <= 1 + tolerance else "INCONCLUSIVE"
