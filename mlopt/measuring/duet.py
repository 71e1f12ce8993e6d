"""Two artifacts against each other until the verdict is clear or the budget is
spent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mlopt.errors import MloptError
from mlopt.measuring.generation import Generation
from mlopt.measuring.protocol import LOW_PERCENT
from mlopt.measuring.sampling import Sampler
from mlopt.measuring.sequential import Look, SequentialTest, longer_s
from mlopt.measuring.statistics import Floats, Interval, differences

Answer = Literal["PASS", "FAIL", "INCONCLUSIVE"]

GUARD_SHARE = 0.5
"""A guard alone is sampled for up to this share of the budget; then the verdict stands
without it, and says so."""


@dataclass(frozen=True)
class Question:
    """One metric of one workload against its limit. `percent`: the percentile of a
    block that stands for it, or None for the mean without the slowest 2%. `limit`: log
    of 1 + tolerance. A `guard` may say FAIL; undecided it does not stop a PASS."""

    metric: str
    percent: float | None = LOW_PERCENT
    limit: float = 0.0
    guard: bool = False


@dataclass
class Outcome:
    """The answer to a question about one workload, by its number. `verdict`: PASS, FAIL
    or INCONCLUSIVE; `longer_s` for the last, None when out of reach."""

    question: Question
    workload: int
    verdict: Answer
    found: Interval
    confidence: float
    seconds: float
    longer_s: float | None = None


@dataclass
class Duet:
    """What a comparison gave: answers in the order of (workload, question), and every
    generation, by workload."""

    outcomes: list[Outcome]
    generations: list[list[Generation]]
    seconds: float
    error: MloptError | None = None
    """Why it ended early: the candidate died, hung, or could not be loaded."""


@dataclass(frozen=True)
class Stopping:
    """When a comparison ends at the latest, and how often it may be wrong.

    `alpha`: the chance of a wrong verdict, per side, with the truth on the limit. The
    FAIL side is divided by `families`, the number of questions in the whole gate
    (Bonferroni), since one wrong FAIL fails it. PASS needs no division: all must pass
    (intersection-union, Berger 1982, Technometrics 24).
    """

    budget_s: float
    alpha: float
    families: int = 1


def run_duet(
    sampler: Sampler,
    questions: list[list[Question]],
    stopping: Stopping,
    keep: Callable[[list[Generation]], None] = lambda generations: None,
    clock: Callable[[], float] = time.monotonic,
) -> Duet:
    """Sample generation after generation (contender 0 is the baseline, 1 the
    candidate), and look after each.

    `questions`: those of each workload. `keep` is given every generation as it comes.
    Raises what the baseline raises.
    """
    begin, budget_s = clock(), stopping.budget_s
    cells = [(workload, question) for workload, asked in enumerate(questions) for question in asked]
    tests = [
        SequentialTest(question.limit, stopping.alpha / stopping.families, stopping.alpha)
        for _, question in cells
    ]
    looks: list[Look | None] = [None] * len(cells)
    decided_s = [0.0] * len(cells)
    groups: list[list[Floats]] = [[] for _ in cells]
    generations: list[list[Generation]] = [[] for _ in sampler.workloads]
    while True:
        started = clock()
        fresh = sampler.generation()
        keep(fresh)
        for workload, generation in enumerate(fresh):
            generations[workload].append(generation)
        if 1 in sampler.lost:
            break
        for cell, (workload, question) in enumerate(cells):
            blocks = fresh[workload].blocks
            if 0 in blocks and 1 in blocks:
                groups[cell].append(differences(blocks[0], blocks[1], question.percent))
        now = clock()
        spent, last = now - begin, now - begin + (now - started) > budget_s
        for cell in range(len(cells)):
            look = looks[cell]
            if look is None or not look.verdict:
                looks[cell], decided_s[cell] = (
                    tests[cell].look(groups[cell], 1.0 if last else spent / budget_s),
                    spent,
                )
        if last or _settled(cells, looks, spent / budget_s):
            break
    looked = zip(cells, looks, decided_s, strict=True)
    outcomes = [
        _outcome(question, workload, look, seconds)
        for (workload, question), look, seconds in looked
        if look is not None
    ]
    return Duet(outcomes, generations, clock() - begin, sampler.lost.get(1))


def _settled(cells: list[tuple[int, Question]], looks: list[Look | None], share: float) -> bool:
    """Whether more samples cannot change the verdict of the whole, or only a guard is
    open and has had its share."""
    verdicts = [look.verdict if look is not None else "" for look in looks]
    if "FAIL" in verdicts:
        return True
    undecided = [question for (_, question), verdict in zip(cells, verdicts, strict=True) if not verdict]
    return not undecided or (share >= GUARD_SHARE and all(question.guard for question in undecided))


def _outcome(question: Question, workload: int, look: Look, seconds: float) -> Outcome:
    more = None if look.verdict else longer_s(look.found, question.limit, seconds)
    return Outcome(
        question, workload, look.verdict or "INCONCLUSIVE", look.found, look.confidence, seconds, more
    )
