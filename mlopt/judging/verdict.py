"""Verdicts: one a row, one of the whole, and the exit code. Pure; `records.gate` holds
what is written down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mlopt.judging.policy import Policy
from mlopt.records.bench import Conditions
from mlopt.records.edge import Json, to_json
from mlopt.records.gate import Comparison, GateRecord, GateRow, Kind, SideRecord, Word
from mlopt.records.machine import Machine

EXIT_CODES: dict[str, int] = {
    "PASS": 0,
    "FAIL": 1,
    "ANOMALOUS": 1,
    "INVALID": 1,
    "INCONCLUSIVE": 5,
    "INCOMPARABLE": 6,
}

WORST_FIRST: tuple[Word, ...] = ("INVALID", "ANOMALOUS", "FAIL", "INCOMPARABLE", "INCONCLUSIVE", "PASS")
"""Which verdict of many is that of the whole. Wrong outputs say more than a slow call;
a loss that cannot be real says more than its size; a sure no says more than a doubt."""


@dataclass(frozen=True)
class Reason:
    """A verdict that belongs to no row, and why: a crash, a baseline of another
    machine."""

    verdict: Word
    why: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says. `kind`: `interleaved` when both were run side by side,
    `stored` when the baseline was only numbers.

    `comparisons`: what a report draws: distributions and plain figures, one entry an
    artifact and batch size. `created`: when (UTC, ISO 8601); `commit`: of what.
    """

    kind: Kind
    rows: tuple[GateRow, ...]
    candidate: SideRecord
    baseline: SideRecord
    policy: Policy
    conditions: Conditions
    environment: Machine
    created: str | None = None
    commit: str | None = None
    notes: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    reasons: tuple[Reason, ...] = ()

    @property
    def verdict(self) -> Word:
        """Of the whole."""
        return worst([*(row.verdict for row in self.rows), *(reason.verdict for reason in self.reasons)])

    @property
    def reason(self) -> str | None:
        """Why the verdict is what it is, where that is no row's doing."""
        return "; ".join(reason.why for reason in self.reasons if reason.verdict == self.verdict) or None

    @property
    def exit_code(self) -> int:
        """0 PASS; 1 FAIL, ANOMALOUS, INVALID; 5 INCONCLUSIVE; 6 INCOMPARABLE."""
        return EXIT_CODES[self.verdict]

    def record(self, command: str | None = None) -> GateRecord:
        """What is written down. `command`: the command line that asked for it."""
        return GateRecord(
            verdict=self.verdict,
            kind=self.kind,
            exit_code=self.exit_code,
            reason=self.reason,
            candidate=self.candidate,
            baseline=self.baseline,
            policy=self.policy.model_dump(mode="json"),
            conditions=self.conditions,
            environment=self.environment,
            created=self.created,
            commit=self.commit,
            rows=self.rows,
            notes=self.notes,
            comparisons=self.comparisons,
            command=command,
        )

    def to_json(self) -> Json:
        """`gate.json`."""
        return to_json(self.record())


def worst(words: Iterable[Word]) -> Word:
    """The verdict of several; INCOMPARABLE of none, for then nothing was compared."""
    found = set(words)
    return next((word for word in WORST_FIRST if word in found), "INCOMPARABLE")


def by_limit(candidate: float, baseline: float, tolerance: float) -> Word:
    """For what is counted, not sampled: FAIL past the tolerance."""
    return "FAIL" if candidate > baseline * (1 + tolerance) else "PASS"


def by_values(ratios: list[float], tolerance: float) -> Word:
    """For a few values with little noise (peak memory of each process): FAIL when all
    are past the tolerance, PASS when the middle one is not."""
    ordered = sorted(ratios)
    if ordered[0] > 1 + tolerance:
        return "FAIL"
    return "PASS" if ordered[len(ordered) // 2] <= 1 + tolerance else "INCONCLUSIVE"
