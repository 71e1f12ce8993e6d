"""A baseline of which only numbers are left: what may be said of it, and how such
numbers are made."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.judging.policy import Policy
from mlopt.judging.sides import Side
from mlopt.judging.verdict import Reason
from mlopt.measuring.environment import fingerprint
from mlopt.measuring.rows import bench_rows
from mlopt.measuring.run import same_signature, workload_for
from mlopt.measuring.sampling import Contender, Sampler
from mlopt.model.trust import Trust
from mlopt.records.bench import BenchRow, Conditions, Ratio
from mlopt.records.gate import Comparison, GateRow, Kind, Word

STORED_S = 5.0
"""Seconds of sampling for each batch size of an artifact that is measured alone."""


@dataclass(frozen=True)
class Terms:
    """By what is judged, and what may be opened for it."""

    policy: Policy
    trust: Trust

    @property
    def conditions(self) -> Conditions:
        """Under which calls are timed."""
        return Conditions(self.policy.threads, self.policy.device, self.policy.copies)


@dataclass(frozen=True)
class PairResult:
    """What was found of one candidate and its baseline. `reasons`: verdicts that belong
    to no row."""

    rows: tuple[GateRow, ...] = ()
    reasons: tuple[Reason, ...] = ()
    kind: Kind = "interleaved"
    comparisons: tuple[Comparison, ...] = ()

    @classmethod
    def of_reason(cls, verdict: Word, why: str, kind: Kind = "interleaved") -> PairResult:
        """Where nothing could be measured."""
        return cls(reasons=(Reason(verdict, why),), kind=kind)


def measure_alone(side: Side, terms: Terms) -> list[BenchRow]:
    """One artifact by itself: a row for each batch size. Raises what running it
    raises."""
    assert side.artifact is not None
    fixed, conditions = side.artifact.fixed_batch, terms.conditions
    (given,) = same_signature([side.artifact])
    workloads = [
        workload_for(given, batch) for batch in ((fixed,) if fixed is not None else terms.policy.batch)
    ]
    with Sampler(
        [Contender(side.label, given, terms.trust.for_model(given.name))], workloads, conditions
    ) as sampler:
        measured = zip(workloads, sampler.collect(STORED_S), strict=True)
        return [
            row
            for workload, column in measured
            for row in bench_rows([side.label], workload.batch, column, conditions)
        ]


def against_numbers(new: Side, old: Side, why: str, terms: Terms) -> PairResult:
    """Numbers can say FAIL past a wide limit on the same machine, else INCOMPARABLE,
    and never PASS.

    `why`: the baseline itself cannot be run.
    """
    if old.stored is None:
        return PairResult.of_reason(
            "INCOMPARABLE", f"{old.label} cannot be run here ({why}), and it left no numbers", "stored"
        )
    other = old.stored.environment.differences(fingerprint())
    if other:
        text = (
            f"{old.label} cannot be run here ({why}), and its numbers are from another machine:"
            f" {'; '.join(other[:3])}"
        )
        return PairResult.of_reason("INCOMPARABLE", text, "stored")
    rows = []
    for now in measure_alone(new, terms):
        was = next((row for row in old.stored.numbers if _same_conditions(row, now)), None)
        if was is not None and was.p10_s and now.p10_s:
            rows.append(_row(new.label, was.p10_s, now.p10_s, now.batch, terms.policy.stored_limit, why))
    if not rows:
        return PairResult.of_reason(
            "INCOMPARABLE",
            f"{old.label} cannot be run here ({why}), and it left no numbers that fit",
            "stored",
        )
    return PairResult(tuple(rows), kind="stored")


def _same_conditions(stored: BenchRow, now: BenchRow) -> bool:
    """Whether a stored row may stand beside a new one. A device that was not written
    down is no obstacle."""
    return (stored.batch, stored.threads, stored.copies) == (
        now.batch,
        now.threads,
        now.copies,
    ) and stored.device in (None, now.device)


def _row(label: str, was_s: float, now_s: float, batch: int, limit: float, why: str) -> GateRow:
    """Latency of an artifact at one batch size, against a stored number."""
    ratio = now_s / was_s
    word: Word = "FAIL" if ratio > 1 + limit else "INCOMPARABLE"
    note = f"stored numbers; {why}" if word == "FAIL" else f"stored numbers cannot say PASS; {why}"
    return GateRow(
        "latency",
        label,
        "s",
        was_s,
        now_s,
        limit,
        word,
        batch,
        Ratio(ratio, ratio, ratio, 0.0),
        STORED_S,
        note,
    )
